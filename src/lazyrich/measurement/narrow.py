"""Features and outputs too wide for a Gram of their own are brought to fewer columns with the same inner products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .._support.processes import Processes
from ..errors import DataError
from ..functional.eigen import eigh
from ..functional.sketch import SKETCH_BLOCKS, SKETCH_BUCKETS, Sketch
from ..gram import Gram, update_together
from ..model.calls import MANY_OUTPUTS
from .one_pass import Part, head_name

WIDTH_LIMIT = 4096  # features up to here are measured as they are
PART_COLUMNS = 4096  # columns that are copied to float64 at a time
HELD_BYTES = 2**30  # rows of a wide layer are held up to here, then sketched


class NarrowGram:
    """Features and outputs in, a Gram of at most ``WIDTH_LIMIT`` features out.

    Features wider than that are held, and at the end replaced by as many as there are samples with the same inner products
    (exact, the n × n dual); if they become too many to hold, by a sketch.

    Args:
        gram: an empty Gram to fill.
        start: an empty Gram for features of the same width at the start, which retains the same rows; or None.
        hold: whether rows may be held; processes that share the data must sketch at once.
        seed: of the sketch.
    """

    def __init__(self, gram: Gram, start: Gram | None = None, *, hold: bool = True, seed: int = 0) -> None:
        self.gram, self.start = gram, start
        if start is not None:
            gram.fill_together(start)
        self.width = 0
        self.reduction: str | None = None
        self.sketched = False
        self._hold = hold
        self._seed = seed
        self._sketch: Sketch | None = None
        self._held: list[tuple[list[Tensor], Tensor, Tensor | None, Tensor | None]] = []

    @property
    def grams(self) -> list[Gram]:
        """That of the features, and where there is one that of the start."""
        return [self.gram] if self.start is None else [self.gram, self.start]

    def update(
        self, features: Tensor, outputs: Tensor, weights: Tensor | None, strata: Tensor | None, start: Tensor | None = None
    ) -> None:
        """Adds a batch; ``start`` are its features at the start."""
        if self.width and features.shape[1] != self.width:
            raise DataError(
                f"the layer has {features.shape[1]} features in this batch and {self.width} before it; "
                'inputs of unlike size need pooling="average" or "positions"'
            )
        self.width, blocks = features.shape[1], [features] if start is None else [features, start]
        if self.width <= WIDTH_LIMIT:
            self._add(blocks, outputs, weights, strata)
        elif self._sketch is None:
            self._held.append((blocks, outputs, weights, strata))
            rows = sum(len(x) for _, x, *_ in self._held)
            if not self._hold or rows > WIDTH_LIMIT or rows * self.width * features.element_size() > HELD_BYTES:
                self._begin_sketch()
        else:
            self._add_sketched(self._sketch, blocks, outputs, weights, strata)

    def _add(self, blocks: list[Tensor], outputs: Tensor, weights: Tensor | None, strata: Tensor | None) -> None:
        update_together(self.grams, [{"features": x, "outputs": outputs} for x in blocks], weights, strata)

    def _begin_sketch(self) -> None:
        self._sketch = Sketch(self.width, seed=self._seed)
        self.sketched = True
        self.reduction = f"random projection to {SKETCH_BLOCKS * SKETCH_BUCKETS:,} of {self.width:,}"
        for held in self._held:
            self._add_sketched(self._sketch, *held)
        self._held = []

    def _add_sketched(
        self, sketch: Sketch, blocks: list[Tensor], outputs: Tensor, weights: Tensor | None, strata: Tensor | None
    ) -> None:
        self._add([sketch(x.float() if x.element_size() < 4 else x) for x in blocks], outputs, weights, strata)

    def finish(self) -> list[Gram]:
        """The filled Grams."""
        if self._held:
            blocks, outputs, weights, strata = zip(*self._held, strict=True)
            self._held, f = [], torch.cat(outputs)
            narrow = [dual(torch.cat(every)) for every in zip(*blocks, strict=True)]
            self._add(narrow, f, _joined(weights), _joined(strata))
            self.reduction = f"exact, by the {len(f):,} × {len(f):,} kernel in place of {self.width:,} features"
        return self.grams


def narrowed(parts: Iterable[Part], processes: Processes) -> Iterator[Part]:
    """The parts of a pass; very many outputs that do not follow from the features are replaced by as many columns as rows.

    Such parts are held, and come at the end.

    Raises:
        DataError: too many rows to hold, or processes that share them.
    """
    held: list[Part] = []
    for part in parts:
        if part.outputs.shape[1] <= MANY_OUTPUTS:
            yield part
            continue
        held.append(part)
        if sum(len(one.outputs) for one in held) > MANY_OUTPUTS or processes.together:
            raise DataError(
                f"the head {head_name(part)!r} has {part.outputs.shape[1]:,} outputs that are not linear in its inputs: at most "
                f"{MANY_OUTPUTS:,} rows of them can be measured, on one process; pass num_samples="
            )
    if held:
        outputs = dual(torch.cat([part.outputs for part in held]), centred=False, exact=True)
        for part, few in zip(held, outputs.split([len(part.outputs) for part in held]), strict=True):
            yield replace(part, outputs=few, known=replace(part.known, output_dtype=part.outputs.dtype))


def dual(x: Tensor, *, centred: bool = True, exact: bool = False) -> Tensor:
    """(n, p) -> (n, n) with the inner products of x, about its mean or about the origin; ``exact``: products in float64."""
    x = x.float() if x.element_size() < 4 else x
    if not bool(torch.isfinite(x).all()):
        return x[:, : len(x)].fill_(torch.nan)  # the Gram names the error
    about = x - x.mean(0) if centred else x.clone()
    scale = about.abs().amax().clamp_min(torch.finfo(x.dtype).tiny)
    about /= scale
    products = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    for part in about.split(PART_COLUMNS if exact else x.shape[1], 1):
        part = part.double() if exact else part
        products += part @ part.T
    values, vectors = eigh(products)
    return (vectors * values.clamp_min(0).sqrt()).to(x.dtype) * scale


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None
