"""How far off are the plug-in and the corrected D_LR, and does the 95 % interval hold the truth 95 times in 100?

Features of known covariance: p = 512, of which C = 10 directions of unit strength are the outputs and the rest a power-law
tail, so D_LR = 1 - sqrt(C)/‖Σ‖_F exactly. Three distributions of the same covariance. 200 draws for each line; where some of
them have no error, the line is of the others, whose number is in the last cell.

    python benchmarks/accuracy/estimator.py [draws] [projection|balanced|outputs]
"""

from __future__ import annotations

import math
import sys
from typing import cast

import torch
from torch import Tensor

from lazyrich.functional import low_rank_estimate
from lazyrich.functional.low_rank import Reference

P, C = 512, 10
SIZES = (P // 4, P // 2, P, 4 * P)


def scales(truth: float) -> Tensor:
    """Standard deviation of each feature: ten of one and a tail, as strong as D_LR needs it."""
    tail = torch.arange(1, P - C + 1, dtype=torch.float64) ** -1.0
    tail *= math.sqrt((C / (1 - truth) ** 2 - C) / float(tail.square().sum()))
    return torch.cat([torch.ones(C, dtype=torch.float64), tail]).sqrt()


def student(*shape: int, degrees: int, g: torch.Generator) -> Tensor:
    """Student-t with unit variance."""
    chi = torch.zeros(shape, dtype=torch.float64)
    for _ in range(degrees):
        chi += torch.randn(*shape, generator=g, dtype=torch.float64).square()
    return torch.randn(*shape, generator=g, dtype=torch.float64) / (chi / degrees).sqrt() * math.sqrt((degrees - 2) / degrees)


def gaussian(n: int, g: torch.Generator) -> Tensor:
    return torch.randn(n, P, generator=g, dtype=torch.float64)


def independent_tails(n: int, g: torch.Generator) -> Tensor:
    return student(n, P, degrees=5, g=g)


def elliptical_tails(n: int, g: torch.Generator) -> Tensor:
    chi = torch.randn(n, 8, generator=g, dtype=torch.float64).square().mean(1, keepdim=True)
    return gaussian(n, g) / chi.sqrt() * math.sqrt(6 / 8)


def main(draws: int, reference: Reference) -> None:
    distributions = {"Gaussian": gaussian, "t₅, each feature": independent_tails, "t₈, elliptical": elliptical_tails}
    print("| true D_LR | distribution | n | plug-in | corrected | standard error: claimed / seen | 95 % interval covers |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for truth in (0.0178, 0.2546):
        scale = scales(truth)
        for name, draw in distributions.items():
            for n in SIZES:
                g = torch.Generator().manual_seed(n)
                estimates = []
                for _ in range(draws):
                    x = draw(n, g) * scale
                    estimates.append(low_rank_estimate(x, x[:, :C], reference=reference))
                estimates = [e for e in estimates if e.stderr is not None]
                others = f" of {len(estimates)}" if len(estimates) < draws else ""
                plug_in, corrected, error = (
                    torch.tensor([getattr(e, field) for e in estimates], dtype=torch.float64)
                    for field in ("value", "corrected", "stderr")
                )
                covered = torch.tensor([e.interval[0] < truth < e.interval[1] for e in estimates]).double().mean()
                print(
                    f"| {truth:.4f} | {name} | {n:,} | {plug_in.mean():.4f} | {corrected.mean():.4f} "
                    f"| {error.mean():.4f} / {corrected.std():.4f} | {covered:.1%}{others} |",
                    flush=True,
                )


if __name__ == "__main__":
    chosen = sys.argv[2] if len(sys.argv) > 2 else "projection"
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, cast(Reference, chosen))
