"""The one way in for data: anything a user would pass becomes a stream of `Batch`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

from .._support.nested import copied, map_tensors, moved, tensors_in
from ..errors import DataError

PAIR_BATCH = 256  # batch size where whole tensors are given
IGNORED_LABEL = -100  # what PyTorch's losses ignore


@dataclass(frozen=True)
class Batch:
    """What the model is called with, and the targets if there are any."""

    inputs: Any
    targets: Tensor | None
    counted: int | None = None  # samples after these only fill up the batch; None: all count

    @property
    def mask(self) -> Tensor | None:
        """(n, places) which tokens count, if the inputs say so."""
        mask = self.inputs.get("attention_mask") if isinstance(self.inputs, Mapping) else None
        return mask if isinstance(mask, Tensor) and mask.ndim == 2 else None

    @property
    def is_empty(self) -> bool:
        """Whether all tensors of the inputs have no entries: on such a batch no head can be told from another."""
        sizes = [x.numel() for x in tensors_in(self.inputs)]
        return bool(sizes) and not any(sizes)

    def feed(self, model: nn.Module) -> Any:
        """Calls the model: mappings as keyword arguments, tuples and lists as positional ones."""
        try:
            if isinstance(self.inputs, Mapping):
                return model(**self.inputs)
            if type(self.inputs) in (tuple, list):  # a named tuple, such as a PackedSequence, is one argument
                return model(*self.inputs)
            return model(self.inputs)
        except RuntimeError as error:
            given = {x.dtype for x in tensors_in(self.inputs) if x.is_floating_point()}
            held = {x.dtype for x in model.parameters() if x.is_floating_point()}
            if given and held and not given & held and "dtype" in str(error):
                names = ", ".join(str(t) for t in given)
                raise TypeError(
                    f"data: the inputs are {names} and the model's parameters {', '.join(str(t) for t in held)}; "
                    "convert one of them, or measure under torch.autocast"
                ) from error
            raise

    def sample_targets(self, samples: int) -> Tensor | None:
        """Targets, one for each sample: (n,) whole numbers or (n, T) real."""
        if self.targets is None:
            return None
        targets = self.targets
        if targets.ndim == 0:
            targets = targets.unsqueeze(0)
        if len(targets) != samples:
            raise DataError(
                f"the targets of this batch have shape {tuple(targets.shape)}, its outputs {samples} rows; "
                "inputs and targets must have the same length"
            )
        if targets.ndim == 2 and targets.shape[1] == 1 and not targets.is_floating_point():
            targets = targets[:, 0]
        if targets.ndim > 2:
            raise DataError(f"targets must have shape (n,) or (n, T), got {tuple(targets.shape)}; flatten them")
        return targets

    def position_targets(self, samples: int, places: int) -> tuple[Tensor | None, Tensor | None]:
        """Targets of every place (token, pixel), if given so, and which places count (None: all)."""
        keep = None
        if isinstance(self.inputs, Mapping):
            if self.mask is not None and self.mask.shape == (samples, places):
                keep = self.mask.flatten() > 0
            return None, keep  # language models shift their labels inside: they do not belong to these places
        if self.targets is None or self.targets.is_floating_point() or self.targets.numel() != samples * places:
            return None, keep
        targets = self.targets.flatten()
        return targets, targets != IGNORED_LABEL


def last_kept(mask: Tensor) -> Tensor:
    """(n,) the last place that a mask (n, places) of bools keeps."""
    place = torch.arange(mask.shape[1], device=mask.device)
    return (place * mask).argmax(1)


def is_one_shot(data: object) -> bool:
    """Whether the data can be gone through only once."""
    return isinstance(data, Iterator)


def num_batches(data: Any) -> int | None:
    """How many batches the data are, if they tell; whole tensors are cut into batches here."""
    if isinstance(data, Tensor) or (isinstance(data, tuple) and data and isinstance(data[0], Tensor)):
        return -(-len(data if isinstance(data, Tensor) else data[0]) // PAIR_BATCH)
    if isinstance(data, Mapping):
        return 1
    try:
        return len(data)
    except TypeError:
        return None


def batches(
    data: Any, device: torch.device | None, num_samples: int | None = None, share: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Batches on a device, cut after ``num_samples``.

    ``data`` is a DataLoader or any iterable of batches, a tensor of inputs, or a tuple (inputs, targets) of tensors. A batch is
    a tensor, a pair (inputs, targets), or a mapping as Transformers models take it, with the targets under "labels".

    ``share`` is (rank, number of processes) of processes that divide ``num_samples`` among them. All run equally many; what
    one of them runs too many, and what a DistributedSampler repeated to fill up, is marked as not counted.
    """
    if num_samples is not None and not isinstance(num_samples, int):
        raise TypeError(f"num_samples must be a whole number, got {num_samples!r}")
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    run = None if num_samples is None else _part(num_samples, 0, share[1])
    limits = [] if num_samples is None else [_part(num_samples, *share)]
    sampler = _sampler(data)
    if isinstance(sampler, DistributedSampler):
        limits.append(_part(len(sampler.dataset), sampler.rank, sampler.num_replicas))  # type: ignore[arg-type]
    seen = 0
    for item in _stream(data):
        batch = _batch(item if device is None else moved(item, device))
        if limits:
            size = first_dimension(batch.inputs)
            if run is not None and seen + size > run:
                batch, size = rows_of(batch, size, slice(run - seen)), run - seen
            left = min(limits) - seen
            if left < size:
                batch = replace(batch, counted=max(left, 0))
            seen += size
        yield batch
        if run is not None and seen >= run:
            return


def _part(total: int, rank: int, processes: int) -> int:
    """How many of ``total`` samples, dealt out in turn, fall to a process."""
    return max(0, -(-(total - rank) // processes))


def _sampler(data: Any) -> Any:
    return getattr(data, "sampler", None) if isinstance(data, DataLoader) else None


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
    if isinstance(data, Mapping):
        return [data]
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise TypeError(f"data must be a DataLoader, an iterable of batches or a pair of tensors, got {type(data).__name__}")
    return data


def _batch(item: Any) -> Batch:
    if isinstance(item, Tensor):
        return Batch(item, None)
    if isinstance(item, Mapping):
        labels = item.get("labels")
        return Batch(item, labels if isinstance(labels, Tensor) else None)
    if isinstance(item, (tuple, list)):
        if len(item) == 1:
            return Batch(item[0], None)
        if len(item) == 2 and (item[1] is None or isinstance(item[1], Tensor)):
            return Batch(item[0], item[1])
        if len(item) == 2:
            raise TypeError(f"the targets of a batch must be a tensor, got {type(item[1]).__name__}; use torch.as_tensor")
        kinds = ", ".join(type(x).__name__ for x in item)
        raise DataError(
            f"a batch is a tensor, a pair (inputs, targets) with tensor targets, or a mapping; got ({kinds}). Map it first: "
            "((x, y) for x, y, *_ in loader)"
        )
    raise TypeError(f"a batch must be a tensor, a pair or a mapping, got {type(item).__name__}; use torch.as_tensor for arrays")


def first_dimension(value: Any) -> int:
    """How many samples the inputs of a batch hold."""
    first = next(tensors_in(value), None)
    if first is None or first.ndim == 0:
        raise DataError("a batch's inputs hold no tensor whose first dimension counts the samples")
    return len(first)


def rows_of(batch: Batch, size: int, rows: slice) -> Batch:
    """Some of the ``size`` samples of a batch."""

    def cut(x: Tensor) -> Tensor:
        return x[rows] if x.ndim and len(x) == size else x

    return Batch(map_tensors(batch.inputs, cut), None if batch.targets is None else batch.targets[rows])


def frozen(data: Any, num_samples: int, share: tuple[int, int] = (0, 1)) -> list[Any]:
    """The first samples of the data, drawn once: batches that :func:`batches` takes again and that nobody else holds.

    Args:
        num_samples: how many over all processes.
        share: this process's rank, and how many there are; they take the samples in turn, unless a DistributedSampler has
            shared them out already.

    Raises:
        DataError: no samples.
    """
    kept = []
    rank, processes = share
    shared = processes > 1 and not isinstance(_sampler(data), DistributedSampler)
    for batch in batches(data, None, num_samples, (0, 1) if shared else share):
        size = first_dimension(batch.inputs)
        whole = size if batch.counted is None else batch.counted
        rows = slice(rank, whole // processes * processes, processes) if shared else slice(whole)
        batch = rows_of(batch, size, rows)
        if first_dimension(batch.inputs):
            inputs = copied(batch.inputs)
            # a mapping carries its targets, all else is a pair
            kept.append(inputs if isinstance(inputs, Mapping) else (inputs, copied(batch.targets)))
    if not kept:
        raise DataError("data gave no samples to keep as a probe set; pass a DataLoader, a list of batches or tensors")
    return kept


def raw_bytes(x: Tensor) -> bytes:
    """The bytes of a dense tensor's elements, in order."""
    return x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def loader_shuffles(data: Any) -> bool:
    """Whether a DataLoader draws its samples in random order, so that weights given in order would not fit."""
    sampler = _sampler(data)
    if isinstance(sampler, DistributedSampler):
        return sampler.shuffle
    return isinstance(sampler, (torch.utils.data.RandomSampler, torch.utils.data.WeightedRandomSampler))
