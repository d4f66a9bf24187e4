"""What a row is, and which rows count: decided on the first batch by what was verified, the same for every batch after it.

A row is one sample, or one position (token, pixel) of one sample. ``rows=`` decides alone where it is passed; otherwise the mask
of the sequence that the head reads and the labels that are not ignored both apply.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import DataError, HeadError
from .batches import IGNORED_LABEL, Batch, entry
from .calls import MANY_OUTPUTS, Call
from .head import Head, Reading
from .labels import Fitting, Labels, decided_labels, fitting_labels
from .returned import MEASURED_AS_RETURNED, positions, subset

Layout = Literal["batch_first", "time_first"]
RowChoice = str | Callable[[Any], Tensor] | None


@dataclass(frozen=True)
class Rows:
    """Features and outputs of a batch as the user takes them: what ``forward=`` may return in place of the model's own answer.

    Attributes:
        features: (n, p), or (..., p) with one row for each of the other dimensions.
        outputs: (n, C), or (..., C) in the same order.
    """

    features: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class Reader:
    """How the rows of a batch are read: the user's choices and what the first batch has decided.

    Attributes:
        choice: ``rows=``.
        ignore_index: labels of this value do not count.
        layout: which dimension counts the samples where outputs have more than two; None: the first.
        labels: whether labels belong to positions, shifted by one or not, or why they are not used; None before the first batch.
    """

    choice: RowChoice = None
    ignore_index: int = IGNORED_LABEL
    layout: Layout | None = None
    labels: Labels | None = None


@dataclass(frozen=True)
class BatchRows:
    """One batch as the measures take it.

    Attributes:
        features: (n, p).
        outputs: (n, C); None where there are too many to copy.
        num_outputs: C.
        targets: (n,) labels or (n, T) values, or None.
        samples: how many samples count, those of which no row does included.
        batch_samples: how many samples the batch held, those that only fill it up included.
        positions: how many rows a sample has before any is left out; 1 where a row is a sample.
        index: (n,) sample · positions + position of every row.
        left_out: reason -> how many rows do not count.
    """

    features: Tensor
    outputs: Tensor | None
    num_outputs: int
    targets: Tensor | None
    samples: int
    positions: int
    index: Tensor
    batch_samples: int
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Samples of the batch, positions of each, and rows that count: equal where two networks give the same rows."""
        return self.batch_samples, self.positions, len(self.index)

    @property
    def named_sizes(self) -> str:
        """The sizes in words."""
        return f"{len(self.index):,} rows of a batch of {self.batch_samples:,} samples"

    def first(self, samples: int) -> BatchRows:
        """Without the rows of all samples after the first ``samples``."""
        if samples >= self.samples:
            return self
        kept = (self.index < samples * self.positions).nonzero()[:, 0]
        return replace(
            self,
            features=self.features[kept],
            outputs=None if self.outputs is None else self.outputs[kept],
            targets=None if self.targets is None else self.targets[kept.to(self.targets.device)],
            index=self.index[kept],
            samples=samples,
        )


def decided(reader: Reader, model: nn.Module, head: Head, reading: Reading, batch: Batch, forward: Callable[[], Any]) -> Reader:
    """The reader with what the first batch decides: whether the labels of positions are shifted, verified by the model's loss."""
    samples, places, _ = _shape(head, reading, batch, reader.layout)
    labels = decided_labels(model, head, reading, batch, samples, places, reader.ignore_index, forward)
    return replace(reader, labels=labels)


def labels_of_rows(reader: Reader, batch: Batch, rows: Rows) -> Reader:
    """The reader for rows that ``forward=`` returns itself: its targets belong to them as they are."""
    return replace(reader, labels=Labels(None if batch.targets is None else 0))


def head_rows(
    reader: Reader, model: nn.Module, head: Head, reading: Reading, batch: Batch, answers: Fitting | None = None
) -> BatchRows:
    """The rows of one batch from what its head was given and returned; ``answers`` are labels that the loss's gradient gives.

    Raises:
        DataError: a mask, ``rows=`` or targets that do not fit the rows.
        HeadError, TypeError: inputs and outputs of the head that are no rows.
    """
    call = reading.call
    features, outputs = _checked(call)
    if head.linear and call.shape[-1] > MANY_OUTPUTS:
        outputs = None  # they follow from the features
    samples, places, transposed = _shape(head, reading, batch, reader.layout)
    relation = head.relation
    picked = relation is not None and relation.rows in ("mean", "position")
    if transposed:
        features = features.transpose(0, 1)
        outputs = outputs.transpose(0, 1) if outputs is not None else None
    features = features.flatten(1, -2) if picked else features.reshape(-1, features.shape[-1])
    if outputs is not None:
        outputs = outputs.flatten(1, -2) if picked else outputs.reshape(-1, outputs.shape[-1])
    index = torch.arange(samples * places, device=features.device)
    if relation is not None and relation.rows == "mean":
        features, outputs = features.mean(1), None if outputs is None else outputs.mean(1)
    elif relation is not None and relation.rows == "position":
        values = relation.arranged(reading.returned[relation.tensor].detach())
        last = features.shape[1] - 1
        fixed = None if relation.position is None else last if relation.position < 0 else relation.position
        place = positions(call, values) if fixed is None else torch.full((samples,), fixed, device=features.device)
        if place is None:
            raise HeadError(f"the model returns none of the outputs of {head.name!r} for some sample of this batch")
        row = torch.arange(samples, device=features.device)
        features, outputs = features[row, place], None if outputs is None else outputs[row, place]
    elif relation is not None and relation.rows == "subset":
        parts = [subset(call, relation.arranged(reading.returned[k].detach())) for k in (relation.tensor, *relation.also)]
        if any(part is None for part in parts):
            raise HeadError(f"the model returns rows that are not among the outputs of {head.name!r}")
        chosen = torch.cat([part for part in parts if part is not None]).unique()
        features, outputs, index = features[chosen], None if outputs is None else outputs[chosen], chosen
    if relation is not None and relation.function.kind in MEASURED_AS_RETURNED:
        outputs = relation.arranged(reading.returned[relation.tensor].detach()).clone()
    rows = BatchRows(
        features, outputs, call.shape[-1] if outputs is None else outputs.shape[1], None, samples, places, index, samples,
    )  # fmt: skip
    return _counted(reader, model, rows, batch, answers)


def given_rows(reader: Reader, model: nn.Module, rows: Rows, batch: Batch) -> BatchRows:
    """The rows of one batch that ``forward=`` has returned itself."""
    features, outputs = rows.features.detach(), rows.outputs.detach()
    if features.shape[:-1] != outputs.shape[:-1] or features.ndim < 2:
        raise DataError(
            f"forward returned Rows with features of shape {tuple(features.shape)} and outputs of shape {tuple(outputs.shape)}: "
            "they must be (n, p) and (n, C), or have the same other dimensions"
        )
    for name, x in (("features", features), ("outputs", outputs)):
        if not x.is_floating_point():
            raise DataError(f"forward returned Rows whose {name} are {x.dtype}: they must be real floating point")
    samples, places = len(features), features[0, ..., 0].numel() if len(features) else 1
    index = torch.arange(samples * places, device=features.device)
    features, outputs = features.flatten(0, -2).clone(), outputs.flatten(0, -2).clone()
    return _counted(reader, model, BatchRows(features, outputs, outputs.shape[1], None, samples, places, index, samples), batch)


def _checked(call: Call) -> tuple[Tensor, Tensor | None]:
    """Features and outputs with as many dimensions as each other; outputs None where not all were copied."""
    features, outputs = call.features, call.outputs
    for name, x in (("input", features), ("output", outputs)):
        if not x.is_floating_point():
            raise TypeError(f"the head's {name} has dtype {x.dtype}; features and outputs must be real floating point")
    if len(call.shape) == 1:
        features, outputs = features.unsqueeze(0), outputs.unsqueeze(0)
    elif tuple(features.shape[:-1]) != call.shape[:-1]:
        raise HeadError(
            f"the head maps {tuple(features.shape)} to {call.shape}: it is not a linear map of the last dimension; "
            "pass head= as the last linear layer"
        )
    return features, outputs if call.whole else None


def _shape(head: Head, reading: Reading, batch: Batch, layout: Layout | None) -> tuple[int, int, bool]:
    """Samples, positions of each, and whether the outputs have time in front of samples."""
    lead = reading.call.shape[:-1]
    relation = head.relation
    if relation is not None and relation.rows in ("mean", "position"):
        return lead[0], 1, False
    if len(lead) == 0:
        return 1, 1, False
    if len(lead) == 1:
        samples = _samples_of_flat_rows(lead[0], reading, head, batch)
        return samples, lead[0] // max(samples, 1) if samples and lead[0] % samples == 0 else 1, False
    places = int(torch.Size(lead[1:]).numel())
    if layout == "time_first":
        return lead[1], lead[0], True
    return lead[0], places, False


def _samples_of_flat_rows(rows: int, reading: Reading, head: Head, batch: Batch) -> int:
    """How many samples rows come from that the model has flattened: as many as what it returns has in its first dimension."""
    relation = head.relation
    if relation is not None and relation.rows == "all":
        y = reading.returned[relation.tensor]
        shape = tuple(y.shape[k] for k in relation.order)
        columns = reading.call.shape[-1] if relation.function.columns is None else len(relation.function.columns)
        lead = shape[:-1] if shape[-1] == columns and len(shape) > 1 else shape
        if len(lead) > 1 and int(torch.Size(lead).numel()) == rows:
            return lead[0]
    return rows


def _counted(reader: Reader, model: nn.Module, rows: BatchRows, batch: Batch, answers: Fitting | None = None) -> BatchRows:
    """The rows that count, with their targets."""
    total = rows.samples * rows.positions
    labels = fitting_labels(reader.labels, batch, rows.samples, rows.positions, reader.ignore_index, answers)
    reasons = _reasons(reader, model, rows, batch, total)
    if labels.counted is not None and reader.choice in (None, "labels"):
        reasons["label ignored"] = labels.counted
    elif reader.choice == "labels":
        raise DataError("rows='labels': this batch has no labels that fit the rows; pass targets= or another rows=")
    if not reasons:
        return _with_targets(rows, labels)
    kept = torch.ones(total, dtype=torch.bool)
    left_out = {}
    for reason, keep in reasons.items():
        keep = keep.cpu()
        left_out[reason] = int((kept & ~keep)[rows.index.cpu()].sum())
        kept &= keep
    if not bool(kept.all()):
        chosen = kept.to(rows.index.device)[rows.index].nonzero()[:, 0]
        rows = replace(
            rows,
            features=rows.features[chosen],
            outputs=None if rows.outputs is None else rows.outputs[chosen],
            index=rows.index[chosen],
            left_out={reason: count for reason, count in left_out.items() if count},
        )
    return _with_targets(rows, labels)


def _with_targets(rows: BatchRows, labels: Fitting) -> BatchRows:
    targets = labels.targets
    if targets is None or (labels.counted is not None and not bool(labels.counted.cpu()[rows.index.cpu()].all())):
        return rows  # where rows= counts rows without a label, not every row has a target
    return replace(rows, targets=targets[rows.index.to(targets.device)])


def _reasons(reader: Reader, model: nn.Module, rows: BatchRows, batch: Batch, total: int) -> dict[str, Tensor]:
    """Reason -> (samples · positions,) which rows it keeps; the labels aside."""
    choice = reader.choice
    if choice in ("all", "labels"):
        return {}
    if choice is None or choice == "mask":
        mask = sequence_mask(model, batch)
        if mask is None or (rows.positions == 1 and choice is None):
            if choice == "mask":
                raise DataError(
                    "rows='mask': this batch has no mask of the sequence that the head reads; pass rows= as a function"
                )
            return {}
        if mask.numel() != total or mask.shape[0] != rows.samples:
            raise DataError(
                f"the mask has shape {tuple(mask.shape)}, and the head answers at {rows.positions} positions of {rows.samples} "
                "samples: it belongs to another sequence (audio samples, an encoder, tokens without their prefix). Pass "
                'rows="all", rows="labels", or rows= as a function of the batch that returns which positions count'
            )
        return {"mask": mask.flatten() > 0}
    if callable(choice):
        keep, name = choice(batch.item), "rows"
    else:
        keep, name = entry(batch.item, choice), f"rows={choice!r}"
        if keep is None:
            keys = f" ({', '.join(map(str, batch.item))})" if isinstance(batch.item, Mapping) else ""
            raise DataError(
                f"rows={choice!r}: the batch has no such entry; it is 'all', 'mask', 'labels' or a key of the batch{keys}"
            )
    if not isinstance(keep, Tensor) or keep.dtype not in (torch.bool, torch.uint8, torch.int64, torch.int32):
        raise DataError(f"{name} must give a tensor of booleans, got {getattr(keep, 'dtype', type(keep).__name__)}")
    if keep.numel() == rows.samples and rows.positions > 1:
        keep = keep.flatten().repeat_interleave(rows.positions)
    if keep.numel() != total:
        raise DataError(f"{name} gave {keep.numel()} entries, and this batch has {total} rows ({rows.samples} samples)")
    return {name: keep.flatten() > 0}


def sequence_mask(model: nn.Module, batch: Batch) -> Tensor | None:
    """The mask of the sequence that the head reads: in an encoder–decoder the decoder's, never the encoder's."""
    decoder = (
        getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        or _takes_a_decoders_mask(model)
        or any(
            entry(batch.inputs, name) is not None
            for name in ("decoder_input_ids", "decoder_inputs_embeds", "decoder_attention_mask")
        )
    )
    mask = entry(batch.inputs, "decoder_attention_mask" if decoder else "attention_mask")
    return mask if isinstance(mask, Tensor) and mask.ndim > 1 else None


def _takes_a_decoders_mask(model: nn.Module) -> bool:
    try:
        return "decoder_attention_mask" in inspect.signature(model.forward).parameters
    except (TypeError, ValueError):  # compiled or scripted
        return False
