"""A network run as its owner runs it: a plain loop over the batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .entries import Case


def batches_of(data: Any) -> list[Any]:
    """The batches that a user's own loop would see."""
    if isinstance(data, (Tensor, Mapping)):
        return [data]
    if isinstance(data, (tuple, list)) and all(isinstance(x, Tensor) for x in data):
        several = isinstance(data, list) and data[0].shape[1:] == data[-1].shape[1:]
        return list(data) if several else [data]  # else they are inputs and targets
    return list(data)


def run(case: Case, batch: Any) -> Any:
    """What the network returns for a batch."""
    if "forward" in case.options:
        return case.options["forward"](case.model, batch)
    pair = isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields") and len(batch) == 2
    inputs = batch[0] if pair else batch
    if isinstance(inputs, Mapping):
        return case.model(**inputs)
    return case.model(*inputs) if type(inputs) in (tuple, list) else case.model(inputs)


def loss_of(case: Case, batch: Any) -> Tensor:
    """Something that every float which the network returns contributes to."""
    returned = run(case, batch)
    rows = (returned.features, returned.outputs) if hasattr(returned, "features") else returned
    losses = [x[x.isfinite()].double().square().mean() for x in _floats(rows)]
    return torch.stack([loss for loss in losses if loss.requires_grad]).sum()


def _floats(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, (Mapping, tuple, list)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _floats(item)
