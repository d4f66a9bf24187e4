"""The state of a model before it is measured, and putting it back.

Version counters are no evidence that a tensor is unchanged, because writes through ``.data`` do not move them, and undoing a
merge is none either, because (w + d) - d is not w: values are compared bit for bit and restored by value.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DataError

MOST_COPIED = 2**31  # bytes of parameters and buffers that are copied; of what is beyond, only checksums are taken
_MODULE_ATTRIBUTES = frozenset(nn.Module().__dict__)


class Snapshot:
    """Modes, parameters, buffers, children, hooks and plain attributes of a model.

    Args:
        model: the model, before its mode is changed.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modes = [(module, module.training) for module in model.modules()]
        self._attributes = [(module, _kept(module)) for module in model.modules() if _has_plain_state(module)]
        self._registered = [(held, dict(held)) for module in model.modules() for held in _registries(module)]
        self._tensors: list[tuple[str, Tensor, Tensor | int]] = []
        self._flags = [(x, x.requires_grad, x.grad) for x in model.parameters()]
        copied = 0
        for name, x in _parameters_and_buffers(model):
            copied += x.numel() * x.element_size()
            self._tensors.append((name, x, x.detach().clone() if copied <= MOST_COPIED else _checksum(x)))
        _swap_buffers(model)

    def restore(self) -> None:
        """Puts everything back.

        Raises:
            DataError: a tensor too large to be copied was changed; names it.
        """
        for module, training in self._modes:  # outer modules come first, and their train() may set the inner ones
            if type(module).train is not nn.Module.train:
                if module.training != training:
                    module.train(training)
            else:
                module.training = training
        for module, training in self._modes:
            if module.training != training:
                module.training = training
        for held, names in self._registered:
            if not _same_entries(held, names):
                held.clear()
                held.update(names)
        changed = []
        for name, x, before in self._tensors:
            if isinstance(before, int):
                changed += [name] if _checksum(x) != before else []
            elif not _same_bits(x, before):
                with torch.no_grad():
                    x.data.copy_(before)
        for x, requires_grad, grad in self._flags:
            if x.requires_grad != requires_grad:
                x.requires_grad_(requires_grad)
            if x.grad is not grad:
                x.grad = grad
        for module, attributes in self._attributes:
            _put_back(module, attributes)
        if changed:
            raise DataError(
                f"the forward pass changed {', '.join(changed[:3])}, which is too large to be copied beforehand: the model is "
                "not as it was; measure a copy of it"
            )


def _parameters_and_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor once, with its name."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _swap_buffers(model: nn.Module) -> None:
    """Has the model work on copies of its buffers, so that what the forward pass writes never reaches the user's."""
    copies: dict[int, Tensor] = {}
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule) or not _has_plain_state(module):
            continue
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.numel() * buffer.element_size() <= MOST_COPIED:
                module._buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())


def _registries(module: nn.Module) -> list[dict[str, Any]]:
    """Parameters, buffers, children and hooks: a first forward pass may register some and note in an attribute that it did."""
    if isinstance(module, torch.jit.ScriptModule):
        return []
    names = _MODULE_ATTRIBUTES if _has_plain_state(module) else ("_parameters", "_buffers")
    return [held for name in names if isinstance(held := vars(module).get(name), dict)]


def _same_entries(held: dict[str, Any], names: dict[str, Any]) -> bool:
    return held.keys() == names.keys() and all(held[name] is names[name] for name in names)


def _has_plain_state(module: nn.Module) -> bool:
    """Whether attributes of its own are a user's; what torch.distributed keeps in its wrappers is not."""
    return not type(module).__module__.startswith(("torch.distributed", "torch._dynamo", "torch.jit"))


def _kept(module: nn.Module) -> dict[str, tuple[Any, Callable[[], None] | None]]:
    """Attribute -> its value, and what puts the value's own content back where it can be written into."""
    plain = {name: value for name, value in vars(module).items() if name not in _MODULE_ATTRIBUTES}
    return {name: (value, _content(value)) for name, value in plain.items()}


def _content(value: Any) -> Callable[[], None] | None:
    """What restores the content of a tensor or a container in place."""
    if isinstance(value, nn.Parameter):  # one that is registered, and restored there
        return None
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_nested:
        before = value.detach().clone()

        def write() -> None:
            if not _same_bits(value, before):
                value.data.copy_(before)

        return write
    if isinstance(value, (list, deque)):
        items, inner = list(value), [_content(item) for item in value]

        def fill() -> None:
            if len(value) != len(items) or any(a is not b for a, b in zip(value, items, strict=True)):
                value.clear()
                value.extend(items)
            _all(inner)

        return fill
    if isinstance(value, (dict, set)):
        whole, inner = value.copy(), [_content(item) for item in value.values()] if isinstance(value, dict) else []

        def refill() -> None:
            value.clear()
            value.update(whole)  # type: ignore[arg-type]
            _all(inner)

        return refill
    if isinstance(value, tuple):
        inner = [_content(item) for item in value]
        return (lambda: _all(inner)) if any(inner) else None
    return None


def _all(writers: list[Callable[[], None] | None]) -> None:
    for write in writers:
        if write is not None:
            write()


def _put_back(module: nn.Module, attributes: dict[str, tuple[Any, Callable[[], None] | None]]) -> None:
    held = vars(module)
    for name in [name for name in held if name not in attributes and name not in _MODULE_ATTRIBUTES]:
        del held[name]
    for name, (value, write) in attributes.items():
        if held.get(name, module) is not value:
            held[name] = value
        if write is not None:
            write()


def _same_bits(x: Tensor, before: Tensor) -> bool:
    """Whether two tensors hold the same bits, NaN and the sign of zero included."""
    if x.shape != before.shape or x.dtype != before.dtype:
        return False
    try:
        return torch.equal(_words(x.detach()), _words(before.to(x.device)))
    except RuntimeError:  # a layout or a dtype without a plain view
        return torch.equal(x.detach(), before.to(x.device))


def _words(x: Tensor) -> Tensor:
    """The elements as integers of the same size."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    x = x.contiguous().reshape(-1)
    return x.view(kinds.get(x.element_size(), torch.uint8))


def _checksum(x: Tensor) -> int:
    """A 64-bit sum of the bytes in which every place counts differently."""
    total, step = 0, 2**24
    words = _words(x.detach())
    for start in range(0, len(words), step):
        part = words[start : start + step].to(torch.int64)
        place = torch.arange(start, start + len(part), device=part.device) * 2 + 0x9E3779B1
        total += int((part * place).sum())
    return total % 2**64
