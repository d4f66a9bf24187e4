"""Which modules are linear maps, what their parameters are, and what lies inside a wrapper."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

_SHARDING = ("FullyShardedDataParallel", "FSDPModule")  # by name, because torch.distributed.fsdp is slow to import
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP holds the parameters, which are then complete only while a module runs."""
    return any(kind.__name__ in _SHARDING for module in model.modules() for kind in type(module).__mro__)


def is_convolution(module: nn.Module) -> bool:
    """Whether channels are the first dimension after the batch."""
    return isinstance(module, _CONVOLUTIONS)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is declared as a linear map of the last (or the channel) dimension: a candidate for the head."""
    if isinstance(module, _CONVOLUTIONS):
        return (
            module.groups == 1
            and all(size == 1 for size in (*module.kernel_size, *module.stride))
            and not any(module.padding if isinstance(module.padding, tuple) else ())
        )
    return isinstance(module, nn.Linear) or _is_transposed(module)


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is transformers' Conv1D, a Linear whose weight is transposed."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and getattr(module, "weight", torch.empty(0)).ndim == 2


def linear_parameters(module: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """Weight (C, p) and bias (C,) of a linear map; None where it has none."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not is_linear(module) or not isinstance(weight, Tensor):
        return None, None
    weight = weight.T if _is_transposed(module) else weight.flatten(1)
    return weight.detach(), bias.detach() if isinstance(bias, Tensor) else None


def channels_last(module: nn.Module, x: Tensor) -> Tensor:
    """What a module is given or returns with its channels in the last dimension.

    A subclass of a convolution may take and return rows of its own shape, without a dimension of channels: they stay as they are.
    """
    if not isinstance(module, _CONVOLUTIONS):
        return x
    place = -1 - len(module.kernel_size)
    shaped = x.ndim >= -place and x.shape[place] in (module.in_channels, module.out_channels)
    return x.movedim(place, -1) if shaped else x
