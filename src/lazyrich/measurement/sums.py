"""What accumulates in a pass: each takes parts, one batch after the other, and reduces itself over the processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .._support.nested import tensors_in
from .._support.processes import Processes
from ..errors import DataError
from ..gram import RETAINED_ROWS, Gram, update_together
from ..model.batches import Batch
from ..model.layers import LayerPlan, Layers, layer_rows, planned
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

    def add(self, part: Part, start: tuple[Gram, Tensor] | None = None) -> None:
        """Adds a part; ``start`` are the Gram of the start and its features for this part, which retains the same rows."""
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
            if start is not None:
                self.gram.fill_together(start[0])
        own = {"features": part.rows.features, "outputs": part.outputs, "targets": part.targets}
        if start is None:
            self.gram.update(**own, weights=part.weights, strata=part.strata, numbers=part.numbers)
        else:
            other = {"features": start[1].to(part.rows.features.dtype), "outputs": part.outputs}
            update_together([self.gram, start[0]], [own, other], part.weights, part.strata, part.numbers)

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
        features = layer_rows(self.plan, part.layers, part.rows, part.batch, model, head_name(part))
        fill_layers(self.grams, features, part, self._pass.processes)

    def finish(self) -> list[Gram]:
        """The filled Grams."""
        return [gram.finish() for gram in self.grams.values()]


def fill_layers(
    grams: dict[str, NarrowGram], features: dict[str, tuple[Tensor, Tensor]], part: Part, processes: Processes
) -> None:
    """Adds a part's features of each layer, with the row of the head that each belongs to, and the head's outputs."""
    for name, (rows, owner) in features.items():
        retain = RETAINED_ROWS if len(rows) == len(part.rows.features) and part.rows.positions == 1 else 0
        if name not in grams:
            gram = part.empty_gram(retain=retain)
            grams[name] = NarrowGram(gram, hold=not processes.together)
        weights, strata = (None if x is None else x[owner.to(x.device)] for x in (part.weights, part.strata))
        grams[name].update(rows, part.outputs[owner], weights, strata)


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
