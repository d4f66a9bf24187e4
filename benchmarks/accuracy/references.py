"""Which reference tells rich from lazy: the table of docs/concepts/references.md, on cases where the answer is known.

Two-layer linear networks on whitened inputs, trained by gradient descent from small weights (rich: the balanced factorisation
is the exact solution in the limit) or from large ones (lazy), and networks of which either everything or the last layer
alone is trained (lazy by construction) on equal classes, unequal classes and under cross-entropy.

    python benchmarks/accuracy/references.py
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

import lazyrich

SAMPLES, INPUTS, WIDTH, OUTPUTS = 400, 20, 64, 5


def linear_network(values: Tensor, scale: float, steps: int = 6000, seed: int = 0) -> lazyrich.Richness:
    """f(x) = W V x trained to f* = M x, M with the given singular values, until the loss is under 1e-6 of its start."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(SAMPLES, INPUTS, generator=g, dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(0)).Q * SAMPLES**0.5  # whitened
    left = torch.linalg.qr(torch.randn(OUTPUTS, OUTPUTS, generator=g, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(INPUTS, OUTPUTS, generator=g, dtype=torch.float64)).Q
    target = left @ torch.diag(values.double()) @ right.T
    v = scale * torch.randn(WIDTH, INPUTS, generator=g, dtype=torch.float64) / INPUTS**0.5
    w = scale * torch.randn(OUTPUTS, WIDTH, generator=g, dtype=torch.float64) / WIDTH**0.5
    rate = 0.1 / max(float(values.max()), WIDTH / INPUTS * scale**2)
    for _ in range(steps):  # the loss is ½‖W V - M‖², for the inputs are whitened
        residual = w @ v - target
        w, v = w - rate * residual @ v.T, v - rate * w.T @ residual
    assert (w @ v - target).norm() < 1e-3 * target.norm(), "not converged"  # noqa: S101 - the table would be of something else
    model = nn.Sequential(nn.Linear(INPUTS, WIDTH, bias=False), nn.Linear(WIDTH, OUTPUTS, bias=False)).double()
    for layer, weight in zip(model, (v, w), strict=True):
        layer.weight.data = weight
    return lazyrich.measure(model, x)


def classes(counts: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussian points, labelled by the largest of five random linear scores; offsets of the scores set the classes' sizes."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(counts), INPUTS, generator=g)
    scores = x @ torch.randn(INPUTS, len(counts), generator=g)
    share, offset = torch.tensor(counts) / sum(counts), torch.zeros(len(counts))
    for _ in range(2000):
        found = torch.bincount((scores + offset).argmax(1), minlength=len(counts)) / len(x)
        offset += 0.05 * (share.log() - (found + 1e-3).log())
    return x, (scores + offset).argmax(1)


def trained(data: tuple[Tensor, Tensor], loss: str, full: bool, balanced: bool = False) -> lazyrich.Richness:
    """A network of two hidden layers, trained in full or in its last layer alone."""
    x, labels = data
    targets = nn.functional.one_hot(labels).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(INPUTS, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, targets.shape[1]))
    optimizer = torch.optim.Adam((model if full else model[-1]).parameters(), lr=1e-3)
    for _ in range(3000):
        optimizer.zero_grad()
        outputs = model(x)
        value = nn.functional.mse_loss(outputs, targets) if loss == "squared" else nn.functional.cross_entropy(outputs, labels)
        value.backward()
        optimizer.step()
    return lazyrich.measure(model, (x, labels), class_balanced=balanced)


def row(case: str, training: str, r: lazyrich.Richness) -> None:
    values = r.output_singular_values[: r.output_rank]
    estimates = (
        (r.low_rank, r.low_rank_corrected, r.low_rank_stderr),
        (r.balanced, r.balanced_corrected, r.balanced_stderr),
        (r.output_alignment, r.output_alignment_corrected, r.output_alignment_stderr),
    )
    cells = [f"{value:.3f}" if error is None else f"{corrected:.3f} ± {error:.3f}" for value, corrected, error in estimates]
    print(f"| {case} | {training} | {' | '.join(cells)} | {r.isotropic:.3f} | {values[0] / values[-1]:.3g} |", flush=True)


def main() -> None:
    warnings.simplefilter("ignore", lazyrich.RankWarning)
    torch.set_num_threads(1)
    print("| case | training | projection | balanced | outputs | isotropic | σ₁/σ_r |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, values in (("linear, isotropic targets", torch.ones(5) * 5), ("linear, targets 1 : 10", torch.linspace(10, 1, 5))):
        row(name, "small weights (rich)", linear_network(values, 1e-3))
        row(name, "large weights (lazy)", linear_network(values, 10.0))
    for name, counts, loss, balanced in (
        ("equal classes, squared loss", [200] * 5, "squared", False),
        ("classes 16 : 1, squared loss", [640, 160, 80, 80, 40], "squared", False),
        ("the same, class_balanced=True", [640, 160, 80, 80, 40], "squared", True),
        ("equal classes, cross-entropy", [200] * 5, "cross-entropy", False),
    ):
        for full, training in ((True, "in full (rich)"), (False, "last layer only (lazy)")):
            row(name, training, trained(classes(counts), loss, full, balanced))


if __name__ == "__main__":
    main()
