"""What many features cost: D_LR alone, the full spectrum, and the leading part and how near it comes.

Times are seconds of one thread's processor time on a filled Gram, the least of three runs where one is short. The leading part
is of matrices with a known spectrum: a collapse (C - 1 directions far above a bulk), power laws, and that of structureless
features, whose eigenvalues lie close together, the hardest for an iterative solver.

    python benchmarks/accuracy/large_p.py            # p = 2,048 and 4,096
    python benchmarks/accuracy/large_p.py 8192       # other widths
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lazyrich import Gram
from lazyrich.functional import low_rank_estimate, low_rank_measure
from lazyrich.functional.eigen import LEADING, eigh, eigvalsh, leading_part

OUTPUTS, SAMPLES = 100, 2048


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """The least processor time of three runs, of fewer where they are long, and what the last returned."""
    times: list[float] = []
    found = None
    while len(times) < 3 and sum(times) < 10:
        began = time.process_time()
        found = run()
        times.append(time.process_time() - began)
    return min(times), found


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spectra(p: int) -> dict[str, Tensor]:
    """Name -> (p,) eigenvalues, descending; of structureless features by their limit law (Marchenko & Pastur) at n = 4p."""
    k = torch.arange(1, p + 1, dtype=torch.float64)
    collapse = torch.where(k < OUTPUTS, 1.3 - 0.3 * k / OUTPUTS, 2e-3 * (1 - k / (2 * p)))
    return {"collapse": collapse, "power law 1/k": 1 / k, "power law 1/k²": k**-2, "structureless": marchenko_pastur(p)}


def marchenko_pastur(p: int, ratio: float = 0.25) -> Tensor:
    """(p,) quantiles of the law of the eigenvalues of a sample covariance, p/n = ratio, descending."""
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    angle = torch.linspace(0, torch.pi, 200_001, dtype=torch.float64)
    x = (low + high) / 2 - (high - low) / 2 * angle.cos()
    density = angle.sin().square() / x  # of the angle, up to a factor
    share = torch.cumsum(density, 0) / density.sum()
    places = torch.searchsorted(share, (torch.arange(p, dtype=torch.float64) + 0.5) / p)
    return x[places].flip(0)


def reflected(values: Tensor) -> Tensor:
    """(p, p) with these eigenvalues, turned by two reflections."""
    matrix = values.diag()
    for seed in (1, 2):
        u = torch.nn.functional.normalize(normal(len(values), seed=seed), dim=0)
        matrix -= 2 * torch.outer(u, u @ matrix)
        matrix -= 2 * torch.outer(matrix @ u, u)
    return (matrix + matrix.T) / 2


def whole(p: int) -> None:
    """D_LR alone and the full spectrum, against one product of a p × p with a p × C matrix."""
    features = normal(SAMPLES, p, seed=3).float()
    gram = Gram()
    gram.update(features, (features @ normal(p, OUTPUTS, seed=4).float()))
    square, thin = gram.block("features", "features", centered=True), normal(p, OUTPUTS, seed=5)
    product, _ = seconds(lambda: square @ thin)
    rows = {
        "one product p × p × C": product,
        "D_LR": seconds(lambda: low_rank_measure(gram))[0],
        "D_LR with error and band": seconds(lambda: low_rank_estimate(gram))[0],
        "all eigenvalues": seconds(lambda: eigvalsh(square))[0],
        "all eigenvalues and eigenvectors": seconds(lambda: eigh(square))[0],
    }
    print(f"\np = {p:,}, C = {OUTPUTS}\n| | seconds | products |\n| --- | --- | --- |")
    for name, taken in rows.items():
        print(f"| {name} | {taken:.2f} | {taken / product:.1f} |", flush=True)


def part(p: int) -> None:
    """The leading part of known spectra."""
    print(f"\nthe leading {LEADING} of p = {p:,}\n| spectrum | seconds | residual | error of the eigenvalues, of the largest |")
    print("| --- | --- | --- | --- |")
    for name, values in spectra(p).items():
        matrix = reflected(values)
        taken, found = seconds(lambda matrix=matrix: leading_part(matrix, LEADING))
        error = float((found.values - values[:LEADING]).abs().max() / values[0])
        print(f"| {name} | {taken:.1f} | {found.residual:.1e} | {error:.1e} |", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for p in [int(given) for given in sys.argv[1:]] or [2048, 4096]:
        whole(p)
        part(p)


if __name__ == "__main__":
    main()
