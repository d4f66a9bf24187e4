"""A soak: a million updates of a Gram in batches of one to three rows, and ten thousand measurements of one network.

Resident memory, hooks and tensors must not grow, and at the end the Gram must hold what a plain float64 computation over the same
rows holds, taken chunk by chunk with NumPy.

    python benchmarks/robustness/soak.py [updates] [measurements]
"""

from __future__ import annotations

import gc
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

import lazyrich
from lazyrich import Gram
from lazyrich.functional import low_rank_measure

WIDTH, OUTPUTS, CHUNK = 6, 2, 5000  # updates that are drawn together
OFFSET = 3.0


def resident() -> float:
    """Resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def rows(number: int, mix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """The rows of a chunk of updates, and how many each update takes."""
    generator = torch.Generator().manual_seed(number)
    sizes = torch.randint(1, 4, (CHUNK,), generator=generator).tolist()
    scale = torch.arange(1, WIDTH + 1) ** -0.5
    x = torch.randn(sum(sizes), WIDTH, generator=generator) * scale + OFFSET
    return x, x @ mix, sizes


def plain(chunks: int, mix: torch.Tensor) -> tuple[float, float, int]:
    """D_LR and Σ‖Φ - Φ̄‖⁴/n² in two float64 passes over the rows: the mean, then all else about it."""
    n, mean, moment, fourth = 0, np.zeros(WIDTH + OUTPUTS), np.zeros((WIDTH + OUTPUTS,) * 2), 0.0
    for number in range(chunks):
        x, f, _ = rows(number, mix)
        n, mean = n + len(x), mean + np.concatenate([x.double().numpy(), f.double().numpy()], axis=1).sum(0)
    mean /= n
    for number in range(chunks):
        x, f, _ = rows(number, mix)
        h = np.concatenate([x.double().numpy(), f.double().numpy()], axis=1) - mean
        moment += h.T @ h / n
        fourth += ((h[:, :WIDTH] ** 2).sum(1) ** 2).sum() / n**2
    s, a, b = moment[:WIDTH, :WIDTH], moment[:WIDTH, WIDTH:], moment[WIDTH:, WIDTH:]
    inverse = np.linalg.pinv(b + np.outer(mean[WIDTH:], mean[WIDTH:]))
    numerator = np.trace(inverse @ a.T @ a)
    return 1 - numerator / np.linalg.norm(s) / np.sqrt(np.trace(inverse @ b @ inverse @ b)), fourth, n


def updates(count: int) -> bool:
    mix = torch.randn(WIDTH, OUTPUTS, generator=torch.Generator().manual_seed(0))
    gram, began, memory = Gram(), time.monotonic(), {}
    chunks = max(count // CHUNK, 1)
    for number in range(chunks):
        x, f, sizes = rows(number, mix)
        for a, b in zip(x.split(sizes), f.split(sizes), strict=True):
            gram.update(a, b)
        share = 100 * (number + 1) // chunks
        if share in (10, 50, 100) and share not in memory:
            memory[share] = resident()
    minutes = (time.monotonic() - began) / 60
    value, fourth, n = plain(chunks, mix)
    found, found_fourth = float(low_rank_measure(gram)), gram.fourth_moment()
    right = abs(found - value) < 1e-6 and abs(found_fourth / fourth - 1) < 1e-6 and gram.count == n
    print(f"{chunks * CHUNK:,} updates, {n:,} rows: {minutes:.1f} min")
    print("memory at " + ", ".join(f"{share} % {mib:.1f} MiB" for share, mib in memory.items()))
    print(f"D_LR {found:.12f}, plainly {value:.12f}: {abs(found - value):.1e} apart")
    print(f"fourth moment {found_fourth:.12g}, plainly {fourth:.12g}: {abs(found_fourth / fourth - 1):.1e} apart")
    figures = list(memory.values())
    return right and figures[-1] - figures[0] < 2


def measurements(count: int) -> bool:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 3))
    data = (torch.randn(24, 4), torch.arange(24) % 3)
    began, kept, first, same = time.monotonic(), {}, None, True
    for number in range(count):
        result = lazyrich.measure(model, data, layers="all" if number % 10 == 0 else None)
        first = first or result
        if number + 1 in (max(count // 10, 1), count // 2, count):
            gc.collect()
            hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
            tensors = sum(isinstance(x, torch.Tensor) for x in gc.get_objects())
            kept[100 * (number + 1) // count] = (resident(), hooks, tensors)
            same = same and result.low_rank == first.low_rank
    print(f"{count:,} measurements: {(time.monotonic() - began) / 60:.1f} min, the same value each time: {same}")
    for share, (mib, hooks, tensors) in kept.items():
        print(f"at {share} %: {mib:.1f} MiB, {hooks} hooks, {tensors} tensors")
    figures = list(kept.values())
    return same and figures[-1][0] - figures[0][0] < 2 and figures[-1][1:] == figures[0][1:]


def main() -> int:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    count, calls = (int(given) for given in (*sys.argv[1:], *("1000000", "10000")[len(sys.argv) - 1 :]))
    good = [updates(count), measurements(calls)]
    print("nothing grew, and the numbers are right" if all(good) else "SOMETHING GREW OR IS WRONG")
    return int(not all(good))


if __name__ == "__main__":
    raise SystemExit(main())
