"""Which dimension of a tensor holds the channels: known from the modules that take or make it, never from its shape alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .calls import first_tensor
from .linear import is_convolution, is_linear

_LAST = (
    nn.LayerNorm, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.RNNBase, nn.Embedding,
    nn.RMSNorm,
)  # fmt: skip
_FIRST = (
    _BatchNorm, _InstanceNorm, nn.GroupNorm, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.MaxPool1d,
    nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip


def channel_dimension(module: nn.Module, x: Tensor) -> int | None:
    """Where the channels of a tensor are that this module takes or makes; None where the module does not show it."""
    if x.ndim <= 2:
        return x.ndim - 1
    if is_convolution(module) or isinstance(module, _FIRST):
        return 1
    if is_linear(module) or isinstance(module, _LAST):
        return x.ndim - 1
    return None


def channel_dimensions(model: nn.Module, layers: Mapping[str, nn.Module], forward: Callable[[], Any]) -> dict[str, int]:
    """Layer -> where the channels of its input are, from one run in which the modules that share the tensor are seen.

    The tensor may have been made by a module that shows it, or be taken by one; modules that return what has the shape of their
    input, such as activations and dropout, pass it on.
    """
    held: dict[int, tuple[Tensor, int | None]] = {}  # tensors by identity, kept alive, with where their channels are
    passed: list[tuple[Tensor, Tensor]] = []  # (input, output) of modules that keep the shape
    wanted: dict[str, Tensor] = {}
    named = {module: name for name, module in layers.items()}

    def note(x: Tensor, dimension: int | None) -> None:
        if dimension is not None or id(x) not in held:
            held[id(x)] = (x, dimension if dimension is not None else held.get(id(x), (x, None))[1])

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = first_tensor((args, kwargs))
        if x is not None:
            note(x, channel_dimension(module, x) if x.ndim > 2 else None)
            if module in named:
                wanted.setdefault(named[module], x)

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        x, y = first_tensor((args, kwargs)), first_tensor(output)
        if y is not None:
            note(y, channel_dimension(module, y) if y.ndim > 2 else None)
            if x is not None and x.shape == y.shape and not any(True for _ in module.children()) and _elementwise(x, y, module):
                passed.append((x, y))

    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after, with_kwargs=True).remove)
        forward()
    for _ in range(len(passed)):
        changed = False
        for x, y in passed:
            known = held[id(x)][1] if held[id(x)][1] is not None else held[id(y)][1]
            if known is not None and (held[id(x)][1] is None or held[id(y)][1] is None):
                note(x, known)
                note(y, known)
                changed = True
        if not changed:
            break
    return {name: found for name, x in wanted.items() if (found := held[id(x)][1]) is not None}


def _elementwise(x: Tensor, y: Tensor, module: nn.Module) -> bool:
    """Whether a module without parameters has kept every entry in its place: the output is one function of the entry."""
    if any(True for _ in module.parameters()):
        return False
    if x is y or not (x.is_floating_point() and y.is_floating_point()):
        return True
    order = x.detach().flatten().argsort()[:: max(1, x.numel() // 4096)]
    a, b = x.detach().flatten()[order], y.detach().flatten()[order]
    if torch.equal(a, b):
        return True
    same = a.diff() == 0
    return bool((b.diff()[same] == 0).all()) and (bool((b.diff() >= 0).all()) or module.__module__.startswith("torch.nn"))
