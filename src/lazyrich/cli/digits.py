"""The demo: two networks on scikit-learn's digits that differ only in which layers are trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from .._support.extras import needs
from .._support.progress import Bar, progress_bar
from ..measurement.measure import measure
from ..results.richness import Richness, plot, plot_layers, table

EPOCHS = 300
WIDTH = 256
FULL, LAST = "trained in full", "last layer only"


def run_demo(out: Path, *, seed: int = 0, progress: bool = True) -> dict[str, Richness]:
    """Train and measure both networks; write ``demo.png``, ``layers.png`` and a JSON file for each network to ``out``.

    Returns:
        Name -> result, measured on the training images.
    """
    train, test = digits()
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Richness] = {}
    accuracies: dict[str, str] = {}
    with (
        _one_thread(),
        torch.random.fork_rng(devices=[]),
        progress_bar(progress, total=2 * EPOCHS, text="training", unit=" epochs") as bar,
    ):
        for name in (FULL, LAST):
            torch.manual_seed(seed)
            model = _network()
            start = copy.deepcopy(model)
            _train(model, train, model[-1] if name == LAST else model, bar)
            results[name] = measure(model, train, start=start, nc4=True, layers="all")
            accuracies[name] = f"train {_accuracy(model, train):.1%}, test {_accuracy(model, test):.1%}"
    for name, r in results.items():
        r.save(out / f"{name.replace(' ', '-')}.json")
    plot(results, out / "demo.png")
    plot_layers(results, out / "layers.png")
    print(table(results))
    print()
    for name, accuracy in accuracies.items():
        print(f"{name}: {results[name].verdict}\n  accuracy {accuracy}")
    print(f"\nFigures and results: {out}")
    return results


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: sums over several are rounded in another order, and on busy cores they are also slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """scikit-learn's digits: (images in [0, 1], labels) of four fifths, which are the training set, and of the rest."""
    raw = needs("sklearn.datasets", "cli").load_digits()
    images = torch.from_numpy(raw.data).float() / 16
    labels = torch.from_numpy(raw.target).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    first, rest = order[:1437], order[1437:]  # four fifths
    return (images[first], labels[first]), (images[rest], labels[rest])


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))


def _train(model: nn.Module, data: tuple[Tensor, Tensor], trained: nn.Module, bar: Bar) -> None:
    """Minimise the squared loss on one-hot targets, as in the paper's MNIST experiments."""
    images, labels = data
    targets = nn.functional.one_hot(labels, 10).float()
    model.requires_grad_(requires_grad=False)
    optimizer = torch.optim.Adam(trained.requires_grad_().parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(images[rows]), targets[rows]).backward()
            optimizer.step()
        bar.update()


def _accuracy(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    with torch.no_grad():
        return (model(data[0]).argmax(1) == data[1]).double().mean().item()
