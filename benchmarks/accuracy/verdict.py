"""The confusion table of the verdict: what `Richness.verdict` says of networks whose regime is known.

Lazy by construction are networks whose features are frozen, and antisymmetric ones with γ₀ = 0.03 or less under the squared loss.
Rich are antisymmetric ones with γ₀ = 3 or more, and networks with a small output scale that are trained until they fit. The
others are listed without a label. Each network is judged three times: with its start, with four redraws, and with neither.
The networks of seed 0 set the thresholds; those of the other seeds set none, and they make the confusion tables.

    python benchmarks/accuracy/verdict.py results/accuracy/verdict.csv > results/accuracy/verdict.md

Needs MNIST, Fashion-MNIST and CIFAR-10 in LAZYRICH_DATA. A network that is in the file already is not trained again.
"""

from __future__ import annotations

import copy
import csv
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import lazyrich
from lazyrich.experiments import Images, Loss, Mlp, Optimizer, Split
from lazyrich.experiments.ingredients.images import data_folder
from lazyrich.experiments.ingredients.parametrization import Parametrization
from lazyrich.experiments.training import batch_rows

IMAGES, STEPS, BATCH = 1_000, 4_000, 128
SETS = ("mnist", "fashion-mnist", "cifar10")
SQUARED, ENTROPY = "squared loss", "cross-entropy"
PARAMETRIZATIONS: tuple[Parametrization, ...] = ("ntk", "mup")
KNOWN = ("start", "redraws", "neither")
COLUMNS: tuple[str, ...] = (
    "network",
    "regime",
    "seed",
    "train_accuracy",
    "low_rank",
    "isotropic",
    "laziness",
    "laziness_redraws",
    "laziness_balanced",
    *KNOWN,
)


@dataclass(frozen=True)
class Case:
    """A network and how it is trained.

    Attributes:
        regime: "rich" or "lazy" where that is known, else "".
        rate: of SGD for "sgd", of Adam for "adam".
    """

    text: str
    regime: str
    data: str
    seed: int
    model: Mlp
    loss: str
    optimizer: Optimizer
    frozen: bool = False

    @property
    def name(self) -> str:
        return f"{self.data}, {self.loss}, {self.text}"


def cases() -> Iterator[Case]:
    """The networks that set thresholds (seed 0), and those that do not."""
    groups = ((0, SETS[:2], 128), (10, SETS, 128), (11, SETS[:1], 256), (12, SETS, 192), (13, SETS[1:2], 256))
    for seed, sets, width in groups:
        for data in sets:
            yield from _dial(data, seed, width)
            yield from _frozen(data, seed, 4 * width if seed == 11 else width // 4)
            yield from _small_outputs(data, seed, width)
    yield from _widths("mnist", 12)


def _dial(data: str, seed: int, width: int) -> Iterator[Case]:
    for loss, rate, scales in ((SQUARED, 0.05, (0.03, 0.3, 1.0, 3.0, 10.0)), (ENTROPY, 0.1, (0.03, 1.0, 3.0))):
        for scale in scales:
            known = "rich" if scale >= 3 else "lazy" if scale <= 0.03 and loss == SQUARED else ""
            model = Mlp(width=width, depth=3, antisymmetric=True, output_scale=1 / scale)
            optimizer = Optimizer("sgd", rate * scale ** (2 if scale <= 1 else 2 / 3), momentum=0.0)
            yield Case(f"γ₀ = {scale:g}, width {width}", known, data, seed, model, loss, optimizer)


def _frozen(data: str, seed: int, width: int) -> Iterator[Case]:
    for loss in (SQUARED, ENTROPY):
        model = Mlp(width=width, depth=3)
        yield Case(f"features frozen, width {width}", "lazy", data, seed, model, loss, Optimizer("adam", 1e-3), frozen=True)


def _small_outputs(data: str, seed: int, width: int) -> Iterator[Case]:
    for loss in (SQUARED, ENTROPY):
        model = Mlp(width=width, depth=4, output_scale=0.03)
        yield Case(f"outputs × 0.03, width {width}", "rich", data, seed, model, loss, Optimizer("adam", 1e-3))


def _widths(data: str, seed: int) -> Iterator[Case]:
    """Two parametrizations at two widths: which regime they end in is not known beforehand."""
    for parametrization in PARAMETRIZATIONS:
        for width in (64, 1024):
            model = Mlp(width=width, depth=3, parametrization=parametrization, base_width=64)
            yield Case(f"{parametrization}, width {width}", "", data, seed, model, SQUARED, Optimizer("sgd", 0.05, momentum=0.0))


def trained(case: Case, split: Split) -> tuple[nn.Module, nn.Module, float]:
    """The network, its start, and its accuracy on the training images."""
    with torch.random.fork_rng():
        torch.manual_seed(case.seed)
        network = case.model.build(split.inputs, 10)
        start = copy.deepcopy(network)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not case.frozen or name.startswith("head."))
        optimizer = case.optimizer.build(network, case.model)
        loss = Loss("squared", weight=10.0) if case.loss == SQUARED else Loss("cross-entropy")
        for step in range(1, STEPS + 1):
            rows = batch_rows(len(split), BATCH, case.seed, step)
            optimizer.zero_grad()
            loss(network(split.inputs[rows]), split.labels[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            accuracy = float((network(split.inputs).argmax(1) == split.labels).float().mean())
    return network.requires_grad_(True), start, accuracy


def judged(case: Case, split: Split) -> dict[str, str]:
    """A row of the file."""
    network, start, accuracy = trained(case, split)
    data = (split.inputs, split.labels)
    found = {
        "start": lazyrich.measure(network, data, head="head", start=start),
        "redraws": lazyrich.measure(network, data, head="head", null=4, build=lambda: case.model.build(split.inputs, 10)),
        "neither": lazyrich.measure(network, data, head="head"),
    }
    r = found["start"]
    row = {"network": case.name, "regime": case.regime, "seed": str(case.seed), "train_accuracy": f"{accuracy:.3f}"}
    row |= {"low_rank": f"{r.low_rank:.4f}", "isotropic": f"{r.isotropic:.4f}"}
    ratios = {"laziness": r.laziness, "laziness_redraws": found["redraws"].laziness, "laziness_balanced": r.laziness_balanced}
    row |= {name: "" if value is None else f"{value:.4f}" for name, value in ratios.items()}
    return row | {known: result.verdict.regime for known, result in found.items()}


def images(case: Case, root: Path) -> Split:
    """Images of half the height and width."""
    train = Images(case.data, train=IMAGES).load(case.seed, root).train
    return Split(nn.functional.avg_pool2d(train.inputs, 2), train.labels)


def tables(rows: list[dict[str, str]]) -> str:
    """The confusion table of the networks that set no threshold, and all networks."""
    lines = []
    tested = [row for row in rows if row["seed"] != "0"]
    regimes = ["rich", "intermediate", "lazy", "mixed", "no room", "untrained", "undecided"]
    for known in KNOWN:
        lines += [
            "",
            f"With {'the start' if known == 'start' else known}:",
            "",
            "| known regime | networks | " + " | ".join(regimes) + " |",
        ]
        lines.append("| --- |" + " ---: |" * (1 + len(regimes)))
        for regime in ("rich", "lazy", ""):
            counts = Counter(row[known] for row in tested if row["regime"] == regime)
            lines.append(
                f"| {regime or 'not known'} | {counts.total()} | " + " | ".join(str(counts[name]) for name in regimes) + " |"
            )
    headings = ("network", "seed", "known", "training accuracy", "D_LR", "isotropic", "λ", "λ of redraws", "λ balanced")
    headings += tuple(f"with {'the start' if known == 'start' else known}" for known in KNOWN)
    columns = ("network", "seed", "regime", *COLUMNS[3:])
    lines += ["", "| " + " | ".join(headings) + " |", "| --- | ---: | --- |" + " ---: |" * 6 + " --- |" * 3]
    lines += ["| " + " | ".join(row[name] or "-" for name in columns) + " |" for row in rows]
    return "\n".join(lines[1:])


def main() -> None:
    path = Path(sys.argv[1])
    rows = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    done = {(row["network"], row["seed"]) for row in rows}
    for case in cases():
        if (case.name, str(case.seed)) in done:
            continue
        rows.append(judged(case, images(case, data_folder())))
        print(rows[-1], file=sys.stderr)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(tables(rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", lazyrich.RankWarning)
    main()
