"""Runs a model on a batch and takes what its head sees: the features, the outputs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from .._support.nested import tensors_in
from ..errors import HeadError
from .batches import Batch, last_kept

_SHARDING = ("FullyShardedDataParallel", "FSDPModule")  # by name, so that torch.distributed.fsdp is not imported for nothing
MANY_OUTPUTS = 4096  # beyond, outputs are not copied: they follow from the features and the head's parameters


@dataclass(frozen=True)
class Captured:
    """One batch as the measures take it, one row a sample."""

    features: Tensor
    outputs: Tensor | None  # None where there are too many to copy
    num_outputs: int
    targets: Tensor | None
    samples: int
    given: int  # samples in the batch, also those that only fill it up
    places: int = 1  # rows are places (tokens, pixels) of the inputs, not the inputs themselves, where this is more than 1
    row_index: Tensor | None = None  # (rows,) sample · places + place of each row; None: all in order

    @property
    def positions(self) -> bool:
        """Whether each row is a place of an input."""
        return self.places > 1

    def counted(self, samples: int | None) -> Captured:
        """Without the rows of samples after the first ``samples``, which padded the batch."""
        if samples is None or samples >= self.samples:
            return self
        if self.row_index is None:
            rows = torch.arange(samples * self.places, device=self.features.device)
        else:
            rows = (self.row_index < samples * self.places).nonzero()[:, 0]
        return replace(
            self,
            features=self.features[rows],
            outputs=None if self.outputs is None else self.outputs[rows],
            targets=None if self.targets is None else self.targets[rows.to(self.targets.device)],
            samples=samples,
            row_index=None if self.row_index is None else self.row_index[rows],
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map of the last (or the channel) dimension, which a head must be."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return (
            module.groups == 1
            and all(size == 1 for size in (*module.kernel_size, *module.stride))
            and not any(module.padding if isinstance(module.padding, tuple) else ())
        )
    if isinstance(module, nn.Linear):
        return True
    # transformers' Conv1D is a Linear with its weight transposed
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and getattr(module, "weight", torch.empty(0)).ndim == 2


def head_parameters(head: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """Weight (C, p) and bias (C,) of a linear head; None where it is not one."""
    if not is_linear(head):
        return None, None
    weight, bias = getattr(head, "weight", None), getattr(head, "bias", None)
    if not isinstance(weight, Tensor):
        return None, None
    weight = weight.T if type(head).__name__ == "Conv1D" else weight.flatten(1)
    return weight.detach(), bias.detach() if isinstance(bias, Tensor) else None


@dataclass
class _Call:
    module: nn.Module
    given: Tensor
    returned: Tensor


@dataclass
class _Taken:
    features: Tensor
    outputs: Tensor
    call: _Call  # holds what was returned, so that nothing else comes to lie where it lay


class Tap:
    """Finds a model's head on the first batch and takes its input and output on every batch.

    Args:
        model: any module (not a wrapper; see :func:`unwrapped`).
        head: a module of the model, its dotted name, or None for the last linear layer that ran.
    """

    def __init__(self, model: nn.Module, head: nn.Module | str | None = None) -> None:
        self.model = model
        self._names = {module: name or "(the model itself)" for name, module in model.named_modules()}
        self.head: nn.Module | None = None if head is None else self._named(head)
        self._taken: list[_Taken] = []  # of the module that ran last, one for each time it ran
        self.sharded = any(k.__name__ in _SHARDING for m in self._names for k in type(m).__mro__)
        self._copied: tuple[Tensor | None, Tensor | None] | None = None

    @property
    def parameters(self) -> tuple[Tensor | None, Tensor | None]:
        """Weight (C, p) and bias (C,) of the head; None where it has none or is not linear."""
        if self._copied is not None:
            return self._copied
        return (None, None) if self.head is None else head_parameters(self.head)

    @property
    def name(self) -> str:
        """Dotted name of the head."""
        return "" if self.head is None else self._names[self.head]

    def run(self, batch: Batch, hooks: Callable[[ExitStack], None] | None = None) -> Captured:
        """One forward pass; the head is looked for if it is not known yet. ``hooks`` may add more to it."""
        if self.head is None:
            returned = self._search(batch)
            if self.sharded or hooks is not None:
                returned = self._forward(batch, [self.found], hooks=hooks)
        else:
            returned = self._forward(batch, [self.head], hooks=hooks)
        taken, self._taken = self._taken, []
        if not taken:
            raise HeadError(
                f"the head {self.name!r} did not run in the forward pass of {type(self.model).__name__}; "
                f"pass another head. {self._candidates()}"
            )
        if len(taken) > 1:
            taken = self._returned(taken, returned)
        return _rows(self.found, taken[0].features, taken[0].outputs, returned, batch)

    def _returned(self, taken: list[_Taken], returned: Any) -> list[_Taken]:
        """Of several times that the head ran, the one whose output the model returns."""
        final = {_storage(x) for x in _dense(returned)}
        direct = [t for t in taken if _storage(t.call.returned) in final]
        if len(direct) != 1:
            raise HeadError(
                f"the head {self.name!r} ran {len(taken)} times in one forward pass of {type(self.model).__name__}, which "
                f"returns the outputs of {len(direct)} of them: its inputs are not one set of features. Measure a model that "
                "runs it once, or pass another head"
            )
        return direct

    @property
    def found(self) -> nn.Module:
        """The head; an error before it is known."""
        if self.head is None:
            raise HeadError("no batch has run yet")
        return self.head

    def _named(self, head: nn.Module | str) -> nn.Module:
        if isinstance(head, str):
            try:
                return self.model.get_submodule(head)
            except AttributeError:
                raise HeadError(f"head={head!r} is not a module of {type(self.model).__name__}. {self._candidates()}") from None
        if not isinstance(head, nn.Module):
            raise TypeError(f"head must be a module, its dotted name or None, got {type(head).__name__}")
        if head not in self._names:
            raise HeadError(f"head={type(head).__name__} is not a part of {type(self.model).__name__}. {self._candidates()}")
        return head

    def _candidates(self, modules: list[nn.Module] | None = None) -> str:
        found = modules if modules is not None else [m for m in self._names if is_linear(m)]
        if not found:
            return "The model has no linear layer (nn.Linear, 1×1 convolution, transformers' Conv1D)."
        return "Candidates: " + "; ".join(f"head={self._names[m]!r} ({_describe(m)})" for m in found)

    def _forward(
        self,
        batch: Batch,
        watched: list[nn.Module],
        calls: list[_Call] | None = None,
        hooks: Callable[[ExitStack], None] | None = None,
    ) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = next(tensors_in((args, kwargs)), None)
            returned = next(tensors_in(output), None)
            if given is None or returned is None or given.is_nested or returned.is_nested:
                return
            # copies, for whatever follows may write into them in place
            few = returned.shape[-1] <= MANY_OUTPUTS or not is_linear(module)
            outputs = returned.detach().clone() if few else returned.detach()
            call = _Call(module, given, returned)
            if self._taken and self._taken[-1].call.module is not module:
                self._taken.clear()
            self._taken.append(_Taken(given.detach().clone(), outputs, call))
            if calls is not None:
                calls.append(call)

        def copy(module: nn.Module, args: tuple[Any, ...]) -> None:
            weight, bias = head_parameters(module)
            self._copied = (None if weight is None else weight.clone(), None if bias is None else bias.clone())

        self._taken.clear()
        with ExitStack() as stack:
            if self.sharded and self.head is not None and self._copied is None:  # weights are whole only while the model runs
                stack.callback(self.head.register_forward_pre_hook(copy).remove)
            for module in watched:
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
            if hooks is not None:
                hooks(stack)
            return batch.feed(self.model)

    def _search(self, batch: Batch) -> Any:
        """The head is the linear layer whose output the model returns, else the last that ran, if that is unambiguous."""
        candidates = [m for m in self._names if is_linear(m)]
        if not candidates:
            raise HeadError(f"no head found in {type(self.model).__name__}. {self._candidates()} Pass head=.")
        calls: list[_Call] = []
        returned = self._forward(batch, candidates, calls)
        if not calls:
            raise HeadError(
                f"none of the linear layers of {type(self.model).__name__} was called as a module in the forward pass. "
                f"{self._candidates()} Pass head= as a module that is called."
            )
        fed = {_storage(call.given) for call in calls}
        final = {_storage(x) for x in _dense(returned)}
        heads = _unique([c.module for c in calls if _storage(c.returned) in final and _storage(c.returned) not in fed])
        last = calls[-1]
        if not heads:
            beside = [c.module for c in calls if _storage(c.given) == _storage(last.given) and c.given.shape == last.given.shape]
            heads = _unique([m for m in beside if all(_storage(c.returned) not in fed for c in calls if c.module is m)])
        if len(heads) > 1:
            raise HeadError(f"{type(self.model).__name__} has more than one head: say which. {self._candidates(heads)}")
        direct = bool(heads) and any(_storage(c.returned) in final for c in calls if c.module is heads[0])
        if not direct and not _follows(returned, self._taken[-1].outputs):
            raise HeadError(
                f"{type(self.model).__name__} returns something other than what its last linear layer computes "
                f"({self._names[last.module]!r}); say which is the head. {self._candidates()}"
            )
        self.head = heads[0] if heads else last.module
        if self.head is not last.module or sum(c.module is self.head for c in calls) > 1:
            return self._forward(batch, [self.head])
        return returned


def _describe(module: nn.Module) -> str:
    text = str(module).split("\n")[0]
    return text if len(text) <= 80 else type(module).__name__


def _follows(returned: Any, outputs: Tensor) -> bool:
    """Whether what the model returns is, in every row, in the order of the outputs, as after a softmax or a sigmoid.

    It is not when something else was added, as a low-rank adapter beside the head does. Returns of another shape tell nothing.
    """
    same = [x for x in _dense(returned) if x.shape == outputs.shape and x.is_floating_point()]
    finite = torch.isfinite(outputs).all(-1)  # what is not has an error of its own
    same, outputs = [x[finite] for x in same], outputs[finite]
    steps = [x.gather(-1, outputs.argsort(-1)).diff(dim=-1) for x in same]
    return not same or any(bool((s >= 0).all()) or bool((s <= 0).all()) for s in steps)


def _picked(matching: Tensor, mask: Tensor | None) -> Tensor:
    """(n,) the place whose outputs are the answer; where those of several are the same, the rule that fits all samples.

    Args:
        matching: (n, places) whether they are the same.
        mask: (n, places) which tokens count, or None.
    """
    always = matching.all(0).nonzero()[:, 0]
    if len(always):
        return always[-1].expand(len(matching))
    if mask is not None and mask.shape == matching.shape:
        last = last_kept(mask.to(matching.device) > 0)
        if bool(matching.gather(1, last.unsqueeze(1)).all()):
            return last
    return matching.int().argmax(1)


def _dense(returned: Any) -> Iterator[Tensor]:
    """The tensors of what a model returns that have a storage; those that it keeps for its next call are no answers."""
    if isinstance(returned, Mapping):  # a tuple of views of linear layers' outputs, before transformers had a class for it
        returned = {name: value for name, value in returned.items() if name != "past_key_values"}
    return (x for x in tensors_in(returned) if x.layout == torch.strided)


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _unique(modules: list[nn.Module]) -> list[nn.Module]:
    return list(dict.fromkeys(modules))


def _rows(head: nn.Module, features: Tensor, outputs: Tensor, returned: Any, batch: Batch) -> Captured:
    """Brings what the head saw to one row a sample, or a row a place where the model answers at every place."""
    if isinstance(head, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        channel = -1 - len(head.kernel_size)
        features, outputs = features.movedim(channel, -1), outputs.movedim(channel, -1)
    for name, x in (("input", features), ("output", outputs)):
        if not x.is_floating_point() or x.layout != torch.strided:
            kind = f"dtype {x.dtype}" if x.layout == torch.strided else f"layout {x.layout}"
            raise TypeError(f"the head's {name} has {kind}; features and outputs must be dense and real floating point")
    if outputs.ndim == 1:
        features, outputs = features.unsqueeze(0), outputs.unsqueeze(0)
    if features.shape[:-1] != outputs.shape[:-1]:
        raise HeadError(
            f"the head maps {tuple(features.shape)} to {tuple(outputs.shape)}: it is not a linear map of the last dimension; "
            "pass head= as the last linear layer"
        )
    samples, width = len(outputs), outputs.shape[-1]
    places = outputs[..., 0].numel() // max(samples, 1)
    many = width > MANY_OUTPUTS and is_linear(head)

    def captured(choose: Callable[[Tensor], Tensor], targets: Tensor | None, **more: Any) -> Captured:
        return Captured(choose(features), None if many else choose(outputs), width, targets, samples, samples, **more)

    if outputs.ndim == 2 or places == 1:
        return captured(lambda x: x.flatten(0, -2), batch.sample_targets(samples))

    # The head ran at many places of every input: tokens of a sequence, pixels of a map.
    features, outputs = features.flatten(1, -2), outputs.flatten(1, -2)
    answers = [x for x in _dense(returned) if x.shape == (samples, width) and x.is_floating_point()]
    everywhere = any(x.numel() == outputs.numel() and len(x) == samples for x in tensors_in(returned))
    if everywhere or not answers:
        targets, keep = batch.position_targets(samples, places)
        if keep is None:
            return captured(lambda x: x.flatten(0, 1), targets, places=places)
        index = keep.nonzero()[:, 0].to(features.device)
        targets = None if targets is None else targets[keep.to(targets.device)]
        return captured(lambda x: x.flatten(0, 1)[index], targets, places=places, row_index=index)
    answer = answers[0].detach()
    targets = batch.sample_targets(samples)
    matching = (outputs == answer.unsqueeze(1)).all(-1)  # one place was picked, as GPT-2 classifiers pick the last token
    if bool(matching.any(1).all()):
        row, place = torch.arange(samples, device=features.device), _picked(matching, batch.mask)
        return captured(lambda x: x[row, place], targets)
    mean, size = outputs.mean(1).to(answer), float(outputs.abs().max())  # what is not finite has an error of its own
    if size < torch.inf and not torch.allclose(mean, answer, rtol=1e-2, atol=1e-3 * size):
        raise HeadError(
            f"the head ran at {places} places of every input and the model returned one answer of shape {tuple(answer.shape)} "
            "that is neither one of them nor their mean; pool the features before the head, or pass another head="
        )
    return captured(lambda x: x.mean(1), targets)  # exact for a linear head
