"""A network as it might have been at the start of training, drawn anew."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .batches import batches, first_dimension
from .copying import copied_model


def redrawn(model: nn.Module) -> nn.Module:
    """A copy of which every parameter is drawn anew by the ``reset_parameters`` of the modules, inner ones first.

    Raises:
        ValueError: parameters that are not drawn anew; names them.
    """
    drawn = copied_model(model)
    for parameter in drawn.parameters():
        if parameter.is_floating_point():
            parameter.fill_(torch.nan)  # so that what is not drawn anew shows
    for module in reversed(list(drawn.modules())):
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if callable(reset):
            reset()
    left = [name for name, parameter in drawn.named_parameters() if not bool(torch.isfinite(parameter).all())]
    if left:
        raise ValueError(
            f"{type(model).__name__}: no reset_parameters draws {', '.join(left[:5])}{' …' if len(left) > 5 else ''} anew; "
            "pass build=, a function that returns a new untrained network"
        )
    return drawn


def settle(network: nn.Module, probe: list[Any], place: torch.device) -> None:
    """Gives batch norm that has seen no batch the statistics of a probe, as the first steps of training would.

    Until then batch norm in evaluation mode does nothing.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and _is_new(m)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the average over all batches
        norm.train()
    for batch in batches(probe, place) if norms else ():
        if first_dimension(batch.inputs) > 1:  # one sample has no variance
            batch.feed(network)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _is_new(norm: _BatchNorm) -> bool:
    return norm.num_batches_tracked is not None and int(norm.num_batches_tracked) == 0
