"""Everything about a network, its data and the process that a measurement could leave changed, bit by bit."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.parameter import is_lazy

HOOKS = tuple(name for name in nn.Module().__dict__ if "hook" in name)
GLOBAL_HOOKS = tuple(name for name in vars(torch_module) if name.startswith("_global_") and "hook" in name)
OWN = {"_parameters", "_buffers", "_modules", "training", *HOOKS}


def everything(model: nn.Module, data: Any, *, versions: bool) -> dict[str, Any]:
    """What is where, by a path that says what it is.

    Args:
        model: its modules with class, mode, hooks and attributes; parameters and buffers by identity, by place in memory and by
            value, with their gradients.
        data: its tensors.
        versions: whether the version counters of the parameters count too: one that moved makes the backward pass of a loss
            fail that was computed before.
    """
    found: dict[str, Any] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        found[f"class of {name!r}"] = type(module)
        found[f"mode of {name!r}"] = module.training
        found[f"children of {name!r}"] = [(key, id(child)) for key, child in module._modules.items()]
        for attribute in HOOKS:
            hooks = getattr(module, attribute, None)
            found[f"{attribute} of {name!r}"] = [(k, id(h)) for k, h in hooks.items()] if isinstance(hooks, Mapping) else hooks
        plain = {key: value for key, value in vars(module).items() if key not in OWN}
        found[f"attributes of {name!r}"] = sorted(plain)
        for key, value in plain.items():
            found[f"attribute {key} of {name!r}"] = _value(value)
    for name, x in (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)):
        found[f"tensor {name}"] = (*_tensor(x), x.requires_grad, x.is_leaf)
        found[f"gradient of {name}"] = None if x.grad is None else _tensor(x.grad)
        found[f"hooks of {name}"] = list((x._backward_hooks or {}).items())
        if versions and not is_lazy(x) and not x.is_inference():
            found[f"version of {name}"] = x._version
    for place, x in enumerate(_tensors(data)):
        found[f"tensor {place} of the data"] = _tensor(x)
    return found | _process()


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What changed, in words."""
    paths = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    return [f"{path}: {str(before.get(path))[:80]} -> {str(after.get(path))[:80]}" for path in paths]


def values(state: dict[str, Any]) -> dict[str, Any]:
    """Without what differs between two networks that are equal: identities and places in memory."""
    tensors = {path: value[3:] for path, value in state.items() if path.startswith(("tensor", "gradient of")) and value}
    return tensors | {path: state[path] for path in state if path.startswith(("mode", "random"))}


def bits(x: Tensor) -> bytes:
    """The bytes of a tensor's elements, in order."""
    if is_lazy(x):
        return b"lazy"
    if x.layout != torch.strided:
        return bits(x.to_dense())
    if x.is_quantized:
        x = x.int_repr()
    return x.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() if x.numel() else b""


def _tensor(x: Tensor) -> tuple[Any, ...]:
    if is_lazy(x):
        return type(x), id(x)
    place = x.data_ptr() if x.layout == torch.strided else 0
    return type(x), id(x), place, x.dtype, tuple(x.shape), x.device, bits(x)


def _value(value: Any) -> Any:
    """A plain attribute, down through containers."""
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, Mapping):
        return id(value), [(key, _value(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return id(value), [_value(item) for item in value]
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes()
    if isinstance(value, torch.Generator):
        return id(value), bits(value.get_state())
    if isinstance(value, (int, float, complex, str, bytes, bool, type(None))):
        return value
    return id(value)


def _tensors(data: Any) -> Iterable[Tensor]:
    """The tensors of a batch, or of several; those of loaders and iterators are theirs."""
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, Mapping):
        for item in data.values():
            yield from _tensors(item)
    elif isinstance(data, (list, tuple)):
        for item in data:
            yield from _tensors(item)
    elif is_dataclass(data) and not isinstance(data, type):
        for field in fields(data):
            yield from _tensors(getattr(data, field.name))


def _process() -> dict[str, Any]:
    numpy_state = np.random.get_state()
    return {
        "global hooks": [tuple(getattr(torch_module, name) or ()) for name in GLOBAL_HOOKS],
        "random state of torch": bits(torch.get_rng_state()),
        "random state of Python": random.getstate(),
        "random state of NumPy": (numpy_state[1].tobytes(), numpy_state[2:]),
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "fast path of attention": torch.backends.mha.get_fastpath_enabled(),
        "precision of products": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
    }
