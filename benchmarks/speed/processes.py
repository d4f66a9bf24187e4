"""What a second process brings: measuring and training on two processes (gloo, this machine) beside one, one thread each.

Two processes are started once; starting them is not timed. Then these take turns, each from a barrier to a barrier:

    one           the first process alone, n samples; the second waits
    two, strong   both together on n samples, half each
    two, weak     both together on 2n samples, n each
    apart         both at once on n samples each, without a word between them: what the machine itself can give

The throughput (samples a second) of the latter three is divided by that of the `one` of the same round. Measuring is
`lazyrich.measure` from the first batch to the finished result, reading included; training is DistributedDataParallel and plain
SGD in batches of 256, in the strong case 128 on each process.

    python benchmarks/speed/processes.py [repetitions] [--out results/cost/processes.md]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from side_by_side import LEAST_REPETITIONS, Report
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import lazyrich
from lazyrich.experiments import Mlp, ResNet18

BATCH, OUTPUTS, REQUIRED = 256, 10, 1.8
SHAPES = {
    "MLP 784-512-512-10": (Mlp(width=512, depth=3), (1, 28, 28)),
    "ResNet18, 16 channels": (ResNet18(width=16), (3, 32, 32)),
}
BATCHES = {  # so that one process takes some seconds: network -> measuring, training
    "MLP 784-512-512-10": (1024, 160),
    "ResNet18, 16 channels": (12, 5),
}
WAYS = ("one", "two, strong", "two, weak", "apart")


def batches(rank: int, shape: tuple[int, ...], count: int) -> list[tuple[Tensor, Tensor]]:
    """A few batches over and over, others on each process."""
    g = torch.Generator().manual_seed(rank)
    made = [
        (torch.randn(BATCH, *shape, generator=g), torch.randint(OUTPUTS, (BATCH,), generator=g)) for _ in range(min(count, 8))
    ]
    return [made[k % len(made)] for k in range(count)]


def train(model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for x, y in data:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def halved(data: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    return [(x[: BATCH // 2], y[: BATCH // 2]) for x, y in data]


def measuring(network: str, rank: int) -> dict[str, Callable[[], object]]:
    model = built(network)
    data = batches(rank, SHAPES[network][1], BATCHES[network][0])
    return {
        "one": lambda: lazyrich.measure(model, data, distributed=False) if rank == 0 else None,
        "two, strong": lambda: lazyrich.measure(model, data[: len(data) // 2]),
        "two, weak": lambda: lazyrich.measure(model, data),
        "apart": lambda: lazyrich.measure(model, data, distributed=False),
    }


def training(network: str, rank: int) -> dict[str, Callable[[], object]]:
    alone, together = built(network).train(), DistributedDataParallel(built(network).train())
    data = batches(rank, SHAPES[network][1], BATCHES[network][1])
    return {
        "one": lambda: train(alone, data) if rank == 0 else None,
        "two, strong": lambda: train(together, halved(data)),
        "two, weak": lambda: train(together, data),
        "apart": lambda: train(alone, data),
    }


def built(network: str) -> nn.Module:
    torch.manual_seed(0)
    described, shape = SHAPES[network]
    return described.build(torch.zeros(1, *shape), OUTPUTS)


def timed(run: Callable[[], object]) -> float:
    dist.barrier()
    began = time.perf_counter()
    run()
    dist.barrier()
    return time.perf_counter() - began


def process(rank: int, repetitions: int, folder: str) -> None:
    """What each of the two does; the first writes down the seconds."""
    warnings.simplefilter("ignore", lazyrich.RankWarning)
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    seconds: dict[str, dict[str, dict[str, list[float]]]] = {}
    for doing, prepare in (("measuring", measuring), ("training", training)):
        for network in SHAPES:
            runs = prepare(network, rank)
            found = seconds.setdefault(doing, {}).setdefault(network, {way: [] for way in WAYS})
            timed(runs["two, strong"])  # what happens once a process
            timed(runs["apart"])
            for k in range(repetitions):
                for way in WAYS if k % 2 == 0 else reversed(WAYS):
                    found[way].append(timed(runs[way]))
    dist.barrier()
    if rank == 0:
        torch.save(seconds, Path(folder, "seconds"))
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repetitions", type=int, nargs="?", default=7)
    parser.add_argument("--out", type=Path, help="write the report here too")
    options = parser.parse_args()
    if options.repetitions < LEAST_REPETITIONS:
        raise SystemExit(f"at least {LEAST_REPETITIONS} repetitions, got {options.repetitions}")
    report = Report("Two processes beside one")
    report.machine(("lazyrich", "torch", "numpy"))
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(process, args=(options.repetitions, folder), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
        seconds = torch.load(Path(folder, "seconds"))
    rows = []
    for doing, networks in seconds.items():
        for network, found in networks.items():
            count = BATCH * BATCHES[network][doing == "training"]
            row = [doing, network, f"{count / statistics.median(found['one']):,.0f}"]
            for way in WAYS[1:]:
                work = 1 if way == "two, strong" else 2
                ratios = [work * one / other for one, other in zip(found["one"], found[way], strict=True)]
                row.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})")
            rows.append([*row, f"{REQUIRED}" if doing == "measuring" else ""])
    report.say(f"Times the throughput of one process, median of {options.repetitions} rounds (range); one thread each.\n")
    report.table(["", "network", "one: samples a second", *WAYS[1:], "required"], rows)
    report.save(options.out)


if __name__ == "__main__":
    main()
