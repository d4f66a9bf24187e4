"""Tensors inside nested values: tuples, lists, mappings, named tuples, dataclasses, as models take and return them."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors inside a nested value, in order.

    >>> [x.item() for x in tensors_in({"a": torch.tensor(1), "b": [torch.tensor(2), "text"]})]
    [1, 2]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif _is_record(value):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name))


def map_tensors(value: Any, function: Callable[[Tensor], Tensor], objects: Callable[[Any], Any] | None = None) -> Any:
    """The same nested value with ``function`` applied to each tensor; the value itself is not changed.

    Containers keep their type; a mapping that is neither a ``dict`` nor a ``UserDict`` becomes a ``dict``. Anything else is
    returned as it is.

    Args:
        objects: applied to each object that has a method ``to``, such as a ``PackedSequence`` or a batch of graphs. By default
            such an object is treated as the container that it is, or returned as it is.

    >>> map_tensors({"a": (torch.tensor(1), "text")}, lambda x: x + 1)
    {'a': (tensor(2), 'text')}
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        # a shallow copy of any other mapping may share its storage with the original
        items = copy.copy(value) if isinstance(value, (dict, UserDict)) else {}
        for key, item in value.items():
            items[key] = map_tensors(item, function, objects)
        return items
    if objects is not None and callable(getattr(value, "to", None)):
        return objects(value)
    if isinstance(value, (tuple, list)):
        mapped = [map_tensors(item, function, objects) for item in value]
        return type(value)(*mapped) if hasattr(value, "_fields") else type(value)(mapped)
    if _is_record(value):
        record = copy.copy(value)
        for field in fields(value):  # a frozen dataclass admits no other assignment
            object.__setattr__(record, field.name, map_tensors(getattr(value, field.name), function, objects))
        return record
    return value


def moved(value: Any, device: torch.device) -> Any:
    """The same nested value with its tensors on a device; an object with a method ``to`` moves itself."""
    return map_tensors(value, lambda x: x.to(device, non_blocking=True), lambda x: x.to(device))


def copied(value: Any) -> Any:
    """The same nested value with tensors that share no memory with the original and no part of its graph."""

    def own(item: Any) -> Any:
        return map_tensors(item, _clone) if isinstance(item, (tuple, list)) or _is_record(item) else copy.deepcopy(item)

    return map_tensors(value, _clone, own)


def _clone(x: Tensor) -> Tensor:
    return x.detach().clone()


def _is_record(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)
