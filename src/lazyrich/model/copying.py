"""A copy of a user's model, where a state dict will not do."""

from __future__ import annotations

import copy

from torch import nn

from .._support.nested import tensors_in


def copied_model(model: nn.Module) -> nn.Module:
    """A deep copy that shares nothing with the model.

    PyTorch refuses to copy tensors that are results of a computation, as pruning, weight norm and stored activations leave them
    in attributes: of these the values are copied.
    """
    memo: dict[int, object] = {}
    for module in model.modules():
        for value in vars(module).values():
            memo.update({id(x): x.detach().clone() for x in tensors_in(value) if x.grad_fn is not None})
    return copy.deepcopy(model, memo)
