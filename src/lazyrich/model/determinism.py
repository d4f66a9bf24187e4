"""Does the same measurement twice see the same? Looks at the data and the model a second time and names what differs.

Order is left out of account, for it does not change what is measured: a loader that shuffles all its samples is deterministic
here; one that draws other samples, or other versions of the same, is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from .._support.nested import copied, tensors_in
from .._support.processes import Processes
from ..errors import NondeterminismError
from .batches import Batch, batches, first_dimension, raw_bytes

FEW_BATCHES = 2
ROUNDING = 64  # units of the last place of the largest entry: threads and GPU kernels may sum in another order


def check_data(data: Any, num_samples: int | None) -> None:
    """Finds out whether the data give the same samples again.

    Of a DataLoader over a map-style data set the sampler is run through twice, without loading, and one batch is fetched twice by
    the same indices, in this process. Of anything else the first batches are compared, and all samples where those differ.

    Raises:
        NondeterminismError: they do not.
    """
    if isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset):
        _check_loader(data, num_samples)
    elif isinstance(data, DataLoader) or not isinstance(data, (Tensor, tuple, list, dict)):
        _check_stream(data)


def check_model(
    model: nn.Module, batch: Batch | None, look: Callable[[Batch], tuple[Tensor, Tensor]], processes: Processes
) -> None:
    """Finds out whether the model gives the same for the same batch.

    Args:
        model: in evaluation mode.
        batch: None where this process has none.
        look: features and outputs of a batch.
        processes: those that measure together.

    Raises:
        NondeterminismError: it does not; names the module whose output is the first to differ though its inputs are the same.
    """
    differs = False
    if batch is not None:
        first, second = (look(_fresh(batch)) for _ in range(2))
        differs = not _same(first, second)
    if not any(processes.gather(differs)) or batch is None:  # all search, or none: the model may hold collectives
        return
    name = _culprit(model, batch)
    if differs:
        where = f"; the first output to differ is that of {name}" if name else ""
        raise NondeterminismError(
            f"the model is not deterministic: the same batch gave other features the second time{where}. It runs in evaluation "
            "mode: look for dropout or noise that ignores the mode, or for state that every call changes"
        )


def _check_loader(loader: DataLoader[Any], num_samples: int | None) -> None:
    drawn = [Counter(islice(_indices(loader), num_samples)) for _ in range(2)]
    if drawn[0] != drawn[1]:
        other = (drawn[0] - drawn[1]).total()
        why = f"num_samples={num_samples:,} of a loader that shuffles" if num_samples else f"its {type(loader.sampler).__name__}"
        raise NondeterminismError(
            f"data is not deterministic: the loader drew {other:,} of {drawn[0].total():,} samples anew the second time ({why}); "
            "use shuffle=False, or a sampler that takes every sample once"
        )
    chosen = next(iter(loader.batch_sampler if loader.batch_sampler is not None else loader.sampler), None)
    if chosen is not None and not _same(_fetched(loader, chosen), _fetched(loader, chosen)):
        indices = ", ".join(map(str, chosen[:5] if isinstance(chosen, list) else [chosen]))
        raise NondeterminismError(
            f"data is not deterministic: the same samples (number {indices} …) came out different the second time. Look for "
            f"random crops, flips or noise in {type(loader.dataset).__name__} or in collate_fn; measure with the transforms "
            "of evaluation, or on batches drawn once: list(loader)"
        )


def _indices(loader: DataLoader[Any]) -> Iterator[Any]:
    """Which samples one pass takes, in order."""
    return iter(loader.sampler) if loader.batch_sampler is None else chain.from_iterable(loader.batch_sampler)


def _fetched(loader: DataLoader[Any], chosen: Any) -> Any:
    dataset: Any = loader.dataset
    if loader.batch_sampler is None:
        return loader.collate_fn(dataset[chosen])
    many = getattr(dataset, "__getitems__", None)
    return loader.collate_fn(many(chosen) if many else [dataset[i] for i in chosen])


def _check_stream(data: Any) -> None:
    first, second = (list(islice(batches(data, None), FEW_BATCHES)) for _ in range(2))
    if len(first) == len(second) and all(_same(_content(a), _content(b)) for a, b in zip(first, second, strict=True)):
        return
    whole = [Counter(chain.from_iterable(_samples(batch) for batch in batches(data, None))) for _ in range(2)]
    if whole[0] != whole[1]:
        raise NondeterminismError(
            f"data is not deterministic: {(whole[0] - whole[1]).total():,} of {whole[0].total():,} samples were not there the "
            "second time. Look for random crops, flips, noise, samples drawn at random; measure on batches drawn once: list(data)"
        )


def _fresh(batch: Batch) -> Batch:
    """A copy, for a model may write into its inputs."""
    item = copied(batch.item)
    return next(batches([item], None))


def _content(batch: Batch) -> Any:
    return batch.inputs, batch.targets


def _samples(batch: Batch) -> Iterator[bytes]:
    """Every sample of a batch as bytes."""
    size = first_dimension(batch.inputs)
    tensors = [x for x in tensors_in(_content(batch)) if x.ndim and len(x) == size]
    for row in range(size):
        yield b"".join(raw_bytes(x[row]) for x in tensors)


def _same(first: Any, second: Any) -> bool:
    """Whether the tensors in two values are the same, up to the rounding of sums in another order."""
    a, b = list(tensors_in(first)), list(tensors_in(second))
    return len(a) == len(b) and all(_same_tensor(x, y) for x, y in zip(a, b, strict=True))


def _same_tensor(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if torch.equal(a, b) or not a.is_floating_point():
        return torch.equal(a, b)
    wide = torch.promote_types(a.dtype, torch.float32)
    largest = float(a.to(wide).abs().nan_to_num(0, 0, 0).max())
    return torch.allclose(a.to(wide), b.to(wide), rtol=0, atol=ROUNDING * torch.finfo(a.dtype).eps * largest, equal_nan=True)


def _culprit(model: nn.Module, batch: Batch) -> str | None:
    """The first call to end with other outputs for the same inputs, by the dotted name of its module.

    A module that holds another ends after it, and one that is only handed what differs has other inputs.
    """
    first, second = (_calls(model, batch) for _ in range(2))
    for (name, given, returned), (other, given_again, returned_again) in zip(first, second, strict=False):
        if name != other:
            return None  # another way through the model
        if _same(given, given_again) and not _same(returned, returned_again):
            return name
    return None


def _calls(model: nn.Module, batch: Batch) -> list[tuple[str, list[Tensor], list[Tensor]]]:
    """Name, inputs and outputs of every call, in the order they ended."""
    calls: list[tuple[str, list[Tensor], list[Tensor]]] = []
    given: list[list[Tensor]] = []  # of the calls under way; taken before the call, which may write into them

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        given.append([x.detach().clone() for x in tensors_in((args, kwargs))])

    def after(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            calls.append((name, given.pop(), [x.detach().clone() for x in tensors_in(output)]))

        return hook

    with ExitStack() as stack:
        for name, module in model.named_modules():
            described = f"{name or '(the model itself)'} ({type(module).__name__})"
            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after(described)).remove)
        _fresh(batch).feed(model)
    return calls
