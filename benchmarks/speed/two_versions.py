"""`measure` over the bare forward pass at two commits, side by side: processor time, medians of calls that take turns.

Each version runs in a process of its own with one thread. In every round each process runs the forward passes and then a
measurement of the same network on the same batches, and the processes take turns. A ratio is the median over the rounds of
measurement / forward passes in the same process and round.

    git worktree add ../before COMMIT
    python benchmarks/speed/two_versions.py ../before/src src --out results/speed/versions.md
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch
from side_by_side import LEAST_REPETITIONS, Report
from torch import nn

BATCHES = 8


def mlp() -> tuple[nn.Module, list[Any]]:
    layers = [nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]
    return nn.Sequential(*layers), list(torch.randn(BATCHES * 1024, 784).split(1024))


def resnet() -> tuple[nn.Module, list[Any]]:
    from lazyrich.experiments import ResNet18

    images = torch.randn(BATCHES * 16, 3, 32, 32)
    return ResNet18().build(images, 10), list(images.split(16))


def bert() -> tuple[nn.Module, list[Any]]:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    config = BertConfig.from_dict({"vocab_size": 5000, "num_labels": 3, **sizes})
    return BertForSequenceClassification(config), texts(32, 32)


def gpt2() -> tuple[nn.Module, list[Any]]:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=5000, n_embd=256, n_layer=4, n_head=4)), texts(8, 64)


def texts(batch: int, length: int) -> list[Any]:
    ids = torch.randint(1, 5000, (BATCHES * batch, length))
    return [{"input_ids": x, "attention_mask": torch.ones_like(x)} for x in ids.split(batch)]


NETWORKS: dict[str, Callable[[], tuple[nn.Module, list[Any]]]] = {
    "MLP 784-512-512-10, 8 × 1,024 images": mlp,
    "ResNet18, 8 × 16 images of 32 × 32": resnet,
    "BERT of 4 layers, width 256, 8 × 32 texts of 32 tokens": bert,
    "GPT-2 of 4 layers, width 256, 5,000 words, 8 × 8 texts of 64 tokens": gpt2,
}


def worker(name: str) -> None:
    """Runs a network once for every line on standard input, and prints the processor time of forward passes and measurement."""
    import lazyrich

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, batches = NETWORKS[name]()
    network.eval()

    def forward() -> None:
        with torch.no_grad():
            for batch in batches:
                network(**batch) if isinstance(batch, dict) else network(batch)

    for call in (forward, lambda: lazyrich.measure(network, batches)):
        call()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(seconds(forward), seconds(lambda: lazyrich.measure(network, batches)), flush=True)


def seconds(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


@contextmanager
def started(source: Path, name: str) -> Iterator[Callable[[], tuple[float, float]]]:
    """A process of one version; each call returns the seconds of the forward passes and of a measurement."""
    environment = os.environ | {"PYTHONPATH": str(source.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", name]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:  # noqa: S603 - this file
        to, answers = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        answers.readline()

        def once() -> tuple[float, float]:
            to.write("\n")
            to.flush()
            forward, measure = map(float, answers.readline().split())
            return forward, measure

        yield once
        to.close()


def commit(source: Path) -> str:
    """The commit that is checked out where a folder lies."""
    command = ["git", "-C", str(source), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("before", type=Path, nargs="?", help="the folder src of the earlier version")
    parser.add_argument("after", type=Path, nargs="?", help="the folder src of the later version")
    parser.add_argument("--rounds", type=int, default=LEAST_REPETITIONS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker)
        return
    if given.before is None or given.after is None or given.rounds < LEAST_REPETITIONS:
        parser.error(f"two folders, and at least {LEAST_REPETITIONS} rounds")
    report = Report("`measure` over the bare forward pass, at two commits")
    report.machine(["torch", "numpy", "transformers"])
    report.say(f"One thread; processor time; medians and quartiles of {given.rounds} rounds in which the versions take turns.\n")
    rows = []
    for name in NETWORKS:
        with started(given.before, name) as before, started(given.after, name) as after:
            pairs = [(before(), after()) if k % 2 else (after(), before())[::-1] for k in range(given.rounds)]
        old, new = ([measure / forward for forward, measure in version] for version in zip(*pairs, strict=True))
        quartiles = [statistics.quantiles(ratios, n=4) for ratios in (old, new)]
        bare = statistics.median(forward for both in pairs for forward, _ in both)
        ratios = [f"{middle:.2f} ({low:.2f} … {high:.2f})" for low, middle, high in quartiles]
        change = statistics.median(b / a for a, b in zip(old, new, strict=True))
        rows.append([name, f"{bare:.2f}", *ratios, f"{change:.2f}"])
        print(rows[-1], file=sys.stderr, flush=True)
    columns = [f"measure / forward at {commit(source)}" for source in (given.before, given.after)]
    report.table(["network", "forward passes, s", *columns, "later / earlier"], rows)
    report.save(given.out)


if __name__ == "__main__":
    main()
