"""A pass over the data: batches of rows with their outputs, targets and weights, on one process or on many in step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .._support.processes import AGREE_EVERY, Processes
from .._support.progress import progress_bar
from ..errors import DataError
from ..functional import compressed_head
from ..functional.inputs import are_labels, one_hot
from ..gram import Gram
from ..model.batches import Batch, Forward, batches, num_batches, sample_limits
from ..model.calls import MANY_OUTPUTS
from ..model.head import Head, find_head, read, verify
from ..model.labels import gradient_labels
from ..model.layers import LayerInputs, Layers
from ..model.linear import is_sharded
from ..model.rows import BatchRows, Reader, Rows, decided, given_rows, head_rows, labels_of_rows


@dataclass(frozen=True)
class Known:
    """What the first batch has shown, and every later one is read by.

    Attributes:
        head: the head and its evidence; None where ``forward=`` returns the rows itself.
        reader: how rows are read.
        narrow: map (p, k) and shift (k,) from features to outputs with the inner products of very many.
        output_dtype: the dtype in which the head computed its outputs.
    """

    head: Head | None
    reader: Reader
    narrow: tuple[Tensor, Tensor] | None = None
    output_dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Part:
    """What one batch adds to the sums.

    Attributes:
        known: what the first batch has shown.
        rows: features, their index, and what was left out.
        outputs: (n, C), or (n, k) with the same inner products where there are very many.
        targets: (n, T) or None.
        integer_targets: whether they are integers of one output: labels or values, which all data decide together.
        weights: (n,) or None.
        strata: (n,) the class of each row where classes are weighed to count equally, else None.
        num_strata: how many classes there are then, else 0.
        numbers: (n,) int64, not 0, which identify the rows in every pass over these data; None where they may be others.
        batch: the batch itself.
        layers: what the layers were given.
        note: what a reader of the numbers must know.
    """

    known: Known
    rows: BatchRows
    outputs: Tensor
    targets: Tensor | None
    integer_targets: bool
    weights: Tensor | None
    strata: Tensor | None
    num_strata: int
    numbers: Tensor | None
    batch: Batch
    layers: LayerInputs | None = None
    note: str | None = None

    def empty_gram(self, *, retain: int) -> Gram:
        """A Gram for rows like these."""
        return Gram(
            retain=retain,
            strata=self.num_strata,
            num_outputs=self.rows.num_outputs,
            head_bias=self.known.head is None or self.known.head.has_bias,
            dtypes={"outputs": self.known.output_dtype or self.outputs.dtype},
        )


@dataclass(frozen=True)
class OnePass:
    """One way through the data, to be taken as often as needed; it holds no result.

    Attributes:
        model: not a wrapper.
        data, device: what is read, and where the model runs.
        head: as the user named it, or as an earlier pass found it.
        reader: how rows are read.
        num_samples: where to stop, over all processes.
        sample_weights: (n,) in the order of this process's rows.
        class_weights: (classes,) the weight of each class.
        forward, targets: what runs the model, and what gives the targets of a batch, in place of the usual.
        rows_id: identifies the rows of these data, if every pass sees the same ones in the same order; 32 bits.
    """

    model: nn.Module
    data: Any
    device: torch.device
    processes: Processes
    head: nn.Module | str | Known | None = None
    reader: Reader = field(default_factory=Reader)
    num_samples: int | None = None
    sample_weights: Tensor | None = None
    class_weights: Tensor | None = None
    forward: Forward | None = None
    targets: Callable[[Any], Tensor] | None = None
    progress: bool = False
    rows_id: int | None = None

    def parts(self, text: str, layers: Layers | None = None) -> Iterator[Part]:
        """Goes through the data once.

        Raises:
            HeadError, DataError: the head or the rows cannot be verified, or do not fit.
        """
        run, counted = sample_limits(self.data, self.num_samples, (self.processes.rank, self.processes.size))
        total = num_batches(self.data) if self.num_samples is None else None
        apart = 1 if is_sharded(self.model) else AGREE_EVERY
        known = self.head if isinstance(self.head, Known) else None
        samples = seen = 0

        def stream() -> Iterator[Batch]:
            for batch in batches(self.data, self.device, self.targets, free=self.forward is not None):
                yield batch
                if run is not None and samples >= run:
                    return

        with progress_bar(self.progress, total=total, text=text, unit=" batches") as bar:
            for batch in self.processes.in_step(stream(), apart=apart):
                if batch.is_empty and not self.processes.together:  # together, all must run the model equally often
                    continue
                known, rows, inputs = self._read(known, batch, layers)
                left = min((limit - samples for limit in (run, counted) if limit is not None), default=None)
                samples += rows.samples
                rows = rows if left is None else rows.first(max(left, 0))
                yield self._part(known, rows, batch, inputs, seen)
                seen += len(rows.features)
                bar.update()
        if self.sample_weights is not None and len(self.sample_weights) != seen:
            raise DataError(f"sample_weights has {len(self.sample_weights)} entries, the data {seen} rows")

    def _read(self, known: Known | None, batch: Batch, layers: Layers | None) -> tuple[Known, BatchRows, LayerInputs | None]:
        """Runs the model on a batch; the first time, finds the head and decides what a row is."""
        inputs: list[LayerInputs] = []

        def forward() -> Any:
            with ExitStack() as stack:
                if layers is not None:
                    inputs[:] = [stack.enter_context(layers.recorded())]
                return batch.feed(self.model, self.forward)

        if self.forward is not None and (known is None or known.head is None):
            returned = forward()
            if isinstance(returned, Rows):
                known = known or Known(None, labels_of_rows(self.reader, batch, returned))
                return known, given_rows(known.reader, self.model, returned, batch), next(iter(inputs), None)
        if known is None:
            head, reading = find_head(self.model, forward, None if isinstance(self.head, Known) else self.head)
            if reading is None or (not reading.call.whole and not head.linear):
                reading = read(self.model, head, forward)
            plain = lambda: batch.feed(self.model, self.forward)  # noqa: E731
            known = Known(head, decided(self.reader, self.model, head, reading, batch, plain))
        else:
            reading = read(self.model, head := _the_head(known), forward)
            verify(head, reading)
        answers = None
        if known.reader.labels is not None and known.reader.labels.by_gradient:
            plain = lambda: batch.feed(self.model, self.forward)  # noqa: E731
            answers = gradient_labels(_the_head(known), plain, reading.call.num_rows)
        rows = head_rows(known.reader, self.model, _the_head(known), reading, batch, answers)
        if rows.outputs is None and known.narrow is None:
            narrow, dtype = _narrow_map(_the_head(known), rows.num_outputs), reading.call.outputs.dtype
            known = replace(known, narrow=narrow, output_dtype=dtype)
        return known, rows, next(iter(inputs), None)

    def _part(self, known: Known, rows: BatchRows, batch: Batch, inputs: LayerInputs | None, seen: int) -> Part:
        targets, note = _as_matrix(rows.targets, rows.num_outputs)
        strata = self._classes(rows)
        return Part(
            known=known,
            rows=rows,
            outputs=rows.outputs if rows.outputs is not None else _narrowed(rows.features, known.narrow),
            targets=targets,
            integer_targets=rows.targets is not None and are_labels(rows.targets) and rows.num_outputs == 1,
            weights=self._weights(rows, seen, strata),
            strata=strata,
            num_strata=0 if self.class_weights is None else len(self.class_weights),
            numbers=self._numbers(rows, seen),
            batch=batch,
            layers=inputs,
            note=note,
        )

    def _classes(self, rows: BatchRows) -> Tensor | None:
        """(n,) the class of each row, where classes are weighed to count equally."""
        if self.class_weights is None:
            return None
        if rows.targets is None:
            raise DataError("class_balanced=True needs class labels, and a batch has none")
        labels = class_numbers(rows.targets).cpu()
        outside = labels[(labels < 0) | (labels >= len(self.class_weights))]
        if len(outside):
            raise DataError(f"class_balanced=True: label {int(outside[0])} is not a class that the first pass saw")
        return labels

    def _numbers(self, rows: BatchRows, seen: int) -> Tensor | None:
        """(n,) the number of each row among those of all processes, and in the upper half what identifies the data."""
        if self.rows_id is None:
            return None
        numbers = torch.arange(seen, seen + len(rows.features)) * self.processes.size + self.processes.rank
        return numbers + ((self.rows_id >> 1) << 32) + 1

    def _weights(self, rows: BatchRows, seen: int, classes: Tensor | None) -> Tensor | None:
        count, weights = len(rows.features), None
        if self.sample_weights is not None:
            weights = self.sample_weights[seen : seen + count].double()
            if len(weights) < count:
                more = seen + count
                raise DataError(f"sample_weights has {len(self.sample_weights)} entries, the data more: {more} rows so far")
        if self.class_weights is not None and classes is not None:
            balance = self.class_weights[classes]
            weights = balance if weights is None else balance * weights.cpu()
        return weights


def head_name(part: Part) -> str:
    """The name of the head; "" where ``forward=`` returned the rows."""
    return part.known.head.name if part.known.head is not None else ""


def class_weights(one_pass: OnePass) -> Tensor:
    """(classes,) the weight of a sample of each class that makes all classes equal, from a pass of its own.

    Raises:
        DataError: no class labels.
    """
    processes, sample_weights = one_pass.processes, one_pass.sample_weights
    totals, seen = torch.zeros(0, dtype=torch.float64), 0
    for part in one_pass.parts("counting classes"):
        if part.rows.targets is None:
            raise DataError("class_balanced=True needs class labels: batches (inputs, labels), or mappings with labels")
        labels = class_numbers(part.rows.targets).cpu()
        if len(labels) and int(labels.min()) < 0:
            raise DataError(f"class_balanced=True: label {int(labels.min())} is not a class")
        weights = torch.ones(len(labels)) if sample_weights is None else sample_weights[seen : seen + len(labels)].cpu()
        seen += len(labels)
        counts = torch.bincount(labels, weights.double(), minlength=len(totals))
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


def _the_head(known: Known) -> Head:
    if known.head is None:
        raise DataError("forward returned Rows for one batch and something else for another")
    return known.head


def _narrow_map(head: Head, num_outputs: int) -> tuple[Tensor, Tensor]:
    """From features to few outputs with the inner products of all; the head is linear, so that they follow from its weights."""
    weight, bias = head.parameters
    if weight is None:
        raise DataError(f"the head {head.name!r} has {num_outputs:,} outputs and no weight to compute them from")
    return compressed_head(weight, bias)


def _narrowed(features: Tensor, narrow: tuple[Tensor, Tensor] | None) -> Tensor:
    if narrow is None:
        raise DataError("outputs are missing")
    to_narrow, shift = narrow
    # float64 would make the products of the features float64, too
    return (features.to(to_narrow) @ to_narrow + shift).to(torch.promote_types(features.dtype, torch.float32))


def _as_matrix(targets: Tensor | None, num_outputs: int) -> tuple[Tensor | None, str | None]:
    """Targets as (n, T), and a note where they are left out."""
    if targets is None:
        return None, None
    if not are_labels(targets):
        return targets.unsqueeze(1) if targets.ndim == 1 else targets, None
    if num_outputs > MANY_OUTPUTS:
        return None, f"labels of {num_outputs:,} classes are left out: too many for quality and neural collapse"
    if num_outputs > 1:
        outside = targets[(targets < 0) | (targets >= num_outputs)]
        if len(outside):
            raise DataError(
                f"label {int(outside[0])} is out of range: the head has {num_outputs} outputs, so classes are 0 … "
                f"{num_outputs - 1}; if it marks what has no label, pass ignore_index={int(outside[0])}"
            )
        return one_hot(targets.long(), num_outputs), None
    return targets.double().unsqueeze(1), None  # labels or values: all data decide together
