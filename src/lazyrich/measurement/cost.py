"""What a measurement costs, before it is made: operations, memory, and what processes send each other.

The counts follow the code and stand here alone. The tests hold them against PyTorch's own counter of operations, the tensors of a
filled Gram, the allocator, and what processes exchange; ``benchmarks/speed/cost.py`` against the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

import torch

from ..functional.eigen import FULL_SPECTRUM, LEADING
from ..functional.jackknife import _AT_ONCE, _MOST_WORK, _PAIR_TOLERANCE, PAIR_ROWS, _resolvents
from ..functional.low_rank import _POWER, BAND
from ..functional.sketch import SKETCH_BLOCKS, SKETCH_BUCKETS
from ..gram import RETAINED_ROWS, Gram
from ..gram.moments import _CPU_PANEL
from ..gram.state import BLOCK_ROWS
from ..model.calls import MANY_OUTPUTS
from .narrow import HELD_BYTES, WIDTH_LIMIT

# Decompositions of order k in units in which eigenvalues with eigenvectors of a symmetric matrix are 9k³ (Golub & Van Loan, 8.3);
# singular vectors by the time that they take beside that.
EIGENVECTORS, SINGULAR = 9, 18

# How often `measure` decomposes the features: their second moment and their covariance. Of very many, steps to the leading part.
HEAD_EIGENVECTORS, LEADING_STEPS = 2, 30
# Most arrays that stand at once: of p², of k² for k outputs, of pairs of rows, of rows · outputs · resolvents.
FEATURE_ARRAYS, SPAN_ARRAYS, PAIR_ARRAYS, RESOLVENT_ARRAYS = 6, 12, 6, 9
# How often a number is written elementwise. In the pass: features, outputs and targets; p², once a block of samples.
ROW_FEATURES, ROW_OTHERS, BLOCK_FEATURES = 9, 10, 1
# In each estimate with its band: p², pairs of rows, pairs · resolvents, rows · outputs · resolvents; k², each time a span is cut.
READ_FEATURES, READ_PAIRS, READ_PAIR_RESOLVENTS, READ_RESOLVENTS, READ_SPANS = 1, 6, 5, 72, 43
# Once for the estimates: p², retained features, pairs. In the rest: p².
SAMPLE_FEATURES, SAMPLE_ROWS, SAMPLE_PAIRS, READ_REST = 5, 6, 5, 30
_SPREAD = 10.0  # largest over smallest singular value of the outputs: the length of a quadrature hangs on its logarithm


@dataclass(frozen=True)
class MeasurementCost:
    """What :func:`lazyrich.measure` costs on each process, beside the model's own forward passes.

    A multiplication and an addition count as two operations.

    Attributes:
        samples: rows that each process takes.
        filling: operations of the pass in the precision of the activations: products of features with features.
        filling_double: operations of the pass in float64: what involves outputs or targets.
        reading: operations of matrix products when the pass is over, in float64 but for the jackknife's sample.
        decompositions: eigenvalues and singular values in float64, in units in which one ``torch.linalg.eigh`` of order k is 9k³.
        elementwise: numbers that everything else writes: scaling, centring, squaring, summing. On a small network it is most.
        state_bytes: the sums and the retained rows: what stays in memory over the pass, and what saving it takes.
        working_bytes: the most that stands beside the state at a time.
        sent_bytes: what each process sends to the others, in rings.
    """

    samples: int
    filling: int
    filling_double: int
    reading: int
    decompositions: int
    elementwise: int
    state_bytes: int
    working_bytes: int
    sent_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The state and the most that stands beside it."""
        return self.state_bytes + self.working_bytes

    def seconds(
        self,
        product_rate: float,
        double_rate: float | None = None,
        decomposition_rate: float | None = None,
        elementwise_rate: float | None = None,
    ) -> float:
        """What each count takes at the rates of a machine, one after the other.

        Args:
            product_rate: operations a second of a large matrix product in the precision of the activations.
            double_rate: the same in float64; by default half of that.
            decomposition_rate: 9k³ over the seconds of one ``torch.linalg.eigh`` of order k; by default ``double_rate``.
            elementwise_rate: numbers a second of an array in float64 times a number; by default a hundredth of ``product_rate``.
        """
        double_rate = double_rate or product_rate / 2
        in_double = (self.filling_double + self.reading) / double_rate + self.decompositions / (decomposition_rate or double_rate)
        return self.filling / product_rate + in_double + self.elementwise / (elementwise_rate or product_rate / 100)

    def __str__(self) -> str:
        rows = {
            f"pass over {self.samples:,} samples": f"{_scaled(self.filling)}op, and {_scaled(self.filling_double)}op in float64",
            "reading": f"{_scaled(self.reading)}op of products, {_scaled(self.decompositions)}op of decompositions, in float64",
            "elementwise": f"{_scaled(self.elementwise)}numbers",
            "memory": f"{_scaled(self.state_bytes)}B kept, at most {_scaled(self.peak_bytes)}B",
            "sent by each process": f"{_scaled(self.sent_bytes)}B" if self.sent_bytes else "",
        }
        return "\n".join(f"{name:<31}{text}" for name, text in rows.items() if text)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def measurement_cost(
    samples: int,
    features: int,
    outputs: int,
    *,
    targets: int | None = None,
    layers: Sequence[int] = (),
    processes: int = 1,
    positions: bool = False,
    double: bool = False,
) -> MeasurementCost:
    """What ``measure`` will cost on each process, beside the model's own forward passes.

    With p features, C outputs, T columns of targets and s = C + T, the pass takes p(p + 128) operations a sample in the
    precision of the activations, for p a multiple of 128, and 2s(p + s) + 4p in float64; what is kept is 8(p² + ps + s²) bytes
    and a few thousand rows. Memory does not grow with the number of samples, nor does anything after the pass.

    Args:
        samples: n, rows over all processes.
        features: p, width of what the last linear layer sees.
        outputs: C. More than 4,096 are brought to min(C, p + 1) columns.
        targets: T, columns of the targets; by default class labels, one for each output, which are left out where there are
            more than 4,096. 0 for none.
        layers: widths of the other layers that are measured, each with one row a sample.
        processes: how many share the samples.
        positions: whether rows are places of an input, as tokens of a text: no rows are kept, and no error is found.
        double: whether the activations are float64.

    Raises:
        ValueError: a number under its least.

    Example:
        Twice the samples are twice the pass, and nothing else:

        >>> short, long = measurement_cost(10_000, 512, 10), measurement_cost(20_000, 512, 10)
        >>> long.filling == 2 * short.filling == 20_000 * 512 * (512 + 128)
        True
        >>> short.reading == long.reading, short.peak_bytes == long.peak_bytes
        (True, True)
    """
    given = {"samples": (samples, 2), "features": (features, 1), "outputs": (outputs, 1), "processes": (processes, 1)}
    given |= {"targets": (targets or 0, 0), "layers": (min(layers, default=1), 1)}
    for name, (value, least) in given.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    rows, size = ceil(samples / processes), 8 if double else 4
    many = outputs > MANY_OUTPUTS
    columns = min(outputs, features + 1) if many else outputs
    if targets is None:
        targets = 0 if many else max(outputs, 2)
    head = _Part(rows, samples, features, columns, targets, size, retained=0 if positions else RETAINED_ROWS)
    parts = [head, *(_layer(head, width, alone=processes == 1) for width in layers)]
    narrowing = 2 * outputs * (features + 1) ** 2 + 2 * rows * features * columns if many else 0  # ŴᵀŴ, and ŴΦ̂ for every row
    kept, sums = sum(part.kept_bytes for part in parts), sum(part.sum_bytes for part in parts)
    working = max(max(part.filling_bytes, part.reading_bytes) for part in parts)
    if processes > 1:  # the retained rows of all come as bytes and as tensors, and the sums are moved to one pilot
        working = max(working, *(2 * processes * part.kept_bytes + part.moved_bytes for part in parts))
    return MeasurementCost(
        samples=rows,
        filling=sum(part.filling for part in parts),
        filling_double=narrowing + sum(part.filling_double for part in parts),
        reading=sum(part.reading for part in parts),
        elementwise=sum(part.elementwise for part in parts),
        decompositions=(EIGENVECTORS * (features + 1) ** 3 if many else 0) + sum(part.decompositions for part in parts),
        state_bytes=sum(part.state_bytes for part in parts),
        working_bytes=working + sum(part.held_bytes for part in parts),
        sent_bytes=(processes - 1) * kept + 2 * (processes - 1) * sums // processes,
    )


@dataclass(frozen=True)
class _Part:
    """One Gram: of the head, or of a layer."""

    rows: int
    samples: int
    features: int
    outputs: int
    targets: int
    size: int  # bytes of an activation
    retained: int
    kind: str = "head"
    reduction: int = 0  # operations that bring the features to this width
    reduction_eigenvectors: int = 0  # the order of a matrix that it decomposes
    held_bytes: int = 0  # rows of a wide layer

    @property
    def _small(self) -> int:
        return self.outputs + self.targets

    # --- filling -------------------------------------------------------------------------------------------------

    @property
    def filling(self) -> int:
        p = self.features
        triangle = sum(2 * min(_CPU_PANEL, p - start) * (p - start) for start in range(0, p, _CPU_PANEL))
        return self.rows * triangle + self.reduction

    @property
    def filling_double(self) -> int:
        p, s = self.features, self._small
        return self.rows * (2 * p * (s + 2) + 2 * s * s)

    @property
    def elementwise(self) -> int:
        p, k = self.features, self.outputs
        found = self.rows * (ROW_FEATURES * p + ROW_OTHERS * self._small) + ceil(self.rows / BLOCK_ROWS) * BLOCK_FEATURES * p * p
        found += (READ_REST * p * p if self.kind == "head" else 0) + READ_SPANS * self._spans * k * k
        if self._powers:
            m = min(self.retained, self.samples)
            found += SAMPLE_FEATURES * p * p + SAMPLE_ROWS * m * p + SAMPLE_PAIRS * min(m, PAIR_ROWS) ** 2
        for power in self._powers:
            m, nodes, pair_nodes = self._jackknife_rows(power)
            pairs = min(m, PAIR_ROWS) ** 2
            found += READ_FEATURES * p * p + READ_RESOLVENTS * m * k * nodes
            found += (READ_PAIRS + READ_PAIR_RESOLVENTS * pair_nodes) * pairs
        return found

    @property
    def sum_bytes(self) -> int:
        p, s = self.features, self._small
        return 8 * ((p + s) + p * p + p * s + s * s + 1 + p + (p + 1))

    @property
    def _row_bytes(self) -> int:
        return self.size * self.features + 8 * self._small + 8  # and its weight

    @property
    def kept_bytes(self) -> int:
        return self.retained * (self._row_bytes + 8)  # and its number

    @property
    def state_bytes(self) -> int:
        pilot = 8 * (self.features + self._small)
        empty = Gram(retain=0).tensors()
        counts = empty["counts"].nbytes + empty["first_bad_batch"].nbytes
        return counts + self.sum_bytes + pilot + BLOCK_ROWS * self._row_bytes + self.kept_bytes

    @property
    def filling_bytes(self) -> int:
        p, s = self.features, self._small
        return BLOCK_ROWS * ((self.size + 8) * p + 16 * s) + _CPU_PANEL * (self.size + 8) * p

    @property
    def moved_bytes(self) -> int:
        return 5 * 8 * self.features**2

    # --- reading -------------------------------------------------------------------------------------------------

    @property
    def reading(self) -> int:
        p, k, t = self.features, self.outputs, self.targets
        loadings, basis = 2 * p * k * k, 4 * k**3
        measured = self._spans * (loadings + basis) + self._sampling + sum(self._jackknife(power) for power in self._powers)
        if self.kind != "head":
            return measured
        held = 2 * p * p * (2 * k + t) + 2 * p * t * t + 4 * t**3  # by each eigenfunction; contributions
        collapse = 4 * p * p * t + 2 * p * t * t
        leading = HEAD_EIGENVECTORS * LEADING_STEPS * 2 * p * p * (3 * LEADING // 2) if p > FULL_SPECTRUM else 0
        return measured + held + collapse + leading

    @property
    def decompositions(self) -> int:
        p, k, t = self.features, self.outputs, self.targets
        found = (EIGENVECTORS + SINGULAR) * k**3 + EIGENVECTORS * self.reduction_eigenvectors**3
        if self.kind == "head":
            found += HEAD_EIGENVECTORS * EIGENVECTORS * p**3 if p <= FULL_SPECTRUM else 0
            found += (EIGENVECTORS + SINGULAR) * t**3 + SINGULAR * p * t * min(p, t)
        return found

    @property
    def reading_bytes(self) -> int:
        p, k = self.features, self.outputs
        size = self.size / 8  # the sample is in the precision of the activations
        sampled = size * min(self.retained, self.samples, PAIR_ROWS) ** 2
        arrays = [FEATURE_ARRAYS * p * p + 2 * sampled, SPAN_ARRAYS * k * k]
        for power in self._powers:
            m, nodes, _ = self._jackknife_rows(power)
            held = p * p + size * m * p
            arrays += [held + PAIR_ARRAYS * sampled, held + 2 * sampled + RESOLVENT_ARRAYS * min(m * k * nodes, _AT_ONCE)]
        return int(8 * max(arrays))

    @property
    def _powers(self) -> tuple[float, ...]:
        """References with error bars."""
        return {"head": tuple(_POWER.values()), "layer": (1.0,), "sketch": ()}[self.kind]

    @property
    def _spans(self) -> int:
        """How often a span of the outputs is cut: for every error bar and its band, the curves, the other references."""
        return len(self._powers) * (1 + len(BAND)) + {"head": 2, "layer": 3, "sketch": 4}[self.kind]

    def _jackknife_rows(self, power: float) -> tuple[int, int, int]:
        """Rows that are looked at, and resolvents of the two quadratures."""
        like = torch.zeros((), dtype=torch.float64)
        nodes, pair_nodes = (len(_resolvents(power, _SPREAD**-2, 1.0, like, error)[0]) for error in (1e-9, _PAIR_TOLERANCE))
        return min(self.retained, self.samples, max(128, _MOST_WORK // (self.outputs * max(nodes, 1)))), nodes, pair_nodes

    @property
    def _sampling(self) -> int:
        """The sample that the jackknife of every reference looks at, and its pairs."""
        if not self._powers:
            return 0
        p, m = self.features, min(self.retained, self.samples)
        return 2 * m * p * (p + self.outputs) + 4 * min(m, PAIR_ROWS) ** 2 * p

    def _jackknife(self, power: float) -> int:
        p, k = self.features, self.outputs
        m, nodes, pair_nodes = self._jackknife_rows(power)
        if m == 0:
            return 0
        pairs = min(m, PAIR_ROWS)
        rows = 2 * (min(self.retained, self.samples) + 2 * m + 2 * p + 3 * nodes * m) * k * k
        return rows + pairs * k * (4 * pairs + pair_nodes * (8 * pairs + 4 * k))


def _layer(head: _Part, width: int, alone: bool) -> _Part:
    """A layer; one that is too wide is held, and then brought to its dual or a sketch."""
    layer = replace(head, features=width, targets=0, kind="layer")
    if width <= WIDTH_LIMIT:
        return layer
    n, row = head.rows, width * head.size
    if alone and n <= WIDTH_LIMIT and n * row <= HELD_BYTES:
        # held, joined and centred
        return replace(layer, features=n, reduction=2 * n * n * width, reduction_eigenvectors=n, held_bytes=3 * n * row)
    return replace(
        layer,
        features=SKETCH_BLOCKS * SKETCH_BUCKETS,
        kind="sketch",
        reduction=2 * n * width * SKETCH_BLOCKS,
        held_bytes=min(WIDTH_LIMIT * row, HELD_BYTES) if alone else 0,
    )


def _scaled(count: float) -> str:
    """A number with a decimal prefix and a space: 5242880000 is "5.24 G"."""
    prefixes = iter("kMGTPE")
    prefix = ""
    while count >= 999.5:
        count, prefix = count / 1000, next(prefixes)
    return f"{count:.3g} {prefix}"
