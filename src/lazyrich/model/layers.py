"""What inner layers see: the input of every chosen layer, brought to one row for each row of the head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import DataError, HeadError
from .batches import Batch
from .calls import copied_at_call, first_tensor
from .channels import channel_dimension, channel_dimensions
from .linear import is_convolution, is_linear
from .rows import BatchRows, sequence_mask

Pooling = Literal["average", "flatten", "positions", "first", "last"]


@dataclass
class LayerInputs:
    """What layers were given in one run of the model.

    Attributes:
        tensors: layer -> a copy of its first input; layers that were given one and the same tensor share the copy of the first.
        leaders: layer -> the first layer that was given the same tensor, itself if none was.
        calls: layer -> how often it ran.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    leaders: dict[str, str] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)


class Layers:
    """Which layers are measured besides the head.

    Args:
        model: the model.
        layers: "all" (every linear and convolution layer) or dotted names.
        pooling: how the positions of a map or the tokens of a sequence become rows.

    Raises:
        HeadError: names that are no modules.
    """

    def __init__(self, model: nn.Module, layers: str | Sequence[str], pooling: Pooling) -> None:
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be one of {', '.join(get_args(Pooling))}, got {pooling!r}")
        named = dict(model.named_modules())
        self.model, self.every = model, layers == "all"
        self.pooling: Pooling = pooling
        if self.every:
            chosen = [name for name, m in named.items() if is_linear(m) or is_convolution(m)]
        elif isinstance(layers, str):
            raise TypeError(f'layers must be "all" or a list of names, got {layers!r}; write layers=[{layers!r}]')
        else:
            chosen = list(dict.fromkeys(layers))
        unknown = [name for name in chosen if name not in named]
        network, known = type(model).__name__, ", ".join(filter(None, named))
        if self.every and not chosen:
            raise HeadError(f'layers="all": {network} has no linear or convolution layer; name other modules. It has: {known}')
        if unknown or not chosen:
            raise HeadError(f"layers={unknown or chosen} are not modules of {network}. It has: {known}")
        self.modules = {name: named[name] for name in chosen}

    @contextmanager
    def recorded(self) -> Iterator[LayerInputs]:
        """Records what the layers are given, until the context ends."""
        inputs = LayerInputs()
        originals: dict[int, tuple[Tensor, str]] = {}

        def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
            def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                inputs.calls[name] = inputs.calls.get(name, 0) + 1
                x = first_tensor((args, kwargs))
                if x is None:
                    return
                # queries, keys and values are given one and the same tensor: unless it was written into, it is copied once
                known = originals.get(id(x))
                if known is not None and known[0] is x and _equal(inputs.tensors[known[1]], x):
                    inputs.leaders[name] = known[1]
                    return
                originals[id(x)] = (x, name)
                inputs.leaders[name] = name
                inputs.tensors[name] = copied_at_call(x)

            return before

        with ExitStack() as stack:
            for name, module in self.modules.items():
                stack.callback(module.register_forward_pre_hook(hook(name), with_kwargs=True).remove)
            yield inputs


LayerFeatures = dict[str, tuple[Tensor, Tensor]]  # layer -> (rows, width), and the row of the head that each belongs to


@dataclass(frozen=True)
class LayerPlan:
    """Which layers can be measured and where their channels are, as the first batch has shown.

    Attributes:
        pooling: how positions become rows.
        leaders: layer -> the layer whose input it shares, in the order in which they ran.
        dimensions: layer -> the dimension of its channels.
        left_out: layer -> why it cannot be measured.
    """

    pooling: Pooling
    leaders: dict[str, str]
    dimensions: dict[str, int]
    left_out: dict[str, str]


def planned(layers: Layers, inputs: LayerInputs, rows: BatchRows, batch: Batch, forward: Callable[[], Any]) -> LayerPlan:
    """Decides on the first batch which layers can be measured.

    Raises:
        DataError: a layer that was named cannot be.
    """
    leaders: dict[str, str] = {}
    left_out: dict[str, str] = {}
    order = list(inputs.calls)
    unknown = [name for name, x in inputs.tensors.items() if x.ndim > 2 and channel_dimension(layers.modules[name], x) is None]
    traced = channel_dimensions(layers.model, {name: layers.modules[name] for name in unknown}, forward) if unknown else {}
    dimensions: dict[str, int] = {}
    for name in sorted(layers.modules, key=lambda n: order.index(n) if n in inputs.calls else -1):
        x = inputs.tensors.get(inputs.leaders.get(name, name))
        reason = _why_not(name, x, inputs.calls.get(name, 0))
        if reason is None and x is not None:
            leader = inputs.leaders[name]
            dimension = channel_dimension(layers.modules[leader], x) if x.ndim > 2 else x.ndim - 1
            dimension = traced.get(leader) if dimension is None else dimension
            reason = _why_no_rows(name, x, dimension, rows, layers.pooling)
            if reason is None and dimension is not None:
                leaders[name], dimensions[leader] = leader, dimension
                continue
        if not layers.every:
            raise DataError(f"{reason}; leave it out of layers=")
        left_out[name] = str(reason)
    leaders = {name: leader for name, leader in leaders.items() if leader not in left_out}
    return LayerPlan(layers.pooling, leaders, dimensions, left_out)


def layer_rows(plan: LayerPlan, inputs: LayerInputs, rows: BatchRows, batch: Batch, model: nn.Module, head: str) -> LayerFeatures:
    """Layer -> its features (rows, width) and, for each, the row of the head that it belongs to, in the order in which they ran.

    What the head is given is taken as the head's features are, whatever the pooling. Layers that are given the same tensor as one
    before them are not listed: ``plan.leaders`` names that one.

    Raises:
        DataError: layers that shared an input on the first batch do not on this one, or sizes that do not fit.
    """
    found: LayerFeatures = {}
    for name, leader in plan.leaders.items():
        if inputs.leaders.get(name) != leader:
            raise DataError(f"layer {name!r} was not given the same as layer {leader!r} in this batch, as it was in the first")
        if name != leader:
            continue
        if leader == inputs.leaders.get(head):
            found[name] = rows.features, torch.arange(len(rows.features), device=rows.features.device)
            continue
        x = inputs.tensors[name]
        reason = _why_no_rows(name, x, plan.dimensions[name], rows, plan.pooling)
        if reason is not None:
            raise DataError(reason)
        found[name] = _pooled(_positions_last(x, plan.dimensions[name]), rows, batch, model, plan.pooling)
    return found


def _why_not(name: str, x: Tensor | None, calls: int) -> str | None:
    if calls == 0:
        return f"layer {name!r} was not called as a module in the forward pass"
    if calls > 1:
        return f"layer {name!r} ran {calls} times in one forward pass, so its inputs are not one set of features"
    if x is None:
        return f"layer {name!r} was called without a dense tensor"
    if not x.is_floating_point():
        return f"layer {name!r} is given {x.dtype}, not floating point"
    return None


def _why_no_rows(name: str, x: Tensor, dimension: int | None, rows: BatchRows, pooling: Pooling) -> str | None:
    if len(x) != rows.batch_samples:
        return (
            f"layer {name!r} is given a tensor of shape {tuple(x.shape)} where the batch has {rows.batch_samples} samples: "
            "its first dimension must count them (batch_first=True)"
        )
    if dimension is None and pooling != "flatten":
        return (
            f"which dimension of the tensor of shape {tuple(x.shape)} that layer {name!r} is given holds its channels is not "
            'known from the modules around it: pass pooling="flatten", or name the layer before or after it'
        )
    positions = x.numel() // max(len(x) * x.shape[dimension if dimension is not None else -1], 1)
    if rows.positions > 1 and positions != rows.positions:
        return f"layer {name!r} has {positions} positions, the head answers at {rows.positions}"
    return None


def _pooled(x: Tensor, rows: BatchRows, batch: Batch, model: nn.Module, pooling: Pooling) -> tuple[Tensor, Tensor]:
    """Rows of (samples, positions, width) by the rows of the head, and whose they are."""
    device, places = x.device, x.shape[1]
    index = rows.index.to(device)
    if rows.positions > 1:
        return x.flatten(0, 1)[index], torch.arange(len(index), device=device)
    x, order = x[index], torch.arange(len(index), device=device)
    mask = sequence_mask(model, batch)
    mask = mask.to(device)[index] > 0 if mask is not None and mask.shape == (rows.batch_samples, places) else None
    if places == 1 or pooling == "flatten":
        return x.flatten(1), order
    if pooling == "average":
        if mask is None:
            return x.mean(1), order
        share = mask.to(x.dtype) / mask.sum(1, keepdim=True).clamp_min(1)
        return torch.einsum("nld,nl->nd", x, share.to(x.dtype)), order
    if pooling == "positions":
        owner = order.repeat_interleave(places)
        kept = slice(None) if mask is None else mask.flatten()
        return x.flatten(0, 1)[kept], owner[kept]
    if mask is None:
        return x[:, 0 if pooling == "first" else -1], order
    return x[order, (mask.int().argmax(1) if pooling == "first" else last_kept(mask))], order


def last_kept(mask: Tensor) -> Tensor:
    """(n,) the last position that a mask (n, positions) of booleans keeps."""
    return (torch.arange(mask.shape[1], device=mask.device) * mask).argmax(1)


def _positions_last(x: Tensor, dimension: int) -> Tensor:
    """(n, positions, width), the channels moved to the end."""
    if x.ndim <= 2:
        return (x.unsqueeze(1) if x.ndim == 1 else x).unsqueeze(1)
    return x.movedim(dimension, -1).flatten(1, -2)


def _equal(copy: Tensor, x: Tensor) -> bool:
    return copy.shape == x.shape and x.layout == torch.strided and torch.equal(copy, x.detach())
