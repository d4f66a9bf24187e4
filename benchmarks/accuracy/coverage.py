"""Does the 95 % interval hold the truth where classes are weighed, where few rows are very large, and where rows have weights?

Each line draws data sets from a law whose D_LR is known from 2,000,000 rows, and asks how often the interval holds it, how large
the claimed standard error is compared with the spread that is seen, and how often the library gives no error. The last column
but one is the coverage with every row retained, over all draws that have an interval then.

    python benchmarks/accuracy/coverage.py [draws] [projection|balanced|outputs] [part of the name of a line]
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

import lazyrich
from lazyrich import Gram
from lazyrich.functional import low_rank_estimate, low_rank_measure
from lazyrich.functional.low_rank import Reference

POPULATION, PART = 2_000_000, 100_000
P, OUTPUTS = 30, 4
SCALES = torch.arange(1, P + 1, dtype=torch.float64) ** -0.5
HEAD = torch.randn(P, OUTPUTS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@dataclass(frozen=True)
class Rows:
    """Features, outputs, and the weights or classes of a draw."""

    features: Tensor
    outputs: Tensor
    weights: Tensor | None = None
    labels: Tensor | None = None


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
        x = normal(n, g) * SCALES
        x[torch.rand(n, generator=g) < rate] *= size
        return Rows(x, x @ HEAD)

    return draw


def importance(n: int, g: torch.Generator) -> Rows:
    z = normal(n, g)
    x = z * SCALES
    return Rows(x, torch.tanh(x @ HEAD / 2), weights=torch.exp(0.7 * x[:, 0] + 0.3 * z[:, 3]))


def student(n: int, g: torch.Generator) -> Rows:
    chi = sum(normal(n, g).square() for _ in range(3))
    x = normal(n, g) / (cast(Tensor, chi) / 3).sqrt() * SCALES
    return Rows(x, x @ HEAD)


def lognormal(n: int, g: torch.Generator) -> Rows:
    x = normal(n, g).exp() * SCALES
    return Rows(x, x @ HEAD)


def plain(n: int, g: torch.Generator) -> Rows:
    x = normal(n, g) * SCALES
    return Rows(x, x @ HEAD)


LINES: dict[str, tuple[Law, tuple[int, ...]]] = {
    "Gaussian": (plain, (P // 2, P, 2 * P, 8 * P)),
    "classes 90/8/2, balanced": (classes(np.array([0.9, 0.08, 0.02])), (300, 1000, 5000)),
    "long tail 100:1, balanced": (classes(0.01 ** (np.arange(10) / 9)), (300, 1000, 5000)),
    "30 times as long, 5 in 10,000": (large(5e-4, 30), (5000, 20_000)),
    "10 times as long, 1 in 1,000": (large(1e-3, 10), (5000, 20_000)),
    "10 times as long, 1 in 100": (large(1e-2, 10), (500, 4000)),
    "importance weights": (importance, (200, 1000, 5000)),
    "t₃, each feature": (student, (500, 4000)),
    "log-normal": (lognormal, (500, 4000)),
}


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
    g, gram = torch.Generator().manual_seed(10**6), Gram(retain=0)
    for _ in range(POPULATION // PART):
        rows = law(PART, g)
        weights = rows.weights if rows.labels is None else (1 / torch.bincount(rows.labels).double())[rows.labels]
        gram.update(rows.features, rows.outputs, weights=weights)
    return float(low_rank_measure(gram, reference=reference))


def main(draws: int, reference: Reference, part: str) -> None:
    warnings.simplefilter("ignore", lazyrich.RankWarning)
    print(f"{draws} draws a line, reference {reference}, 1,024 rows retained")
    print(
        "| law | n | true D_LR | plug-in | corrected | standard error: claimed / seen | covers | every row retained | no error |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (law, sizes) in LINES.items():
        if part not in name:
            continue
        true = truth(law, reference)
        for n in sizes:
            found, every, plug_in, none = [], [], [], 0
            for seed in range(draws):
                rows = law(n, torch.Generator().manual_seed(seed))
                estimate = low_rank_estimate(filled(rows, 1024), reference=reference)
                plug_in.append(estimate.value)
                whole = estimate if n <= 1024 else low_rank_estimate(filled(rows, n), reference=reference)
                if whole.interval is not None:
                    every.append(whole.interval[0] <= true <= whole.interval[1])
                if estimate.interval is None:
                    none += 1
                    continue
                found.append((estimate.corrected, estimate.stderr, estimate.interval[0] <= true <= estimate.interval[1]))
            corrected, claimed, inside = np.array(found, dtype=float).T if found else np.full((3, 1), np.nan)
            print(
                f"| {name} | {n:,} | {true:.4f} | {np.mean(plug_in):.4f} | {corrected.mean():.4f} | {np.median(claimed):.4f} / "
                f"{corrected.std():.4f} | {inside.mean():.0%} | {np.mean(every) if every else np.nan:.0%} | {none / draws:.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *["200", "projection", ""][len(sys.argv) - 1 :]]
    main(int(arguments[0]), cast(Reference, arguments[1]), arguments[2])
