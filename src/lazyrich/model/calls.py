"""What modules are given and return while a model runs: a context manager, whose record ends with it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .._support.nested import tensors_in
from .linear import channels_last, is_sharded, linear_parameters

MANY_OUTPUTS = (
    4096  # beyond, only some rows of the outputs are copied: all of them follow from the features if the head is linear
)
FEW_ROWS = 256


@dataclass(frozen=True)
class Call:
    """One call of a module, copied when it was made, because whatever follows may write into its tensors.

    Attributes:
        module: which module.
        features: (..., p) its first input, channels last.
        outputs: (..., C) its first output, channels last; the first ``FEW_ROWS`` rows (rows, C) where there are many outputs.
        shape: of all outputs, channels last.
        parameters: weight (C, p) and bias (C,) where the model is sharded and they are complete only during the call.
    """

    module: nn.Module
    features: Tensor
    outputs: Tensor
    shape: tuple[int, ...]
    parameters: tuple[Tensor | None, Tensor | None] | None = None

    @property
    def whole(self) -> bool:
        """Whether all rows of the outputs were copied."""
        return tuple(self.outputs.shape) == self.shape

    @property
    def num_rows(self) -> int:
        """Rows of the outputs: the product of all dimensions but the last."""
        return int(torch.Size(self.shape[:-1]).numel())


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor of a module's arguments or of what it returns, if it is one that rows can be read from."""
    x = next(tensors_in(value), None)
    return None if x is None or x.is_nested or x.ndim == 0 else x


def copied_at_call(x: Tensor) -> Tensor:
    """A dense copy without its history."""
    x = x.detach()
    return x.clone() if x.layout == torch.strided else x.to_dense()


@dataclass
class Record:
    """The calls of some modules in one run of a model.

    Attributes:
        made: module and shape of the outputs (channels last) of every call, in the order in which they returned.
        copies: the calls that were copied, by their place in ``made``.
    """

    made: list[tuple[nn.Module, tuple[int, ...]]] = field(default_factory=list)
    copies: dict[int, Call] = field(default_factory=dict)

    @property
    def calls(self) -> list[Call]:
        """The calls that were copied, in order."""
        return [self.copies[k] for k in sorted(self.copies)]


@contextmanager
def recorded(
    model: nn.Module,
    modules: Iterable[nn.Module],
    *,
    only: Container[int] | None = None,
    last: bool = False,
    whole: bool = False,
) -> Iterator[Record]:
    """Records the calls of modules, until the context ends.

    Args:
        model: the model that will run.
        modules: which of its modules.
        only: the places in order of the calls to copy; None: all.
        last: keep the copy of the last call alone.
        whole: copy all rows of the outputs, however many outputs there are.
    """
    record = Record()
    parameters: dict[nn.Module, tuple[Tensor | None, Tensor | None]] = {}
    sharded = is_sharded(model)

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        weight, bias = linear_parameters(module)
        parameters[module] = (None if weight is None else weight.clone(), None if bias is None else bias.clone())

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        features, outputs = first_tensor((args, kwargs)), first_tensor(output)
        if features is None or outputs is None:
            return
        record.made.append((module, tuple(channels_last(module, outputs).shape)))
        place = len(record.made) - 1
        if only is None or place in only:
            if last:
                record.copies.clear()
            record.copies[place] = _call(module, features, outputs, parameters.get(module), whole)

    with ExitStack() as stack:
        for module in dict.fromkeys(modules):
            if sharded:
                stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after, with_kwargs=True).remove)
        yield record


def _call(
    module: nn.Module,
    features: Tensor,
    outputs: Tensor,
    parameters: tuple[Tensor | None, Tensor | None] | None,
    whole: bool,
) -> Call:
    if outputs.ndim == 1:  # one sample without a dimension of its own
        features, outputs = features.unsqueeze(0), outputs.unsqueeze(0)
    shaped = channels_last(module, outputs.detach())
    if shaped.shape[-1] > MANY_OUTPUTS and not whole and shaped.layout == torch.strided:
        copy = shaped.reshape(-1, shaped.shape[-1])[:FEW_ROWS].clone() if shaped.numel() else shaped.clone()
        copy = copy.reshape(shaped.shape) if copy.numel() == shaped.numel() else copy
    else:
        copy = channels_last(module, copied_at_call(outputs))
    return Call(module, channels_last(module, copied_at_call(features)), copy, tuple(shaped.shape), parameters)
