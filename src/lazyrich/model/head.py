"""The head by evidence: the one linear layer whose outputs, by value, are what the model returns.

Nothing is guessed from order, shape or storage. Where no layer or more than one passes, the user is asked by an error that lists
the modules that ``head=`` may name, the likely one first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .._support.nested import tensors_in
from ..errors import HeadError
from .calls import FEW_ROWS, Call, recorded
from .functions import same_values
from .linear import channels_last, is_linear, linear_parameters
from .returned import WEAK, Relation, combined, holds, relation

FEW_COLUMNS = 1024  # of very many outputs that are compared with the weights
FORWARD_ONLY = ("past_key_values",)  # what a model returns for its own next call


@dataclass(frozen=True)
class Reading:
    """What one batch showed: the head's call, and the floating-point tensors that the model returned."""

    call: Call
    returned: tuple[Tensor, ...]
    loss: Tensor | None = None


@dataclass(frozen=True)
class Head:
    """A head and the evidence for it.

    Attributes:
        module, name: the layer and its dotted name.
        relation: how its outputs are returned; None where it was named and the returned tensors do not show it.
        residual: E1, the largest deviation of its outputs from φWᵀ + b with its own parameters, relative to the largest output;
            None where it has no such parameters.
        linear: whether that is the rounding of the dtypes.
        parameters: weight (C, p) and bias (C,) of a linear head.
    """

    module: nn.Module
    name: str
    relation: Relation | None = None
    residual: float | None = None
    linear: bool = False
    parameters: tuple[Tensor | None, Tensor | None] = (None, None)

    @property
    def has_bias(self) -> bool:
        """Whether it adds a bias; True where that is not known."""
        weight, bias = self.parameters
        return not self.linear or weight is None or bias is not None


def find_head(model: nn.Module, forward: Callable[[], Any], named: nn.Module | str | None = None) -> tuple[Head, Reading | None]:
    """The head, from one or two runs of the model on the first batch; and the last run's reading where it holds the head.

    Args:
        model: not a wrapper.
        forward: runs the model on the batch and returns what it returns.
        named: the head as the user named it.

    Raises:
        HeadError: no head, more than one, a name that is none; lists the candidates.
    """
    if named is not None:
        head = Head(module := _named(model, named), names(model)[module])
        reading = read(model, head, forward)
        return _with_evidence(head, reading), reading
    candidates = [module for module in names(model) if is_linear(module)]
    with recorded(model, candidates, last=True) as first:
        returned = forward()
    tensors = returned_tensors(returned)
    if not first.made:
        raise HeadError(_none_called(model, candidates))
    passing: dict[nn.Module, list[Relation]] = {}
    explained: set[int] = set()
    last = next(iter(first.copies))
    for k in range(len(tensors)):
        if (found := relation(first.copies[last], tensors, k)) is not None:
            passing.setdefault(first.copies[last].module, []).append(found)
            explained |= set() if found.function.kind in WEAK else {k}
    open_tensors = [k for k in range(len(tensors)) if k not in explained]
    possible = [k for k, (_, shape) in enumerate(first.made) if k != last and _may_be(shape, [tensors[i] for i in open_tensors])]
    again = None
    if possible or sum(module is first.copies[last].module for module, _ in first.made) > 1:
        again = _second_run(model, candidates, forward, first.made, possible, passing)
    last_first = {module: k for k, (module, _) in enumerate(reversed(first.made))}
    passing = dict(sorted(passing.items(), key=lambda item: last_first[item[0]]))
    heads = [module for module in passing if not _returned_as_features(module, passing, first.copies[last], tensors)]
    if len(heads) > 1:
        raise HeadError(f"{type(model).__name__} has more than one head: pass head= to say which. {listed(model, heads)}")
    if not heads:
        raise HeadError(_nothing_returned(model, forward, [module for module, _ in first.made]))
    head = Head(heads[0], names(model)[heads[0]])
    call = first.copies[last]
    if again is not None or call.module is not head.module or sum(module is head.module for module, _ in first.made) > 1:
        reading = read(model, head, forward)
        return _with_evidence(head, reading), reading
    reading = Reading(call, tensors, returned_loss(returned))
    return _with_evidence(head, reading, passing[head.module]), reading


def read(model: nn.Module, head: Head, forward: Callable[[], Any]) -> Reading:
    """Runs the model and reads the head's call; of very many outputs all rows only where they do not follow from the features.

    Raises:
        HeadError: the head did not run, or ran several times on different inputs.
    """
    with recorded(model, [head.module], whole=head.residual is not None and not head.linear) as record:
        returned = forward()
    tensors = returned_tensors(returned)
    return Reading(one_call(model, head, record.calls, tensors), tensors, returned_loss(returned))


def verify(head: Head, reading: Reading) -> None:
    """Checks on a batch what was found on the first one.

    Raises:
        HeadError: the model does not return the head's outputs here.
    """
    if head.relation is not None and not holds(head.relation, reading.call, reading.returned):
        raise HeadError(
            f"on the first batch the model returned the outputs of {head.name!r} ({head.relation}), and on a later one it does "
            f"not: pass head={head.name!r} to measure that layer all the same"
        )


def one_call(model: nn.Module, head: Head, calls: Sequence[Call], returned: Sequence[Tensor]) -> Call:
    """The head's call; repeated calls with the same inputs and outputs count as one, and chunks that are returned together."""
    if not calls:
        raise HeadError(
            f"the head {head.name!r} did not run in the forward pass of {type(model).__name__}; pass another head=. "
            f"{listed(model, [module for module in names(model) if is_linear(module)])}"
        )
    different = _different(calls)
    if len(different) == 1:
        return different[0]
    if (together := _joined(different, returned)) is not None:
        return together
    raise HeadError(
        f"the head {head.name!r} ran {len(different)} times on different inputs in one forward pass of {type(model).__name__}: "
        "its inputs are not one set of features. Measure a model that runs it once, pass another head=, or pass "
        "forward=lambda model, batch: lazyrich.Rows(features, outputs)"
    )


def returned_tensors(returned: Any) -> tuple[Tensor, ...]:
    """The dense floating-point tensors that a model returns, without those that it keeps for its next call."""
    if isinstance(returned, Mapping):
        returned = {name: value for name, value in returned.items() if name not in FORWARD_ONLY}
    elif hasattr(returned, "__dict__") and any(hasattr(returned, name) for name in FORWARD_ONLY):
        returned = {name: value for name, value in vars(returned).items() if name not in FORWARD_ONLY}
    return tuple(
        x for x in tensors_in(returned) if not x.is_nested and x.layout == torch.strided and x.is_floating_point() and x.ndim > 0
    )


def returned_loss(returned: Any) -> Tensor | None:
    """The loss that a model returns under that name."""
    loss = returned.get("loss") if isinstance(returned, Mapping) else getattr(returned, "loss", None)
    return loss if isinstance(loss, Tensor) and loss.numel() == 1 else None


def names(model: nn.Module) -> dict[nn.Module, str]:
    """Every module with its dotted name."""
    return {module: name or "(the model itself)" for name, module in model.named_modules()}


def listed(model: nn.Module, modules: Sequence[nn.Module]) -> str:
    """What ``head=`` may name, in this order."""
    known = names(model)
    if not modules:
        return "The model has no linear layer (nn.Linear, 1×1 convolution, transformers' Conv1D)."
    return "Candidates: " + "; ".join(f"head={known[m]!r} ({_described(m)})" for m in dict.fromkeys(modules) if m in known)


def _named(model: nn.Module, head: nn.Module | str) -> nn.Module:
    candidates = [module for module in names(model) if is_linear(module)]
    if isinstance(head, str):
        try:
            return model.get_submodule(head)
        except AttributeError:
            raise HeadError(f"head={head!r} is not a module of {type(model).__name__}. {listed(model, candidates)}") from None
    if not isinstance(head, nn.Module):
        raise TypeError(f"head must be a module, its dotted name or None, got {type(head).__name__}")
    if head not in names(model):
        raise HeadError(f"head={type(head).__name__} is not a part of {type(model).__name__}. {listed(model, candidates)}")
    return head


def _with_evidence(head: Head, reading: Reading, relations: list[Relation] | None = None) -> Head:
    """The head with how it is returned and whether it is linear, from one reading; its relations where they are known."""
    relations = _relations(reading.call, reading.returned) if relations is None else relations
    found = combined(relations, reading.call.shape[-1]) if relations else None
    parameters = reading.call.parameters or linear_parameters(head.module)
    residual, linear = _residual(reading.call, parameters)
    return replace(head, relation=found, residual=residual, linear=linear, parameters=parameters)


def _relations(call: Call, returned: Sequence[Tensor]) -> list[Relation]:
    return [found for k in range(len(returned)) if (found := relation(call, returned, k)) is not None]


def _residual(call: Call, parameters: tuple[Tensor | None, Tensor | None]) -> tuple[float | None, bool]:
    """E1: the largest deviation from φWᵀ + b on some rows, and whether rounding in the coarsest dtype allows it."""
    weight, bias = parameters
    features = call.features.flatten(0, -2)[:FEW_ROWS]
    outputs = call.outputs.flatten(0, -2)[: len(features)]
    if weight is None or not len(outputs) or not features.is_floating_point() or not outputs.is_floating_point():
        return None, False
    if features.shape[1] != weight.shape[1] or outputs.shape[1] != weight.shape[0]:
        return None, False
    features = features[: len(outputs)]
    some = torch.linspace(0, len(weight) - 1, min(len(weight), FEW_COLUMNS), device=weight.device).long()
    w, x = weight[some].double(), features.to(weight.device, torch.float64)
    b = torch.zeros(len(w), dtype=torch.float64, device=w.device) if bias is None else bias[some].double()
    outputs = outputs[:, some.to(outputs.device)]
    eps = max(torch.finfo(t.dtype).eps for t in (features, outputs, weight))
    allowed = 8 * eps * weight.shape[1] ** 0.5 * (x.abs() @ w.abs().T + b.abs()) + torch.finfo(torch.float32).tiny
    outputs = outputs.to(w.device, torch.float64)
    deviation, size = (outputs - (x @ w.T + b)).abs(), float(outputs.abs().max())
    if not bool(torch.isfinite(deviation).all()):
        return float("inf"), False
    return float(deviation.max()) / max(size, torch.finfo(torch.float32).tiny), bool((deviation <= allowed).all())


def _may_be(shape: tuple[int, ...], tensors: Sequence[Tensor]) -> bool:
    """Whether a call with outputs of this shape could be part of one of these tensors."""
    width, n = shape[-1], int(torch.Size(shape[:-1]).numel())
    for y in tensors:
        if y.numel() == 0 or n == 0:
            continue
        columns = y.numel() / n
        same_rows = columns == int(columns) and 1 <= columns <= width
        if same_rows or (y.shape[-1] == width and y.numel() < n * width):
            return True
    return False


def _returned_as_features(
    module: nn.Module, passing: Mapping[nn.Module, Sequence[Relation]], last: Call, returned: Sequence[Tensor]
) -> bool:
    """Whether what shows that a layer is returned is nothing but the features of the last layer, which is returned too."""
    if module is last.module or last.module not in passing:
        return False
    features = last.features.flatten()
    equal = [
        found.tensor
        for found in passing[module]
        if returned[found.tensor].numel() == features.numel()
        and bool(same_values(returned[found.tensor].detach().flatten().to(features.dtype), features).all())
    ]
    return len(equal) == len(passing[module])


def _second_run(
    model: nn.Module,
    candidates: Sequence[nn.Module],
    forward: Callable[[], Any],
    made: Sequence[tuple[nn.Module, tuple[int, ...]]],
    possible: Sequence[int],
    passing: dict[nn.Module, list[Relation]],
) -> bool:
    """Runs once more, copies the calls that may be returned, and adds to ``passing`` those that are."""
    repeated = {module for module, _ in made if sum(other is module for other, _ in made) > 1}
    places = {*possible, *(k for k, (module, _) in enumerate(made) if module in repeated)}
    with recorded(model, candidates, only=places) as record:
        tensors = returned_tensors(forward())
    by_module: dict[nn.Module, list[Call]] = {}
    for call in record.calls:
        by_module.setdefault(call.module, []).append(call)
    for module, repeated_calls in by_module.items():
        calls = _different(repeated_calls)
        relations = [found for call in calls for found in _relations(call, tensors)]
        if not relations and len(calls) > 1 and (together := _joined(calls, tensors)) is not None:
            relations = _relations(together, tensors)
        if relations:
            passing[module] = relations
    return True


def _joined(calls: Sequence[Call], returned: Sequence[Tensor]) -> Call | None:
    """Calls whose outputs, one after the other along one dimension or stacked after the first, are what the model returns."""
    if any(not call.whole for call in calls) or len({len(call.shape) for call in calls}) > 1:
        return None
    stacked = any(y.ndim > len(calls[0].shape) for y in returned)
    for dim in (*([None] if stacked else []), *range(len(calls[0].shape) - 1)):
        try:
            outputs, features = (
                torch.stack(parts, 1) if dim is None else torch.cat(parts, dim)
                for parts in ([call.outputs for call in calls], [call.features for call in calls])
            )
        except RuntimeError:  # other sizes elsewhere
            continue
        joined = Call(calls[0].module, features, outputs, tuple(outputs.shape), calls[0].parameters)
        if any(found.function.columns is None and found.rows == "all" for found in _relations(joined, returned)):
            return joined
    return None


def _different(calls: Sequence[Call]) -> list[Call]:
    """Calls with the same inputs and outputs once."""
    different: list[Call] = []
    for call in calls:
        if not any(_same(call, other) for other in different):
            different.append(call)
    return different


def _same(first: Call, second: Call) -> bool:
    return (
        first.shape == second.shape
        and first.features.shape == second.features.shape
        and bool(same_values(first.features, second.features).all())
        and bool(same_values(first.outputs, second.outputs).all())
    )


def _none_called(model: nn.Module, candidates: Sequence[nn.Module]) -> str:
    scripted = [m for m in model.modules() if isinstance(m, torch.jit.ScriptModule)]
    cause = " It is a TorchScript module, and its inner calls cannot be seen: measure the original model." if scripted else ""
    if not candidates:
        return (
            f"no head found in {type(model).__name__}. {listed(model, [])}{cause} "
            "Pass head= as the module that computes the outputs."
        )
    return (
        f"none of the linear layers of {type(model).__name__} was called as a module in the forward pass.{cause} "
        f"{listed(model, candidates)} Pass head= as a module that is called."
    )


def _nothing_returned(model: nn.Module, forward: Callable[[], Any], called: Sequence[nn.Module]) -> str:
    """Says that no layer's outputs are returned, and lists what could be named: what is returned first, then the last to run."""
    inner = [module for module in names(model) if module is not model]
    with recorded(model, inner) as record:
        tensors = returned_tensors(forward())
    calls = [call for call in record.calls if call.features.is_floating_point() and call.outputs.is_floating_point()]
    passing = [call.module for call in calls if call.features.ndim > 1 and call.shape != tuple(call.features.shape)
               and _relations(call, tensors)]  # fmt: skip
    passing = [m for m in passing if any(True for _ in m.parameters()) or not type(m).__module__.startswith("torch.nn.modules.")]
    passing = [m for m in passing if not any(other is not m and other in set(m.modules()) for other in passing)]
    shaped = [module for module in reversed(called) if _shaped_like(module, calls, tensors)]
    wrapping = list(_wrapping(inner, [*passing, *called]))
    containers = [m for m in passing if any(is_linear(inner) for inner in m.modules())]
    order = [*(m for m in passing if m not in containers), *wrapping, *shaped, *reversed(called), *containers]
    if any(call.outputs.is_complex() for call in record.calls):
        raise TypeError(f"the outputs of {type(model).__name__} are complex; features and outputs must be real floating point")
    return (
        f"{type(model).__name__} returns something other than what one of its linear layers computes: pass head= to name the "
        f"layer whose outputs count, or forward=lambda model, batch: lazyrich.Rows(features, outputs). {listed(model, order)}"
    )


def _shaped_like(module: nn.Module, calls: Sequence[Call], tensors: Sequence[Tensor]) -> bool:
    return any(call.module is module and call.shape == tuple(y.shape) for call in calls for y in tensors)


def _wrapping(modules: Sequence[nn.Module], inner: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """Modules that hold an adapted layer as ``base_layer`` or the like: they compute what the layer with its adapter does."""
    for module in modules:
        base = getattr(module, "base_layer", None)
        if isinstance(base, nn.Module) and base in inner:
            yield module


def _described(module: nn.Module) -> str:
    text = str(module).split("\n")[0]
    return text if len(text) <= 80 and not text.endswith("(") else type(module).__name__


__all__ = ["Head", "Reading", "channels_last", "find_head", "read", "verify"]
