"""What accumulates in a pass: each takes parts, one batch after the other, and reduces itself over the processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .._support.nested import tensors_in
from .._support.processes import Processes
from ..errors import DataError
from ..gram import RETAINED_ROWS, Gram, update_together
from ..gram.accumulator import Accumulator
from ..model.batches import Batch
from ..model.layers import LayerFeatures, LayerPlan, Layers, layer_rows, planned
from .narrow import NarrowGram
from .one_pass import Known, OnePass, Part, head_name


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

    def add(self, part: Part, *others: tuple[Accumulator, Mapping[str, Tensor | None]]) -> None:
        """Adds a part; ``others`` are further sums with what they take of it by block, which retain the same rows."""
        self.known = part.known
        self.per_position = self.per_position or part.rows.positions > 1
        for reason, count in part.rows.left_out.items():
            self.left_out[reason] = self.left_out.get(reason, 0) + count
        if part.note is not None and part.note not in self.notes:
            self.notes.append(part.note)
        self._integers = self._integers or part.integer_targets
        retain = 0 if self.per_position else RETAINED_ROWS
        if self.gram is None:
            self.gram = part.empty_gram(retain=retain)
            self.gram.fill_together(*(sums for sums, _ in others))
        own = {"features": part.rows.features, "outputs": part.outputs, "targets": part.targets}
        grams, blocks = [self.gram, *(sums for sums, _ in others)], [own, *(batch for _, batch in others)]
        update_together(grams, blocks, part.weights, part.strata, part.numbers)

    def finish(self) -> Gram:
        """The filled Gram.

        Raises:
            DataError: no rows.
        """
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
    """The features of each layer, now and at the start, with the head's outputs.

    Attributes:
        grams: layer -> its Grams, for each tensor.
        plan: which layers are measured, as the first batch has shown; None before it.
    """

    def __init__(self, layers: Layers, one_pass: OnePass) -> None:
        self._layers, self._pass = layers, one_pass
        self.grams: dict[str, NarrowGram] = {}
        self.plan: LayerPlan | None = None

    def features(self, part: Part) -> LayerFeatures:
        """What each layer is given in a part, by the plan that the first part has shown."""
        if part.layers is None:
            raise DataError("the layers were not recorded")
        model = self._pass.model
        if self.plan is None:
            again = lambda: part.batch.feed(model, self._pass.forward)  # noqa: E731
            self.plan = planned(self._layers, part.layers, part.rows, part.batch, again)
        return layer_rows(self.plan, part.layers, part.rows, part.batch, model, head_name(part))

    def add(self, part: Part, features: LayerFeatures, start: LayerFeatures) -> None:
        """Adds a part's features of each layer, now and at the start; there are none of the start where it is not known."""
        for name, (rows, owner) in features.items():
            then = start[name][0] if name in start else None
            if name not in self.grams:
                retain = RETAINED_ROWS if len(rows) == len(part.rows.features) and part.rows.positions == 1 else 0
                gram, of_start = part.empty_gram(retain=retain), None if then is None else part.empty_gram(retain=retain)
                self.grams[name] = NarrowGram(gram, of_start, hold=not self._pass.processes.together)
            if then is None and self.grams[name].start is not None:  # an empty batch, which other processes wait for
                then = rows[:0]
            weights, strata = (None if x is None else x[owner.to(x.device)] for x in (part.weights, part.strata))
            self.grams[name].update(rows, part.outputs[owner], weights, strata, then)

    def finish(self) -> list[Gram]:
        """The filled Grams."""
        return [gram for layer in self.grams.values() for gram in layer.finish()]


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
