"""Does the 95 % interval hold the truth where classes are weighed, where few rows are very large, and where rows have weights?

Each line draws data sets from a law whose D_LR is known from 2,000,000 rows, and asks how often the interval holds it, how large
the claimed standard error is compared with the spread that is seen, and how often the library gives no error. The last column
but one is the coverage with every row retained, over all draws that have an interval then. One line is about λ, whose start has
other features of the same inputs, and one about the positions of texts, which are not independent.

    python benchmarks/accuracy/coverage.py [draws] [projection|balanced|outputs] [part of the name of a line]

A line has its own draws, so lines can be run one by one.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

import lazyrich
from lazyrich import Gram
from lazyrich.functional import low_rank_estimate, low_rank_measure
from lazyrich.functional.low_rank import Reference

POPULATION, PART, RETAIN = 2_000_000, 100_000, 1_024
P, WIDE, OUTPUTS = 30, 128, 4
POSITIONS = 16  # of a text
SCALES = torch.arange(1, WIDE + 1, dtype=torch.float64) ** -0.5
HEADS = {p: torch.randn(p, OUTPUTS, generator=torch.Generator().manual_seed(3), dtype=torch.float64) for p in (P, WIDE)}
HEAD = HEADS[P]


@dataclass(frozen=True)
class Rows:
    """Features, outputs, and what a draw has beyond them: weights, classes, features of the start, positions of an input."""

    features: Tensor
    outputs: Tensor
    weights: Tensor | None = None
    labels: Tensor | None = None
    start: Tensor | None = None
    positions: int = 1


Law = Callable[[int, torch.Generator], Rows]


def normal(n: int, g: torch.Generator, p: int = P) -> Tensor:
    return torch.randn(n, p, generator=g, dtype=torch.float64)


def classes(shares: np.ndarray, p: int = 32, noise: float = 0.15) -> Law:
    """Class means and noise; the numbers of rows of the classes are fixed, as in a data set with a long tail."""
    means = 3 * normal(len(shares), torch.Generator().manual_seed(1), p) / p**0.5
    head = torch.linalg.pinv(means)

    def draw(n: int, g: torch.Generator) -> Rows:
        counts = torch.from_numpy(np.maximum(np.round(shares / shares.sum() * n), 1).astype(int))
        labels = torch.repeat_interleave(torch.arange(len(shares)), counts)
        x = means[labels] + noise * normal(len(labels), g, p)
        return Rows(x, x @ head, labels=labels)

    return draw


def large(rate: float, size: float) -> Law:
    def draw(n: int, g: torch.Generator) -> Rows:
        x = normal(n, g) * SCALES[:P]
        x[torch.rand(n, generator=g) < rate] *= size
        return Rows(x, x @ HEAD)

    return draw


def importance(n: int, g: torch.Generator) -> Rows:
    z = normal(n, g)
    x = z * SCALES[:P]
    return Rows(x, torch.tanh(x @ HEAD / 2), weights=torch.exp(0.7 * x[:, 0] + 0.3 * z[:, 3]))


def student(n: int, g: torch.Generator) -> Rows:
    chi = sum(normal(n, g).square() for _ in range(3))
    x = normal(n, g) / (cast(Tensor, chi) / 3).sqrt() * SCALES[:P]
    return Rows(x, x @ HEAD)


def lognormal(n: int, g: torch.Generator) -> Rows:
    x = normal(n, g).exp() * SCALES[:P]
    return Rows(x, x @ HEAD)


def gaussian(p: int) -> Law:
    def draw(n: int, g: torch.Generator) -> Rows:
        x = normal(n, g, p) * SCALES[:p]
        return Rows(x, x @ HEADS[p])

    return draw


def with_start(n: int, g: torch.Generator) -> Rows:
    x = normal(n, g) * SCALES[:P]
    return Rows(x + 0.3 * (x @ HEAD) @ HEAD.T / P, x @ HEAD, start=x)


def texts(n: int, g: torch.Generator) -> Rows:
    """n positions of texts of the same length: every position has a part that is that of its text."""
    common = normal(n // POSITIONS, g).repeat_interleave(POSITIONS, dim=0)
    x = (0.7 * common + 0.7 * normal(len(common), g)) * SCALES[:P]
    return Rows(x, x @ HEAD, positions=POSITIONS)


LINES: dict[str, tuple[Law, tuple[int, ...]]] = {
    "Gaussian": (gaussian(P), (P // 2, P, 2 * P, 8 * P)),
    "Gaussian, p = 128": (gaussian(WIDE), (WIDE // 2, WIDE, 2 * WIDE, 8 * WIDE)),
    "classes 90/8/2, balanced": (classes(np.array([0.9, 0.08, 0.02])), (300, 1000, 5000)),
    "long tail 100:1, balanced": (classes(0.01 ** (np.arange(10) / 9)), (300, 1000, 5000)),
    "30 times as long, 5 in 10,000": (large(5e-4, 30), (5000, 20_000)),
    "10 times as long, 1 in 1,000": (large(1e-3, 10), (5000, 20_000)),
    "10 times as long, 1 in 100": (large(1e-2, 10), (500, 4000)),
    "importance weights": (importance, (200, 1000, 5000)),
    "t₃, each feature": (student, (500, 4000)),
    "log-normal": (lognormal, (500, 4000)),
    "λ, Gaussian": (with_start, (P // 2, P, 2 * P, 8 * P, 5000)),
    "positions of texts": (texts, (512, 4096)),
}


class Network(nn.Module):
    """Features and outputs that are given, as a network whose head is the linear map between them.

    Inputs are features, features of the start and outputs, next to each other.
    """

    def __init__(self, rows: Rows, *, start: bool) -> None:
        super().__init__()
        p = rows.features.shape[1]
        self.columns = slice(p, 2 * p) if start else slice(p)
        weight = torch.linalg.lstsq(rows.features, rows.outputs).solution.T
        self.head = nn.Linear(p, rows.outputs.shape[1], bias=False, dtype=torch.float64)
        self.head.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x[..., self.columns])


@dataclass(frozen=True)
class Estimate:
    """What the library says of a draw."""

    value: float | None  # λ is None where the start leaves no room
    corrected: float | None
    stderr: float | None
    interval: tuple[float, float] | None


def measured(rows: Rows) -> Estimate:
    """λ where the draw has a start, else D_LR: of a network, because a `Gram` has no start and does not know of positions."""
    start = rows.features if rows.start is None else rows.start
    inputs = torch.cat([rows.features, start], dim=1).unflatten(0, (-1, rows.positions)).squeeze(1)
    beginning = None if rows.start is None else Network(rows, start=True)
    r = lazyrich.measure(Network(rows, start=False), inputs, head="head", start=beginning)
    if rows.start is None:
        return Estimate(r.low_rank, r.low_rank_corrected, r.low_rank_stderr, r.low_rank_interval)
    return Estimate(r.laziness, r.laziness_corrected, r.laziness_stderr, r.laziness_interval)


def estimated(rows: Rows, reference: Reference, retain: int) -> Estimate:
    if rows.start is not None or rows.positions > 1:
        return measured(rows)
    found = low_rank_estimate(filled(rows, retain), reference=reference)
    return Estimate(found.value, found.corrected, found.stderr, found.interval)


def filled(rows: Rows, retain: int) -> Gram:
    if rows.labels is None:
        gram = Gram(retain=retain)
        gram.update(rows.features, rows.outputs, weights=rows.weights)
        return gram
    counts = torch.bincount(rows.labels)
    gram = Gram(retain=retain, strata=len(counts))
    gram.update(rows.features, rows.outputs, weights=(1 / counts.double())[rows.labels], strata=rows.labels)
    return gram


def truth(law: Law, reference: Reference) -> float:
    g = torch.Generator().manual_seed(10**6)
    parts = [law(PART, g) for _ in range(POPULATION // PART)]
    value = _of_population(parts, reference, start=False)
    return value if parts[0].start is None else value / _of_population(parts, reference, start=True)


def _of_population(parts: list[Rows], reference: Reference, *, start: bool) -> float:
    gram = Gram(retain=0)
    for rows in parts:
        weights = rows.weights if rows.labels is None else (1 / torch.bincount(rows.labels).double())[rows.labels]
        gram.update(cast(Tensor, rows.start if start else rows.features), rows.outputs, weights=weights)
    return float(low_rank_measure(gram, reference=reference))


def line(law: Law, n: int, true: float, draws: int, reference: Reference) -> str:
    """The cells of one row, from the truth on."""
    found, every, plug_in, none = [], [], [], 0
    for seed in range(draws):
        rows = law(n, torch.Generator().manual_seed(seed))
        estimate = estimated(rows, reference, RETAIN)
        plug_in.append(np.nan if estimate.value is None else estimate.value)
        whole = estimate if n <= RETAIN else estimated(rows, reference, n)
        if whole.interval is not None:
            every.append(whole.interval[0] <= true <= whole.interval[1])
        if estimate.interval is None:
            none += 1
            continue
        found.append((estimate.corrected, estimate.stderr, estimate.interval[0] <= true <= estimate.interval[1]))
    corrected, claimed, inside = np.array(found, dtype=float).T if found else np.full((3, 1), np.nan)
    errors = f"{np.median(claimed):.4f} / {corrected.std():.4f} = {np.median(claimed) / corrected.std():.2f}" if found else "-"
    cells = [f"{true:.4f}", f"{np.nanmean(plug_in):.4f}", f"{corrected.mean():.4f}" if found else "-", errors]
    cells += [f"{np.mean(inside):.0%}" if found else "-", f"{np.mean(every):.0%}" if every else "-", f"{none / draws:.0%}"]
    return " | ".join(cells)


def main(draws: int, reference: Reference, part: str) -> None:
    warnings.simplefilter("ignore", lazyrich.RankWarning)
    print(f"{draws} draws a line, reference {reference}, {RETAIN:,} rows retained\n")
    print("| law | n | truth | plug-in | corrected | standard error: claimed / seen | covers | every row retained | no error |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for name, (law, sizes) in LINES.items():
        if part not in name:
            continue
        true = truth(law, reference)
        for n in sizes:
            print(f"| {name} | {n:,} | {line(law, n, true, draws, reference)} |", flush=True)


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *["200", "projection", ""][len(sys.argv) - 1 :]]
    main(int(arguments[0]), cast(Reference, arguments[1]), arguments[2])
