"""The one way in for data: anything a user would pass becomes a stream of `Batch`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

from .._support.nested import map_tensors, moved, tensors_in
from ..errors import DataError

PAIR_BATCH = 256  # batch size where complete tensors are passed
IGNORED_LABEL = -100  # what PyTorch's losses ignore
LABEL_NAMES = ("labels", "y")  # of objects; a mapping has its targets under the first
Forward = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class Batch:
    """What the model is called with, and the targets if there are any.

    Attributes:
        item: the batch as the data have it, on the device.
        inputs: what the model takes.
        targets: labels or real targets, or None.
        is_mapping: whether targets came together with the inputs, as keyword arguments or attributes, so that the model may shift
            them.
    """

    item: Any
    inputs: Any
    targets: Tensor | None
    is_mapping: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether all tensors of the inputs have no entries: on such a batch no head can be found."""
        sizes = [x.numel() for x in tensors_in(self.inputs)]
        return bool(sizes) and not any(sizes)

    def feed(self, model: nn.Module, forward: Forward | None = None) -> Any:
        """Calls the model: mappings as keyword arguments, tuples and lists as positional ones; or calls ``forward``.

        Raises:
            DataError: a mapping has keys that the model does not take; names them.
            TypeError: inputs of another dtype than the model's parameters.
        """
        if forward is not None:
            return forward(model, self.item)
        try:
            if isinstance(self.inputs, Mapping):
                return model(**self.inputs)
            if type(self.inputs) in (tuple, list):  # a named tuple, such as a PackedSequence, is one argument
                return model(*self.inputs)
            return model(self.inputs)
        except TypeError as error:
            raise self._unexpected(model, error) from error
        except RuntimeError as error:
            ours = {x.dtype for x in tensors_in(self.inputs) if x.is_floating_point()}
            held = {x.dtype for x in model.parameters() if x.is_floating_point()}
            if ours and len(held) == 1 and not ours & held and "type" in str(error):  # as mixed-precision trainers cast
                dtype = next(iter(held))
                cast = map_tensors(self.inputs, lambda x: x.to(dtype) if x.is_floating_point() else x)
                return replace(self, inputs=cast).feed(model)
            if ours and held and not ours & held and "type" in str(error):
                raise TypeError(
                    f"data: the inputs are {', '.join(map(str, ours))} and the model's parameters "
                    f"{', '.join(map(str, held))}; convert one of them, or measure under torch.autocast"
                ) from error
            raise

    def _unexpected(self, model: nn.Module, error: TypeError) -> Exception:
        """What is wrong with the keys of a mapping, or the model's own error."""
        if not isinstance(self.inputs, Mapping):
            return error
        try:
            taken = inspect.signature(model.forward).parameters
        except (TypeError, ValueError):
            return error
        wrong = [name for name in self.inputs if name not in taken]
        if not wrong or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values()):
            return error
        first = next((name for name in self.inputs), "inputs")
        return DataError(
            f"the batch has the keys {', '.join(map(repr, self.inputs))}, and {type(model).__name__} takes "
            f"{', '.join(taken)}: pass forward=lambda model, batch: model(batch[{first!r}]) and, for labels, "
            "targets=lambda batch: batch[…]"
        )


def entry(item: Any, name: str) -> Any:
    """What a mapping or an object holds under a name; None where there is nothing."""
    if isinstance(item, Mapping):
        return item.get(name)
    if isinstance(item, (Tensor, list)) or type(item) is tuple:
        return None
    return getattr(item, name, None)


def is_one_shot(data: object) -> bool:
    """Whether the data can be iterated over only once."""
    return isinstance(data, Iterator)


def num_batches(data: Any) -> int | None:
    """How many batches the data are, where that is known; complete tensors are cut into batches here."""
    if isinstance(data, Tensor) or (isinstance(data, tuple) and data and isinstance(data[0], Tensor)):
        return -(-len(data if isinstance(data, Tensor) else data[0]) // PAIR_BATCH)
    if isinstance(data, Mapping) or _is_pair(data):
        return 1
    try:
        return len(data)
    except TypeError:
        return None


def batches(
    data: Any, device: torch.device | None, targets: Callable[[Any], Tensor] | None = None, *, free: bool = False
) -> Iterator[Batch]:
    """Batches on a device.

    Args:
        data: a DataLoader or any iterable of batches, a tensor of inputs, or a tuple (inputs, targets) of tensors. A batch is a
            tensor, a pair (inputs, targets), a mapping as Transformers models take it, with the targets under "labels", or any
            object that the model takes, with the targets in its attribute ``labels`` or ``y``.
        device: where to; None: where they are.
        targets: gives the targets of a batch, in place of those that the batch has itself.
        free: whether a batch may be anything, because ``forward=`` reads it.
    """
    lasting = not isinstance(data, DataLoader)  # whose tensors the user keeps, and a model may write into
    for item in _stream(data):
        there = item if device is None else map_tensors(moved(item, device), lambda x: _own(x, lasting))
        batch = _batch(there, free)
        yield batch if targets is None else replace(batch, targets=targets(there), is_mapping=False)


def _own(x: Tensor, lasting: bool) -> Tensor:
    """A tensor that the model may write into: not the user's, and not one made under inference mode."""
    return x.clone() if lasting or (x.is_inference() and not torch.is_inference_mode_enabled()) else x


def sampler_of(data: Any) -> Any:
    """The sampler of a DataLoader, or None."""
    return getattr(data, "sampler", None) if isinstance(data, DataLoader) else None


def sample_limits(data: Any, num_samples: int | None, share: tuple[int, int]) -> tuple[int | None, int | None]:
    """After how many samples this process stops, and how many of them count.

    Args:
        num_samples: over all processes.
        share: this process's rank, and how many there are. All run equally many samples; what one of them runs too many, and what
            a DistributedSampler has repeated to fill up, does not count.
    """
    if num_samples is not None and (not isinstance(num_samples, int) or isinstance(num_samples, bool)):
        raise TypeError(f"num_samples must be an integer, got {num_samples!r}")
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    run = None if num_samples is None else _part(num_samples, 0, share[1])
    counted = [] if num_samples is None else [_part(num_samples, *share)]
    sampler = sampler_of(data)
    if isinstance(sampler, DistributedSampler):
        counted.append(_part(len(sampler.dataset), sampler.rank, sampler.num_replicas))  # type: ignore[arg-type]
    return run, min(counted, default=None)


def _part(total: int, rank: int, processes: int) -> int:
    """How many of ``total`` samples, dealt out in turn, fall to a process."""
    return max(0, -(-(total - rank) // processes))


def _is_pair(data: Any) -> bool:
    """Whether a list is one batch (inputs, targets), as ``next(iter(loader))`` returns it, and not two batches of inputs."""
    if type(data) is not list or len(data) != 2 or not all(isinstance(x, Tensor) and x.ndim for x in data):
        return False
    inputs, targets = data
    return len(inputs) == len(targets) and (inputs.shape[1:] != targets.shape[1:] or inputs.dtype != targets.dtype)


def _stream(data: Any) -> Iterable[Any]:
    if isinstance(data, Tensor):
        return data.split(PAIR_BATCH)
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(x, Tensor) for x in data):
        inputs, targets = data
        if len(inputs) != len(targets):
            raise DataError(f"data: {len(inputs)} inputs and {len(targets)} targets; they must have the same length")
        return zip(inputs.split(PAIR_BATCH), targets.split(PAIR_BATCH), strict=True)
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        raise TypeError("data is a Dataset of single samples: wrap it in torch.utils.data.DataLoader(dataset, batch_size=256)")
    if isinstance(data, tuple) and any(isinstance(x, Tensor) for x in data):
        raise DataError(f"data: a tuple is (inputs, targets), two tensors; got {len(data)} entries. For batches pass a list")
    if isinstance(data, Mapping) or _is_pair(data):
        return [data]
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise TypeError(f"data must be a DataLoader, an iterable of batches or a pair of tensors, got {type(data).__name__}")
    return data


def _batch(item: Any, free: bool = False) -> Batch:
    if free:
        try:
            return _batch(item)
        except (TypeError, DataError):
            return Batch(item, item, None)
    if isinstance(item, Tensor):
        return Batch(item, item, None)
    if isinstance(item, Mapping):
        labels = item.get("labels")
        return Batch(item, item, labels if isinstance(labels, Tensor) else None, is_mapping=True)
    if type(item) in (tuple, list):
        return _pair(item)
    if next(tensors_in(item), None) is None and not callable(getattr(item, "to", None)):
        raise TypeError(
            f"a batch must be a tensor, a pair, a mapping or an object that the model takes, got {type(item).__name__}; "
            "use torch.as_tensor for arrays, or pass forward=lambda model, batch: … for what the model is to be given"
        )
    labels = next((x for name in LABEL_NAMES if isinstance(x := entry(item, name), Tensor)), None)
    return Batch(item, item, labels, is_mapping=True)


def _pair(item: Any) -> Batch:
    if len(item) == 1:
        return Batch(item, item[0], None)
    if len(item) == 2 and (item[1] is None or isinstance(item[1], Tensor)):
        return Batch(item, item[0], item[1])
    if len(item) == 2:
        raise TypeError(f"the targets of a batch must be a tensor, got {type(item[1]).__name__}; use torch.as_tensor")
    kinds = ", ".join(type(x).__name__ for x in item)
    raise DataError(
        f"a batch is a tensor, a pair (inputs, targets) with tensor targets, or a mapping; got ({kinds}). Pass "
        "forward=lambda model, batch: model(batch[0]) and targets=lambda batch: batch[1]"
    )


def first_dimension(value: Any) -> int:
    """The size of the first dimension of the first tensor."""
    first = next(tensors_in(value), None)
    if first is None or first.ndim == 0:
        raise DataError("a batch's inputs hold no tensor with a dimension")
    return len(first)


def rows_of(batch: Batch, size: int, rows: slice) -> Batch:
    """A batch in which every tensor with ``size`` entries along its first dimension has only some of them."""
    cut = map_tensors(batch.item, lambda x: x[rows] if x.ndim and len(x) == size else x)
    return replace(_batch(cut, free=True), is_mapping=batch.is_mapping)


def raw_bytes(x: Tensor) -> bytes:
    """The bytes of a dense tensor's elements, in order."""
    return x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def loader_shuffles(data: Any) -> bool:
    """Whether a DataLoader draws its samples in random order, so that weights in order would not fit."""
    sampler = sampler_of(data)
    if isinstance(sampler, DistributedSampler):
        return sampler.shuffle
    return isinstance(sampler, (torch.utils.data.RandomSampler, torch.utils.data.WeightedRandomSampler))
