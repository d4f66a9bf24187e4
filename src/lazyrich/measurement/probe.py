"""A probe set: the first samples of the data, drawn once, as batches that can be measured again and again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.utils.data import DistributedSampler

from .._support.nested import copied, tensors_in
from .._support.processes import Processes
from ..errors import DataError
from ..model.batches import Batch, raw_bytes, rows_of, sampler_of
from .one_pass import OnePass, Part


class ProbeBatches(list[Any]):
    """Batches that nobody else holds and that do not change, so that the number of a row identifies it."""

    @cached_property
    def digest(self) -> str:
        """A digest of all tensors of the batches: of their dtypes, shapes and values."""
        parts = hashlib.sha256()
        for k, x in enumerate(x for batch in self for x in tensors_in(batch)):
            x = x if x.layout == torch.strided else x.to_dense()
            parts.update((b"\0" if k else b"") + f"{x.dtype}{tuple(x.shape)}".encode() + b"\0")
            parts.update(raw_bytes(x))
        return parts.hexdigest()[:16]


@dataclass(frozen=True)
class Probe:
    """A probe set.

    Attributes:
        batches: as the data have them.
        limit: after how many samples whoever measures must stop, because the last batch could not be cut; None: all count.
        samples: how many samples count.
    """

    batches: ProbeBatches
    limit: int | None
    samples: int


def probe_set(one_pass: OnePass, num_samples: int) -> Probe:
    """The first ``num_samples`` samples of the data, over all processes.

    Samples are counted by the rows that the head answers with, never by the size of an input. A batch is cut to the samples that
    are wanted only where the model gives the same rows for the cut batch; else the last batch stays complete, and ``limit`` says
    where to stop. Processes that share the data without a DistributedSampler take its samples in turn.

    Raises:
        DataError: no samples; on several processes, batches that cannot be divided.
    """
    processes = one_pass.processes
    shared = processes.size > 1 and not isinstance(sampler_of(one_pass.data), DistributedSampler)
    alone = replace(one_pass, num_samples=num_samples, progress=False)
    alone = replace(alone, processes=Processes(False)) if shared else alone
    batches = ProbeBatches()
    samples, limit = 0, None
    for part in alone.parts("drawing a probe set"):
        wanted, held = part.rows.samples, part.rows.batch_samples
        rows = slice(processes.rank, wanted // processes.size * processes.size, processes.size) if shared else slice(wanted)
        chosen = len(range(*rows.indices(held)))
        if not chosen:
            continue
        batch = part.batch if chosen == held else _cut(alone, part, rows)
        if batch is None and shared:
            raise DataError(
                "the probe set cannot be divided among the processes, because the model answers differently for a part of a "
                "batch: pass a DataLoader with a DistributedSampler"
            )
        if batch is None:
            batch, limit = part.batch, num_samples
        samples += chosen
        batches.append(copied(batch.item))
    if not batches:
        raise DataError("data gave no samples to keep as a probe set; pass a DataLoader, a list of batches or tensors")
    return Probe(batches, limit, samples)


def _cut(one_pass: OnePass, part: Part, rows: slice) -> Batch | None:
    """Some samples of a batch, if the model gives the same rows for them as for the complete batch."""
    chosen = torch.arange(part.rows.batch_samples)[rows]
    try:
        batch = rows_of(part.batch, part.rows.batch_samples, rows)
        alone = replace(one_pass, data=[batch.item], head=part.known, num_samples=None, processes=Processes(False))
        again = next(iter(alone.parts("checking")), None)
    except Exception:  # whatever a model raises for a batch that it does not take
        return None
    kept = torch.isin(part.rows.index.cpu() // part.rows.positions, chosen).nonzero()[:, 0]
    if again is None or len(again.rows.features) != len(kept) or again.rows.batch_samples != len(chosen):
        return None
    before, after = part.rows.features[kept.to(part.rows.features.device)], again.rows.features
    size = float(before.abs().max()) if before.numel() else 0.0
    near = bool(((after - before).abs() <= 256 * torch.finfo(before.dtype).eps * size).all())
    return batch if near else None
