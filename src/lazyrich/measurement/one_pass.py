"""A pass over the data: batches of rows with their outputs, targets and weights, on one process or on many in step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .._support.nested import tensors_in
from .._support.processes import AGREE_EVERY, Processes
from .._support.progress import progress_bar
from ..errors import DataError
from ..functional.compressed_head import compressed_head
from ..functional.inputs import are_labels, one_hot
from ..gram import RETAINED_ROWS, Gram
from ..gram.accumulator import Accumulator
from ..model.batches import IGNORED_LABEL, Batch, batches, first_dimension, num_batches
from ..model.capture import MANY_OUTPUTS, Captured, Tap


@dataclass(frozen=True)
class Rows:
    """What one batch adds to a Gram."""

    features: Tensor
    outputs: Tensor
    targets: Tensor | None  # as a matrix
    weights: Tensor | None
    num_outputs: int
    captured: Captured
    batch: Batch


@dataclass
class Pass:
    """One way through the data, to be gone as often as needed."""

    tap: Tap
    data: Any
    place: torch.device
    num_samples: int | None
    sample_weights: Tensor | None
    class_weights: Tensor | None
    processes: Processes
    show: bool
    positions: bool = False
    notes: list[str] = field(default_factory=list)
    _narrow: tuple[Tensor, Tensor] | None = None
    _print: list[float] = field(default_factory=list)
    _copies: bool = False

    def gram(self, *, retain: int = RETAINED_ROWS, num_outputs: int | None = None) -> Gram:
        """An empty Gram for rows of this pass."""
        return Gram(retain=retain, first_row=self.processes.rank, row_step=self.processes.size, num_outputs=num_outputs)

    def rows(self, text: str, hooks: Callable[[ExitStack], None] | None = None) -> Iterator[Rows]:
        """Goes through the data once."""
        total = num_batches(self.data)
        seen, self._print = 0, []
        share = (self.processes.rank, self.processes.size)
        stream = batches(self.data, self.place, self.num_samples, share)
        with progress_bar(self.show, total=total if self.num_samples is None else None, text=text, unit=" batches") as bar:
            for batch in self.processes.in_step(stream, apart=1 if self.tap.sharded else AGREE_EVERY):
                if batch.is_empty and not self.processes.together:  # together, all must run the model equally often
                    continue
                captured = self.tap.run(batch, hooks).counted(batch.counted)
                self.positions = self.positions or captured.positions
                count = len(captured.features)
                if self.processes.together:
                    self._print.append(_fingerprint(batch))
                yield Rows(
                    features=captured.features,
                    outputs=self._outputs(captured),
                    targets=self._targets(captured),
                    weights=self._weights(captured, seen),
                    num_outputs=captured.num_outputs,
                    captured=captured,
                    batch=batch,
                )
                seen += count
                bar.update()
        if self.sample_weights is not None and len(self.sample_weights) != seen:
            raise DataError(f"sample_weights has {len(self.sample_weights)} entries, the data {seen} rows")

    def reduce(self, grams: Sequence[Accumulator]) -> None:
        """Adds up the Grams of all processes, unless all of them saw the very same data."""
        if not self.processes.together:
            return
        seen = self.processes.gather((self.tap.name, self.positions, len(grams), self._print))
        for name, positions, count, _ in seen:
            if (name, positions, count) != seen[0][:3]:
                raise DataError(f"the processes measure different things: head {seen[0][0]!r} and head {name!r}")
        self._copies = bool(self._print) and all(s[3] == seen[0][3] for s in seen)
        if self._copies:
            self.notes.append(f"all {self.processes.size} processes were given the same data: counted once")
            return
        for gram in grams:
            gram.reduce(self.processes)

    def add(self, sums: Tensor) -> None:
        """Adds up a tensor of sums as :meth:`reduce` does Grams."""
        if self.processes.together and not self._copies:
            self.processes.gather(None)
            self.processes.add(sums)

    def _outputs(self, captured: Captured) -> Tensor:
        if captured.outputs is not None:
            return captured.outputs
        if self._narrow is None:
            weight, bias = self.tap.parameters
            if weight is None:
                raise DataError(
                    f"the head {self.tap.name!r} has {captured.num_outputs:,} outputs and no weight to follow them from"
                )
            self._narrow = compressed_head(weight, bias)
        to_narrow, shift = self._narrow
        # the outputs were rounded as the features are; the Gram must not take them for exact
        return (captured.features.to(to_narrow) @ to_narrow + shift).to(
            torch.promote_types(captured.features.dtype, torch.float32)
        )

    def _targets(self, captured: Captured) -> Tensor | None:
        targets = captured.targets
        if targets is None:
            return None
        if are_labels(targets):
            if captured.num_outputs > MANY_OUTPUTS:
                note = f"labels of {captured.num_outputs:,} classes are left out: too many for quality and neural collapse"
                self.notes += [] if note in self.notes else [note]
                return None
            if captured.num_outputs > 1:
                return one_hot(targets.long(), captured.num_outputs)
            if not bool(((targets < 0) | (targets > 1)).any()):
                return one_hot(targets.long(), 2)
        return targets.unsqueeze(1) if targets.ndim == 1 else targets

    def _weights(self, captured: Captured, seen: int) -> Tensor | None:
        count, weights = len(captured.features), None
        if self.sample_weights is not None:
            weights = self.sample_weights[seen : seen + count].double()
            if len(weights) < count:
                more = seen + count
                raise DataError(f"sample_weights has {len(self.sample_weights)} entries, the data more: {more} rows so far")
        if self.class_weights is not None:
            if captured.targets is None:
                raise DataError("class_balanced=True needs class labels, and a batch has none")
            labels = class_numbers(captured.targets).cpu()
            outside = labels[(labels < 0) | (labels >= len(self.class_weights))]
            if len(outside):
                raise DataError(f"class_balanced=True: label {int(outside[0])} is not a class that the first pass saw")
            balance = self.class_weights[labels]
            weights = balance if weights is None else balance * weights.cpu()
        return weights


def class_weights(data: Any, sample_weights: Tensor | None, num_samples: int | None, processes: Processes) -> Tensor:
    """(classes,) the weight of a sample of each class that makes all classes equal, from a pass over the labels alone."""
    totals = torch.zeros(0, dtype=torch.float64)
    seen = 0
    for batch in processes.in_step(batches(data, None, num_samples, (processes.rank, processes.size))):
        if batch.targets is None:
            raise DataError("class_balanced=True needs class labels: batches (inputs, labels), or mappings with labels")
        labels = class_numbers(batch.targets).cpu()
        if batch.counted is not None:
            labels = labels[: batch.counted * len(labels) // max(first_dimension(batch.inputs), 1)]
        labels = labels[labels != IGNORED_LABEL]
        if len(labels) and int(labels.min()) < 0:
            raise DataError(f"class_balanced=True: label {int(labels.min())} is not a class")
        given = torch.ones(len(labels)) if sample_weights is None else sample_weights[seen : seen + len(labels)].cpu()
        seen += len(labels)
        if len(given) == len(labels):  # else the pass over the data says what is wrong
            counts = torch.bincount(labels, given.double(), minlength=len(totals))
            totals = counts + torch.nn.functional.pad(totals, (0, len(counts) - len(totals)))
    every = processes.gather(totals)
    widest = max(len(t) for t in every)
    totals = torch.stack([torch.nn.functional.pad(t, (0, widest - len(t))) for t in every]).sum(0)
    return torch.where(totals > 0, 1 / totals, 0.0)


def class_numbers(targets: Tensor) -> Tensor:
    """(n,) class numbers from integers or exact one-hot rows.

    Raises:
        DataError: targets of another kind.
    """
    binary = targets.ndim == 2 and targets.shape[1] > 1 and bool(((targets == 0) | (targets == 1)).all())
    if targets.is_floating_point() or binary:
        if not binary or not bool(((targets == 1).sum(1) == 1).all()):
            raise DataError(
                f"class_balanced=True needs one class a sample; these targets are {targets.dtype} of shape {tuple(targets.shape)}"
            )
        return targets.argmax(1)
    return targets.flatten().long()


def _fingerprint(batch: Batch) -> float:
    """The same for the same inputs: processes that were all given the same data are told by some thousand numbers of each."""
    some = (x.flatten()[:: max(1, x.numel() // 4096)] for x in tensors_in(batch.inputs))
    return sum(float(x.sum(dtype=torch.float64)) for x in some) + first_dimension(batch.inputs)
