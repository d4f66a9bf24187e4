"""What a measurement costs, in time and memory, and what `measurement_cost` says of it: the figure of docs/guide/speed.md.

`measure` of a linear head with labels, in batches of 512 rows that repeat, so that a million rows need no memory. Each point
is a process of its own, on one thread. Time is the processor's during the complete call, so that other programs do not count;
memory is the largest growth of the process.

The line is the cost model's: its counts over the rates of a bare matrix product in float32 and in float64, of an
eigendecomposition and of an array times a number, timed in the same run. The head's own product is added, because it is the
network's forward pass here.

    python benchmarks/speed/cost.py [--out results/cost/measured.md] [--figure docs/guide/cost.png]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from side_by_side import Report, extra_memory
from torch import Tensor, nn

import lazyrich
from lazyrich.measurement.cost import machine_rates
from lazyrich.results.drawing import COLOURS, FAINT, quiet

BATCH, POOL = 512, 8  # as many rows as the widest features, so that those have full rank
N, P, C = 10_000, 512, 10
VARIED = {
    "n": [(n, P, C) for n in (1_000, 10_000, 100_000, 1_000_000)],
    "p": [(N, p, C) for p in (64, 128, 256, 512, 1024, 2048, 4096)],
    "C": [(N, P, c) for c in (2, 10, 100, 1_000)],
}
RANGES = {"n": (1e3, 1e6), "p": (64, 4096), "C": (2, 1000)}
LABELS = {
    "n": f"samples n  (p = {P}, C = {C})",
    "p": f"features p  (n = {N:,}, C = {C})",
    "C": f"outputs C  (n = {N:,}, p = {P})",
}


class Repeated:
    """n rows of features with labels, in batches from a small pool."""

    def __init__(self, n: int, p: int, classes: int) -> None:
        g = torch.Generator().manual_seed(0)
        labels = torch.arange(POOL * BATCH) % classes
        features = torch.randn(POOL * BATCH, p, generator=g).relu_()
        self.n, self.pool = n, list(zip(features.split(BATCH), labels.split(BATCH), strict=True))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.n, BATCH):
            x, y = self.pool[start // BATCH % POOL]
            yield x[: self.n - start], y[: self.n - start]


def measured(n: int, p: int, classes: int) -> tuple[float, int | None]:
    """Seconds and bytes of one call; in a process of its own."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", lazyrich.RankWarning)
    torch.manual_seed(0)
    lazyrich.measure(nn.Linear(16, 3), Repeated(2_000, 16, 3))  # what happens once a process
    model, data = nn.Linear(p, classes), Repeated(n, p, classes)
    seconds = 0.0

    def call() -> None:
        nonlocal seconds
        began = time.process_time()
        lazyrich.measure(model, data)
        seconds = time.process_time() - began

    memory = extra_memory(call)
    return seconds, memory


def rates() -> tuple[float, ...]:
    """The rates of one thread; in a process of its own."""
    torch.set_num_threads(1)
    return machine_rates(P, time.process_time)


def alone(call: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def modelled(n: int, p: int, classes: int, speed: tuple[float, ...]) -> tuple[float, int]:
    """Seconds and bytes by the cost model."""
    cost = lazyrich.measurement_cost(n, p, classes)
    return cost.seconds(*speed) + 2 * n * p * classes / speed[0], cost.peak_bytes


def draw(found: dict[tuple[int, int, int], tuple[float, int | None]], speed: tuple[float, ...], path: Path) -> None:
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(2, 3, sharex="col", sharey="row")
    for column, (name, points) in enumerate(VARIED.items()):
        place = "npC".index(name)
        grid = [round(float(x)) for x in np.geomspace(*RANGES[name], num=60)]
        sizes = [{"n": N, "p": P, "C": C} | {name: x} for x in grid]
        line = [modelled(size["n"], size["p"], size["C"], speed) for size in sizes]
        for row, (scale, label) in enumerate(((1.0, "seconds"), (1e6, "MB in addition to model and batch"))):
            ax = axes[row, column]
            ax.plot(grid, [y[row] / scale for y in line], color=FAINT, label="cost model")
            values = [(x[place], found[x][row]) for x in points]
            shown = [(x, y / scale) for x, y in values if y is not None]
            ax.plot([x for x, _ in shown], [y for _, y in shown], "o", color=COLOURS[0], label="measured")
            ax.set(xscale="log", yscale="log")
            quiet(ax)
            if column == 0:
                ax.set_ylabel(label)
        axes[1, column].set_xlabel(LABELS[name])
    axes[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the report here too")
    parser.add_argument("--figure", type=Path, help="draw the figure here")
    options = parser.parse_args()
    report = Report("A measurement's time and memory, and the cost model's")
    report.machine(("lazyrich", "torch", "numpy"))
    speed = alone(rates)
    report.say(
        f"One thread. Rates in this run, in 10⁹ a second: {speed[0] / 1e9:.1f} operations of a product in float32, "
        f"{speed[1] / 1e9:.1f} in float64, {speed[2] / 1e9:.1f} of an eigendecomposition of order {P}, counted as 9k³; "
        f"{speed[3] / 1e9:.2f} numbers times a number.\n"
    )
    points = list(dict.fromkeys(point for points in VARIED.values() for point in points))
    found = {point: alone(measured, *point) for point in points}
    rows = []
    for point, (seconds, memory) in found.items():
        model_seconds, model_memory = modelled(*point, speed)
        cells = [f"{seconds:.2f}", f"{model_seconds:.2f}", f"{seconds / model_seconds:.2f}"]
        if memory is not None:
            cells += [f"{memory / 1e6:.0f}", f"{model_memory / 1e6:.0f}", f"{memory / model_memory:.2f}"]
        rows.append([*(f"{x:,}" for x in point), *cells, *[""] * (6 - len(cells))])
    report.table(["n", "p", "C", "seconds", "model", "ratio", "MB", "model", "ratio"], rows)
    report.save(options.out)
    if options.figure is not None:
        draw(found, speed, options.figure)


if __name__ == "__main__":
    main()
