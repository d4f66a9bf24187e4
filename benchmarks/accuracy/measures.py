"""Every measure on the same runs: the table of docs/concepts/measures.md.

Four networks on scikit-learn's digits (1,437 images), equal but for what is trained and by which loss: in full (rich) or the
last layer alone (lazy by construction), squared loss or cross-entropy.

    python benchmarks/accuracy/measures.py
"""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

import lazyrich
from lazyrich import functional
from lazyrich.cli.digits import digits

EPOCHS, SUBSET = 150, 100


def run(train: tuple[Tensor, Tensor], full: bool, loss: str) -> tuple[lazyrich.Richness, dict[str, float]]:
    """Trains one network; the result, and the measures that need more than features."""
    images, labels = train
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    start = copy.deepcopy(model)
    targets = nn.functional.one_hot(labels, 10).float()
    optimizer = torch.optim.Adam((model if full else model[-1]).parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            outputs = model(images[rows])
            squared = nn.functional.mse_loss(outputs, targets[rows])
            (squared if loss == "squared" else nn.functional.cross_entropy(outputs, labels[rows])).backward()
            optimizer.step()
    some = images[:SUBSET]
    kernel, then = functional.tangent_kernel(model, some), functional.tangent_kernel(start, some)
    change = functional.tangent_kernel_change(then, kernel, num_outputs=10)
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).double().mean().item()
    return lazyrich.measure(model, train, start=start), {
        "training accuracy": accuracy,
        "tangent kernel, 1 - CKA with the start": change.alignment_change,
        "tangent kernel, relative distance": change.relative_distance,
        "tangent kernel, alignment with the targets": functional.tangent_kernel_alignment(kernel, labels[:SUBSET]),
    }


def main() -> None:
    warnings.simplefilter("ignore", lazyrich.RankWarning)
    train, _ = digits()
    runs = {
        f"{loss}, {'in full' if full else 'last layer only'}": run(train, full, loss)
        for loss in ("squared", "cross-entropy")
        for full in (True, False)
    }
    rows = {
        "D_LR, projection": lambda r: r.low_rank,
        "D_LR, balanced": lambda r: r.balanced,
        "D_LR, outputs": lambda r: r.output_alignment,
        "isotropic reference": lambda r: r.isotropic,
        "S_init": lambda r: r.comparison.s_init,
        "‖θ‖²": lambda r: r.comparison.parameter_norm,
        "‖θ - θ₀‖²": lambda r: r.comparison.parameter_distance,
        "NC1": lambda r: r.neural_collapse.nc1,
        "kernel-target alignment": lambda r: r.comparison.target_alignment,
        "participation ratio": lambda r: r.comparison.participation_ratio,
        "effective rank": lambda r: r.comparison.effective_rank,
        "RankMe": lambda r: r.comparison.rankme,
        "stable rank": lambda r: r.comparison.stable_rank,
        "α-ReQ exponent": lambda r: r.comparison.alpha_req,
    }
    print(f"| | {' | '.join(runs)} |")
    print("| --- |" + " --- |" * len(runs))
    for name, read in rows.items():
        print(f"| {name} | " + " | ".join(f"{read(r):.4g}" for r, _ in runs.values()) + " |")
    for name in next(iter(runs.values()))[1]:
        print(f"| {name} | " + " | ".join(f"{more[name]:.4g}" for _, more in runs.values()) + " |")


if __name__ == "__main__":
    main()
