"""What a Monitor at its default schedule costs: whole training runs with and without it, side by side.

The experiments' own networks, an MLP of width 512 on images like MNIST and a slim ResNet18 (8 channels) on images like CIFAR,
batches of 128, one thread. A run is timed from before the Monitor is made to after it has closed, so that the first and the last
evaluation count. Runs with and without take turns, and so does which of them is first; a ratio is that of two neighbours.
Beside the ratio of the wall clocks, which other programs on the machine disturb, stand that of the process's own time, and within
each run with it the time that passed inside the monitor over the rest.

    python benchmarks/speed/monitor.py [repetitions]
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import lazyrich
from lazyrich.experiments import Loss, Mlp, Optimizer, ResNet18

BATCH, OUTPUTS, PROBE = 128, 10, 512


@dataclass(frozen=True)
class Training:
    """What is trained, and for how many steps."""

    model: Mlp | ResNet18
    loss: Loss
    optimizer: Optimizer
    shape: tuple[int, ...]
    steps: int


TRAININGS = {
    "MLP": Training(Mlp(width=512, depth=4), Loss("squared"), Optimizer("adam", 1e-3), (1, 28, 28), 3000),
    "slim ResNet18": Training(ResNet18(width=8), Loss("cross-entropy"), Optimizer("sgd", 0.05), (3, 32, 32), 250),
}


@dataclass(frozen=True)
class Timing:
    """One run: seconds on the wall and of the process, those on the wall that passed inside the monitor, and its evaluations."""

    wall: float
    process: float
    inside: float
    evaluations: int


def data(training: Training) -> tuple[Tensor, Tensor]:
    """Images and labels that can be learnt: a pattern for each label, and noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(OUTPUTS, (4096,), generator=generator)
    patterns = torch.randn(OUTPUTS, *training.shape, generator=generator)
    return patterns[labels] + torch.randn(4096, *training.shape, generator=generator), labels


def timed(training: Training, inputs: Tensor, labels: Tensor, steps: int, watched: bool) -> Timing:
    torch.manual_seed(0)
    model = training.model.build(inputs, OUTPUTS)
    optimizer = training.optimizer.build(model, training.model)
    wall, process, inside = time.perf_counter(), time.process_time(), 0.0
    monitor = lazyrich.Monitor(model, (inputs[:PROBE], labels[:PROBE])) if watched else None
    inside += time.perf_counter() - wall
    for step in range(steps):
        train_step(training.loss, model, optimizer, inputs, labels, step)
        if monitor is not None:
            began = time.perf_counter()
            monitor.step()
            inside += time.perf_counter() - began
    if monitor is not None:
        began = time.perf_counter()
        monitor.close()
        inside += time.perf_counter() - began
    evaluations = 0 if monitor is None else len(monitor.series)
    return Timing(time.perf_counter() - wall, time.process_time() - process, inside, evaluations)


def train_step(loss: Loss, model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, step: int) -> None:
    rows = slice(BATCH * step % len(x), BATCH * step % len(x) + BATCH)
    optimizer.zero_grad()
    loss(model(x[rows]), y[rows]).backward()
    optimizer.step()


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    if repetitions < 5:
        raise SystemExit(f"at least 5 repetitions, got {repetitions}")
    torch.set_num_threads(1)
    columns = ["network", "steps", "seconds without", "evaluations", "wall time, median ratio (range)", "process time", "inside"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for name, training in TRAININGS.items():
        inputs, labels = data(training)
        for watched in (False, True):  # what happens once a process
            timed(training, inputs, labels, 5, watched)
        pairs = []
        for k in range(repetitions):
            both = {watched: timed(training, inputs, labels, training.steps, watched) for watched in (k % 2 == 0, k % 2 == 1)}
            pairs.append((both[True], both[False]))
        wall = [with_it.wall / without.wall for with_it, without in pairs]
        process = [with_it.process / without.process for with_it, without in pairs]
        inside = [with_it.inside / (with_it.wall - with_it.inside) for with_it, _ in pairs]
        seconds = statistics.median(without.wall for _, without in pairs)
        counts = sorted({with_it.evaluations for with_it, _ in pairs})
        cells = [
            name,
            f"{training.steps:,}",
            f"{seconds:.1f}",
            "-".join(map(str, dict.fromkeys((counts[0], counts[-1])))),
            f"{statistics.median(wall):.4f} ({min(wall):.4f} … {max(wall):.4f})",
            f"{statistics.median(process):.4f}",
            f"{100 * statistics.median(inside):.2f} %",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
