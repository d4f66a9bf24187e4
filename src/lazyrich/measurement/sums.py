"""What accumulates in a pass: each takes parts, one batch after the other, and reduces itself over the processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .._support.nested import tensors_in
from .._support.processes import Processes
from ..errors import DataError
from ..functional import kernel_alignment
from ..gram import RETAINED_ROWS, FeaturePair, Gram
from ..model.batches import Batch
from ..model.calls import MANY_OUTPUTS
from ..model.layers import LayerPlan, Layers, layer_rows, planned
from ..model.linear import unwrapped
from .narrow import NarrowGram, dual
from .one_pass import Known, OnePass, Part


class HeadSums:
    """The head's features, outputs and targets, and what is known of them.

    Attributes:
        gram: None before the first part.
        known: what the first batch has shown.
        per_position: whether rows are positions of samples.
        left_out: reason -> how many rows did not count.
        notes: what a reader of the numbers must know.
        copies: whether all processes saw the same data, so that nothing was added up.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.gram: Gram | None = None
        self.known: Known | None = None
        self.per_position = False
        self.left_out: dict[str, int] = {}
        self.notes: list[str] = []
        self.copies = False
        self._integers = False
        self._wide: list[Part] = []

    def add(self, part: Part) -> None:
        """Adds a part."""
        self.known = part.known
        self.per_position = self.per_position or part.rows.positions > 1
        for reason, count in part.rows.left_out.items():
            self.left_out[reason] = self.left_out.get(reason, 0) + count
        if part.note is not None and part.note not in self.notes:
            self.notes.append(part.note)
        self._integers = self._integers or part.integer_targets
        if part.outputs.shape[1] > MANY_OUTPUTS:
            self._hold(part)
        else:
            self._update(part, part.outputs)

    def _update(self, part: Part, outputs: Tensor) -> None:
        retain = 0 if self.per_position else RETAINED_ROWS
        self.gram = self.gram or part.empty_gram(self._processes, retain=retain)
        self.gram.update(part.rows.features, outputs, part.targets, part.weights)

    def _hold(self, part: Part) -> None:
        """Very many outputs that do not follow from the features: rows are held, and at the end replaced by as many columns."""
        self._wide.append(part)
        rows = sum(len(held.outputs) for held in self._wide)
        if rows > MANY_OUTPUTS or self._processes.together:
            raise DataError(
                f"the head {_name(part)!r} has {part.outputs.shape[1]:,} outputs that are not linear in its inputs: at most "
                f"{MANY_OUTPUTS:,} rows of them can be measured, on one process; pass num_samples="
            )

    def finish(self) -> Gram:
        """The filled Gram.

        Raises:
            DataError: no rows.
        """
        if self._wide:
            narrow = dual(torch.cat([part.outputs for part in self._wide]), centred=False, exact=True)
            for part, outputs in zip(self._wide, narrow.split([len(part.outputs) for part in self._wide]), strict=True):
                self._update(part, outputs)
            self._wide = []
        if self.gram is None:
            raise DataError("no samples")
        return self.gram

    def reduce(self) -> None:
        """Becomes the sum over all processes."""
        if self.gram is not None:
            self.gram.reduce(self._processes)
        every = self._processes.gather((self.left_out, self._integers))
        self.left_out = {name: sum(other.get(name, 0) for other, _ in every) for other, _ in every for name in other}
        self._integers = any(integers for _, integers in every)

    def settle_targets(self) -> None:
        """Integer targets of one output are labels where all of them were 0 or 1: a column for each of the two classes."""
        if self._integers and self.gram is not None and "targets" in self.gram.widths:
            value, square = self.gram.mean("targets"), self.gram.block("targets", "targets")
            if abs(float(square.squeeze() - value.squeeze())) <= 1e-9 * max(float(square.squeeze()), 1.0):
                self.gram.map_targets(torch.tensor([[-1.0], [1.0]]), torch.tensor([1.0, 0.0]))


class LayerSums:
    """The features of each layer with the head's outputs.

    Attributes:
        grams: layer -> its Gram, one for each tensor.
        plan: which layers are measured, as the first batch has shown; None before it.
    """

    def __init__(self, layers: Layers, one_pass: OnePass) -> None:
        self._layers, self._pass = layers, one_pass
        self.grams: dict[str, NarrowGram] = {}
        self.plan: LayerPlan | None = None

    def add(self, part: Part) -> None:
        """Adds a part."""
        if part.layers is None:
            raise DataError("the layers were not recorded")
        model = self._pass.model
        if self.plan is None:
            again = lambda: part.batch.feed(model, self._pass.forward)  # noqa: E731
            self.plan = planned(self._layers, part.layers, part.rows, part.batch, again)
        processes, per_position = self._pass.processes, part.rows.positions > 1
        found = layer_rows(self.plan, part.layers, part.rows, part.batch, model, _name(part))
        for name, (features, owner) in found.items():
            retain = RETAINED_ROWS if len(features) == len(part.rows.features) and not per_position else 0
            if name not in self.grams:
                gram = part.empty_gram(processes, retain=retain)
                self.grams[name] = NarrowGram(gram, hold=not processes.together)
            weights = None if part.weights is None else part.weights[owner.to(part.weights.device)]
            self.grams[name].update(features, part.outputs[owner], weights)

    def finish(self) -> list[Gram]:
        """The filled Grams."""
        return [gram.finish() for gram in self.grams.values()]


class StartSums:
    """The head's features now and at the start of training."""

    def __init__(self, start: nn.Module, one_pass: OnePass) -> None:
        self._start, self._pass = unwrapped(start), one_pass
        self._known: Known | None = None
        self.pair: FeaturePair | None = None

    def add(self, part: Part) -> None:
        """Adds a part, for which the start's network runs on the same batch."""
        head = None if part.known.head is None else part.known.head.name
        one = OnePass(
            self._start, [part.batch.item], self._pass.device, Processes(False), forward=self._pass.forward,
            targets=self._pass.targets, reader=self._pass.reader,
            head=self._known or (self._start if part.known.head and part.known.head.module is self._pass.model else head),
        )  # fmt: skip
        for then in one.parts("start"):
            self._known = then.known
            rows = then.rows.first(part.rows.samples)
            self.pair = self.pair or FeaturePair("features", "features of the start")
            self.pair.update(part.rows.features, rows.features.to(part.rows.features.dtype), part.weights)

    def alignment(self) -> float:
        """S_init."""
        if self.pair is None:
            raise DataError("no samples")
        return float(kernel_alignment(self.pair))


@dataclass
class Agreement:
    """Whether processes measure the same thing, and whether all were given the very same data."""

    prints: list[float] = field(default_factory=list)

    def add(self, part: Part) -> None:
        """Notes a batch by some thousand numbers of its inputs."""
        some = (x.flatten()[:: max(1, x.numel() // 4096)] for x in tensors_in(part.batch.inputs) if x.layout == torch.strided)
        self.prints.append(sum(float(x.sum(dtype=torch.float64)) for x in some) + _first(part.batch))

    def same_data(self, processes: Processes, *what: Any) -> bool:
        """Whether all processes saw the same batches.

        Raises:
            DataError: on every process, where ``what`` they measure differs.
        """
        if not processes.together:
            return False
        seen = processes.gather((what, self.prints))
        for theirs, _ in seen:
            if theirs != seen[0][0]:
                raise DataError(f"the processes measure different things: head {seen[0][0][0]!r} and head {theirs[0]!r}")
        return bool(self.prints) and all(prints == seen[0][1] for _, prints in seen)


def _first(batch: Batch) -> float:
    return float(sum(x.shape[0] if x.ndim else 1 for x in tensors_in(batch.inputs)))


def _name(part: Part) -> str:
    return part.known.head.name if part.known.head is not None else ""
