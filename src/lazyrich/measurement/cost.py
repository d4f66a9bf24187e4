"""What a measurement costs before it is made: does it fit in memory, and how long will it take?

Only the leading terms are counted, with rounded constants. The tests compare operations, numbers and bytes with counts: they
agree within a factor of 1.5. So do the measured time and memory of ``benchmarks/speed/cost.py``, except that the shortest
measurements take about 0.1 s longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from .._support.processes import Processes
from ..errors import DataError
from ..functional.eigen import FULL_SPECTRUM, LEADING
from ..functional.retained_features import PAIR_ROWS
from ..functional.sketch import SKETCH_BLOCKS, SKETCH_BUCKETS
from ..gram import RETAINED_ROWS
from ..gram.state import BLOCK_ROWS
from ..model.batches import first_dimension, is_one_shot, num_batches
from ..model.calls import MANY_OUTPUTS
from ..model.layers import Layers, Pooling
from ..model.linear import unwrapped
from ..model.undisturbed import undisturbed
from .narrow import HELD_BYTES, WIDTH_LIMIT
from .one_pass import OnePass
from .sums import LayerSums


@dataclass(frozen=True)
class MeasurementCost:
    """What :func:`lazyrich.measure` costs on each process, in addition to the model's own forward passes.

    A multiplication with an addition is two operations. Decompositions are counted in units in which ``torch.linalg.eigh`` of
    order k takes 9k³ operations.

    Attributes:
        samples: rows that each process measures.
        filling: operations of the pass in the precision of the activations: products of features with features.
        filling_double: operations of the pass in float64: products with outputs and targets.
        reading: operations of the matrix products after the pass, in float64.
        decompositions: operations of eigenvalues and singular values, in float64.
        elementwise: numbers that are copied, centred, scaled or squared.
        state_bytes: the sums and the retained rows, which stay in memory during the pass.
        working_bytes: the largest temporary arrays.
        sent_bytes: what each process sends to the others.
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

    @classmethod
    def of(
        cls,
        model: nn.Module,
        data: Any,
        *,
        head: nn.Module | str | None = None,
        layers: str | Sequence[str] | None = None,
        pooling: Pooling = "average",
        num_samples: int | None = None,
        processes: int = 1,
    ) -> MeasurementCost:
        """The cost of ``measure(model, data, …)``; the model runs on one batch, which gives the sizes.

        Args:
            model, data, head, layers, pooling, num_samples: as for :func:`lazyrich.measure`. All batches are taken to be as
                large as the first.
            processes: number of processes that share the samples.

        Raises:
            DataError: the data can be used only once, are empty, or have no length while ``num_samples`` is not given.
            HeadError: no head, or more than one; no such layer.

        Example:
            >>> model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))
            >>> data = torch.randn(500, 8), torch.arange(500) % 3
            >>> MeasurementCost.of(model, data, layers=["0"]) == measurement_cost(500, 64, 3, layers=[8])
            True
        """
        if is_one_shot(data):
            raise DataError("data is an iterator that can be used only once: pass a DataLoader or a list")
        count = num_batches(data)
        if count is None and num_samples is None:
            raise DataError("data has no length: pass num_samples=")
        model = unwrapped(model)
        chosen = None if layers is None else Layers(model, layers, pooling)
        with undisturbed(model, data, None) as device:
            one_pass = OnePass(model, data, device, Processes(False), head, num_samples=num_samples)
            first = next(iter(one_pass.parts("sizes", chosen)), None)
            if first is None:
                raise DataError("data gave no samples: pass a DataLoader, a list of batches or tensors")
            inner = LayerSums(chosen, one_pass) if chosen is not None else None
            if inner is not None:
                inner.add(first, inner.features(first), {})
        rows = first.rows
        available = first_dimension(data) if isinstance(data, (Tensor, tuple)) else (count or 0) * rows.batch_samples
        samples = min(n for n in (available, num_samples) if n)
        return measurement_cost(
            ceil(samples * len(rows.features) / rows.batch_samples),
            rows.features.shape[1],
            rows.num_outputs,
            targets=0 if first.targets is None else first.targets.shape[1],
            layers=[] if inner is None else [gram.width for gram in inner.grams.values()],
            processes=processes,
            positions=rows.positions > 1,
            double=rows.features.dtype == torch.float64,
        )

    @property
    def peak_bytes(self) -> int:
        """The most memory at any time: the state and the largest temporary arrays."""
        return self.state_bytes + self.working_bytes

    def seconds(
        self,
        product_rate: float | None = None,
        double_rate: float | None = None,
        decomposition_rate: float | None = None,
        elementwise_rate: float | None = None,
    ) -> float:
        """How long it takes at the rates of a machine: each count over its rate, added up.

        Args:
            product_rate: operations a second of a large matrix product in the precision of the activations. By default, all
                rates are measured on this CPU, which takes about half a second.
            double_rate: the same in float64; by default half of that.
            decomposition_rate: 9k³ over the seconds of one ``torch.linalg.eigh`` of order k; by default ``double_rate``.
            elementwise_rate: numbers a second of a float64 array times a number; by default a hundredth of ``product_rate``.
        """
        if product_rate is None:
            return self.seconds(*machine_rates())
        double_rate = double_rate or product_rate / 2
        in_double = (self.filling_double + self.reading) / double_rate + self.decompositions / (decomposition_rate or double_rate)
        return self.filling / product_rate + in_double + self.elementwise / (elementwise_rate or product_rate / 100)

    def __str__(self) -> str:
        rows = {
            f"pass over {self.samples:,} samples": f"{_scaled(self.filling)}op, and {_scaled(self.filling_double)}op in float64",
            "after the pass": f"{_scaled(self.reading)}op of products, {_scaled(self.decompositions)}op of decompositions",
            "elementwise": f"{_scaled(self.elementwise)}numbers",
            "memory": f"{_scaled(self.state_bytes)}B during the pass, {_scaled(self.peak_bytes)}B at the peak",
            "sent by each process": f"{_scaled(self.sent_bytes)}B" if self.sent_bytes else "",
        }
        return "\n".join(f"{name:<31}{text}" for name, text in rows.items() if text)


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
    """Estimate what ``measure`` will cost on each process, from sizes; :meth:`MeasurementCost.of` takes a model and data.

    With p features, C outputs, T target columns and s = C + T, the pass takes p(p + 128) operations a sample in the precision
    of the activations (2p² for p under 128) and 2s(p + s) in float64. It keeps 8(p² + ps + s²) bytes of sums and 2,048 rows.
    Neither memory nor the time after the pass grows with the number of samples.

    Args:
        samples: n, rows over all processes.
        features: p, inputs of the last linear layer.
        outputs: C. More than 4,096 are reduced to min(C, p + 1) columns.
        targets: T, columns of the targets, 0 for none; by default class labels, one column for each output (none for more than
            4,096 outputs).
        layers: widths of the other layers that are measured, each with one row a sample.
        processes: number of processes that share the samples.
        positions: whether rows are positions of an input, such as tokens: no rows are retained then, and there are no error bars.
        double: whether the activations are float64.

    Raises:
        ValueError: a number that is too small.

    Example:
        Twice the samples are twice the pass, and nothing else:

        >>> short, long = measurement_cost(10_000, 512, 10), measurement_cost(20_000, 512, 10)
        >>> long.filling == 2 * short.filling == 20_000 * 512 * (512 + 128)
        True
        >>> short.reading == long.reading, short.peak_bytes == long.peak_bytes
        (True, True)
    """
    sizes = {"samples": (samples, 2), "features": (features, 1), "outputs": (outputs, 1), "processes": (processes, 1)}
    sizes |= {"targets": (targets or 0, 0), "layers": (min(layers, default=1), 1)}
    for name, (value, least) in sizes.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    many, rows, p, retained = outputs > MANY_OUTPUTS, ceil(samples / processes), features, 0 if positions else RETAINED_ROWS
    c = min(outputs, p + 1) if many else outputs
    t = targets if targets is not None else 0 if many else max(outputs, 2)
    size = 8 if double else 4
    parts = [_gram_cost(rows, p, c, t, size, retained, processes, references=3)]
    parts[0].update(decompositions=18 * p**3 * (p <= FULL_SPECTRUM) + 27 * (c**3 + t**3))  # twice p × p; the span of the outputs
    parts[0]["reading"] += 6 * p * p * (c + t) + (180 * LEADING * p * p if p > FULL_SPECTRUM else 0)
    if many:  # the head's weight with itself, the square root of that, and this times the features
        parts.append({"filling_double": 2 * outputs * (p + 1) ** 2 + 2 * rows * p * c, "decompositions": 9 * (p + 1) ** 3})
    for width in layers:
        dual = processes == 1 and rows <= WIDTH_LIMIT and rows * width * size <= HELD_BYTES
        narrow = width if width <= WIDTH_LIMIT else rows if dual else SKETCH_BLOCKS * SKETCH_BUCKETS
        parts.append(_gram_cost(rows, narrow, c, 0, size, retained, processes, references=1))
        if width > WIDTH_LIMIT:
            parts[-1]["filling"] += 2 * rows * width * (rows if dual else SKETCH_BLOCKS)
            parts[-1]["decompositions"] = 9 * rows**3 if dual else 0
            parts[-1]["working_bytes"] += min(3 * rows * width * size, HELD_BYTES)
    total = {f.name: sum(part.get(f.name, 0) for part in parts) for f in fields(MeasurementCost)}
    return MeasurementCost(**total | {"samples": rows, "working_bytes": max(part.get("working_bytes", 0) for part in parts)})


def _gram_cost(n: int, p: int, c: int, t: int, size: int, retained: int, processes: int, references: int) -> dict[str, int]:
    """The fields of the cost of one Gram matrix of n rows, and of D_LR with an error bar for each reference kernel."""
    s, r, m = c + t, min(c, p), min(retained, n)
    row, sums, pairs = size * p + 8 * s + 16, 8 * (p * p + p * s + s * s), min(m, PAIR_ROWS) ** 2
    kept = row + 16  # its size and priority
    return {
        "filling": n * p * (p + min(p, 128)),  # half of a symmetric product, in panels of 128 columns
        "filling_double": 2 * n * s * (p + s),
        "reading": 2 * m * p * p + 4 * pairs * p + references * (17 * r * c * (p + 2 * c) + 20 * r * pairs),
        "elementwise": n * (10 * (p + s) + p * p // BLOCK_ROWS)
        + 60 * p * p
        + references * (180 * r * c + m * (4000 + 300 * min(r, 70))),
        "state_bytes": sums + retained * kept + BLOCK_ROWS * row,
        "working_bytes": 8 * (6 * p * p + 12 * c * c) + 750 * m * min(r, 200) + 2 * (processes - 1) * retained * kept,
        "sent_bytes": (processes - 1) * retained * kept + 2 * (processes - 1) * sums // processes,
    }


def machine_rates(order: int = 512, clock: Callable[[], float] = time.perf_counter) -> tuple[float, float, float, float]:
    """What this CPU does in a second on PyTorch's threads, as :meth:`MeasurementCost.seconds` takes it.

    Returns:
        Operations of a product of matrices in float32, in float64, and of ``torch.linalg.eigh`` (9k³ for order k); numbers of a
        float64 array that are multiplied by a constant. Each is the best of five.
    """
    x = torch.randn(2 * order, order, generator=torch.Generator().manual_seed(0))
    y, long = x.double(), torch.ones(2**21, dtype=torch.float64)
    inner = y.T @ y

    def best(call: Callable[[], object]) -> float:
        seconds = []
        for _ in range(5):
            began = clock()
            call()
            seconds.append(clock() - began)
        return min(seconds)

    product, cube = 4 * order**3, 9 * order**3
    pairs = (
        (product, lambda: x.T @ x),
        (product, lambda: y.T @ y),
        (cube, lambda: torch.linalg.eigh(inner)),
        (len(long), lambda: long * 1.5),
    )
    in_float, in_double, decomposition, elementwise = (work / best(call) for work, call in pairs)
    return in_float, in_double, decomposition, elementwise


def _scaled(count: float) -> str:
    """A number with a decimal prefix and a space: 5242880000 is "5.24 G"."""
    prefixes, prefix = iter("kMGTPE"), ""
    while count >= 999.5:
        count, prefix = count / 1000, next(prefixes)
    return f"{count:.3g} {prefix}"
