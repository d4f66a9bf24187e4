"""A network as it might have been at the start of training, drawn anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .batches import Batch, Forward, first_dimension
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


def new_norms(network: nn.Module, trained: nn.Module | None = None) -> dict[str, _BatchNorm]:
    """Batch norm that has seen no batch, by name; with ``trained``, only where that network's own has seen one."""
    norms = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm) and _is_new(module)}
    now = {} if trained is None else dict(trained.named_modules())
    return {name: norm for name, norm in norms.items() if not (isinstance(own := now.get(name), _BatchNorm) and _is_new(own))}


def settle(
    network: nn.Module, norms: Mapping[str, _BatchNorm], stream: Iterable[Batch], *, forward: Forward | None = None
) -> None:
    """Gives batch norm the statistics of a stream of batches, as the first steps of training would.

    Until it has seen a batch, batch norm in evaluation mode does nothing.
    """
    momenta = {name: norm.momentum for name, norm in norms.items()}
    for norm in norms.values():
        norm.momentum = None  # the average over all batches
        norm.train()
    for batch in stream if norms else ():
        if first_dimension(batch.inputs) > 1:  # one sample has no variance
            batch.feed(network, forward)
    for name, norm in norms.items():
        norm.momentum = momenta[name]
        norm.eval()


def _is_new(norm: _BatchNorm) -> bool:
    return norm.num_batches_tracked is not None and int(norm.num_batches_tracked) == 0
