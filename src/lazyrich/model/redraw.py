"""A network as it might have been at the start of training, drawn anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .batches import Batch, Forward, first_dimension
from .copying import copied_model


def redrawn(model: nn.Module) -> nn.Module:
    """A copy in which the ``reset_parameters`` of the modules re-initialise every parameter, in the order of construction.

    Where the modules of a network are constructed in the order in which they are registered, and nothing else initialises them,
    the copy has the bits of a new network with the same random state.

    Raises:
        ValueError: parameters that are not re-initialised, or that modules of different types share; names them.
    """
    _refuse_tied(model)
    drawn = copied_model(model)
    for parameter in drawn.parameters():
        if parameter.is_floating_point():
            parameter.fill_(torch.nan)  # shows what is not re-initialised
    _reset(drawn, set())
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


def _refuse_tied(model: nn.Module) -> None:
    owners: dict[nn.Parameter, tuple[str, nn.Module]] = {}
    for name, module in model.named_modules():
        for own, parameter in module.named_parameters(name, recurse=False):
            first, owner = owners.setdefault(parameter, (own, module))
            if type(owner) is not type(module):
                raise ValueError(
                    f"{first} and {own} are one parameter, and {type(owner).__name__} and {type(module).__name__} initialise it "
                    "differently; pass build=, a function that returns a new untrained network"
                )


def _reset(module: nn.Module, done: set[nn.Module]) -> None:
    """Re-initialise a module after its children. Layers that PyTorch copies from one layer start equal."""
    if module in done:
        return
    done.add(module)
    stack = module.layers if isinstance(module, (nn.TransformerEncoder, nn.TransformerDecoder)) else ()
    first, *copies = stack if isinstance(stack, nn.ModuleList) else (module,)
    done.update(copies)
    for child in module.children():
        _reset(child, done)
    for layer in copies:
        layer.load_state_dict(first.state_dict())
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if callable(reset):
        reset()


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
