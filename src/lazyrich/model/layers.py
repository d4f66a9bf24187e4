"""What inner layers see: the input of every chosen layer, brought to one row for each row of the head."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from .._support.nested import tensors_in
from ..errors import DataError, HeadError
from .batches import Batch, last_kept
from .capture import Captured, is_linear

Pooling = Literal["average", "flatten", "positions", "first", "last"]
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_CHANNELS_FIRST_SEQUENCES = (nn.Conv1d, nn.BatchNorm1d, nn.GroupNorm, nn.InstanceNorm1d, nn.AvgPool1d, nn.MaxPool1d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LayerTaps:
    """Takes the inputs of layers in a forward pass.

    Args:
        model: the model.
        layers: "all" (every linear and convolution layer) or dotted names.
        pooling: how the places of a map or the tokens of a sequence become rows.
    """

    def __init__(self, model: nn.Module, layers: str | Sequence[str], pooling: Pooling) -> None:
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be one of {', '.join(get_args(Pooling))}, got {pooling!r}")
        self.pooling: Pooling = pooling
        named = dict(model.named_modules())
        self._every = layers == "all"
        if self._every:
            chosen = [name for name, m in named.items() if is_linear(m) or isinstance(m, _CONVOLUTIONS)]
        elif isinstance(layers, str):
            raise TypeError(f'layers must be "all" or a list of names, got {layers!r}; write layers=[{layers!r}]')
        else:
            chosen = list(dict.fromkeys(layers))
        unknown = [name for name in chosen if name not in named]
        if unknown or not chosen:
            known = ", ".join(filter(None, named))
            raise HeadError(f"layers={unknown or chosen} are not modules of {type(model).__name__}. It has: {known}")
        self._modules = {name: named[name] for name in chosen}
        self._given: dict[str, Tensor] = {}
        self._calls: dict[str, int] = {}
        self._seen: dict[int, tuple[Tensor, int, str]] = {}
        self.leaders: dict[str, str] | None = None
        self.left_out: dict[str, str] = {}

    def hooks(self, stack: ExitStack) -> None:
        """Hooks the layers for one forward pass."""
        self._given, self._calls, self._seen = {}, {}, {}
        self._same: dict[str, str] = {}
        for name, module in self._modules.items():
            stack.callback(module.register_forward_pre_hook(self._hook(name), with_kwargs=True).remove)

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._calls[name] = self._calls.get(name, 0) + 1
            given = next(tensors_in((args, kwargs)), None)
            if given is None or given.is_nested or given.layout != torch.strided:
                return
            # queries, keys and values see one and the same tensor: it is taken once
            known = self._seen.get(id(given))
            version = 0 if given.is_inference() else given._version
            if known is not None and known[0] is given and known[1] == version:
                self._same[name] = known[2]
                return
            self._seen[id(given)] = (given, version, name)
            self._same[name] = name
            self._given[name] = given.detach().clone()  # a copy, for whatever follows may write into it in place

        return hook

    def rows(self, captured: Captured, batch: Batch, head: str) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer -> its features (rows, width) and, for each, the row of the head that it belongs to, in the order they ran.

        What the head sees is taken as the head's features are, whatever the pooling. Layers that see the same tensor as one
        before them are not listed: ``leaders`` names that one.
        """
        first = self.leaders is None
        if first:
            self._settle()
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for name, leader in dict(self.leaders or {}).items():
            if self._same.get(name) != leader:
                raise DataError(f"layer {name!r} did not see the same as layer {leader!r} in this batch, as it did in the first")
            if name != leader:
                continue
            if leader == self._same.get(head):
                found[name] = captured.features, torch.arange(len(captured.features), device=captured.features.device)
                continue
            try:
                found[name] = self._pooled(name, self._given[name], captured, batch)
            except DataError as error:
                if not (first and self._every):
                    raise
                self._leave_out(name, str(error))
        self._given, self._seen = {}, {}
        return found

    def _settle(self) -> None:
        """After the first batch: which layers ran, once, on floating point tensors."""
        self.leaders = {}
        for name in sorted(self._modules, key=lambda n: list(self._calls).index(n) if n in self._calls else -1):
            calls = self._calls.get(name, 0)
            if calls == 0:
                reason = "was not called as a module in the forward pass"
            elif calls > 1:
                reason = f"ran {calls} times in one forward pass, so what it sees is not one set of features"
            elif name not in self._same:
                reason = "was called without a dense tensor"
            elif not self._given[self._same[name]].is_floating_point():
                reason = f"sees {self._given[self._same[name]].dtype}, not floating point"
            else:
                self.leaders[name] = self._same[name]
                continue
            if not self._every:
                raise DataError(f"layer {name!r} {reason}; leave it out of layers=")
            self._leave_out(name, f"layer {name!r} {reason}")

    def _leave_out(self, name: str, reason: str) -> None:
        self.left_out[name] = reason
        self.leaders = {other: leader for other, leader in (self.leaders or {}).items() if name not in (other, leader)}

    def _pooled(self, name: str, x: Tensor, captured: Captured, batch: Batch) -> tuple[Tensor, Tensor]:
        samples = captured.given
        if len(x) != samples:
            raise DataError(
                f"layer {name!r} sees a tensor of shape {tuple(x.shape)} where the batch has {samples} samples: "
                "its first dimension must count them (batch_first=True)"
            )
        x = _places_last(x, self._modules[name])
        places, device = x.shape[1], x.device
        counted = min(samples, captured.samples)
        if captured.positions:
            if places != captured.places:
                raise DataError(f"layer {name!r} has {places} places, the head answers at {captured.places}")
            rows = captured.row_index
            rows = torch.arange(counted * places, device=device) if rows is None else rows.to(device)
            return x.flatten(0, 1)[rows], torch.arange(len(rows), device=device)
        x, order = x[:counted], torch.arange(counted, device=device)
        mask = batch.mask
        mask = mask[:counted].to(device) > 0 if mask is not None and mask.shape[1] == places else None
        if places == 1 or self.pooling == "flatten":
            return x.flatten(1), order
        if self.pooling == "average":
            if mask is None:
                return x.mean(1), order
            share = mask.to(x.dtype) / mask.sum(1, keepdim=True).clamp_min(1)
            return torch.einsum("nld,nl->nd", x, share.to(x.dtype)), order
        if self.pooling == "positions":
            owner = order.repeat_interleave(places)
            kept = slice(None) if mask is None else mask.flatten()
            return x.flatten(0, 1)[kept], owner[kept]
        if self.pooling == "first":
            return x[:, 0], order
        last = torch.full_like(order, places - 1) if mask is None else last_kept(mask)
        return x[order, last], order


def _places_last(x: Tensor, module: nn.Module) -> Tensor:
    """(n, places, width): channels first for maps and what works on them, channels last for tokens."""
    if x.ndim <= 2:
        return (x.unsqueeze(1) if x.ndim == 1 else x).unsqueeze(1)
    channels_first = isinstance(module, _CHANNELS_FIRST_SEQUENCES) if x.ndim == 3 else not isinstance(module, _CHANNELS_LAST)
    return x.flatten(2).transpose(1, 2) if channels_first else x.flatten(1, -2)
