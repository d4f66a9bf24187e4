"""What D_LR depends on, measured on trained networks (`trained_networks.py` says which).

    python benchmarks/accuracy/sensitivity.py [table ...]

Writes results/sensitivity/TABLE.md for every table, or those that are named, and prints them.
"""

from __future__ import annotations

import copy
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from trained_networks import ENDS, KINDS, REAL, Kind, LossName, accuracy, convnets, data_of, estimate, mlp, null_of, rows, trained

import lazyrich
from lazyrich.experiments import Digits, Loss, Mlp, Optimizer, Setup
from lazyrich.experiments.ingredients.data import augment
from lazyrich.experiments.ingredients.images import data_folder
from lazyrich.functional import LowRankEstimate, low_rank_estimate

OUT = Path(__file__).parents[2] / "results/sensitivity"
MANY, MOST_SETS, CLOSE = 10_000, 24, 0.01
Row = Iterable[Any]  # the first one of a table is its head


def pm(e: LowRankEstimate) -> str:
    return f"{e.corrected:.3f} ± {e.stderr:.3f}"


def listed(values: Tensor) -> str:
    return " ".join(f"{x:.3f}" for x in values.tolist())


def numbers(estimates: Iterable[LowRankEstimate], name: str) -> Tensor:
    return torch.tensor([getattr(e, name) for e in estimates], dtype=torch.float64)


@dataclass(frozen=True)
class Sampled:
    """A network on disjoint sets of n samples: (sets,) each, and the value on all samples."""

    name: str
    p: int
    n: int
    truth: float
    plug_in: Tensor
    corrected: Tensor
    stderr: Tensor
    covered: Tensor

    @property
    def claimed(self) -> float:
        return float(self.stderr.square().mean().sqrt())

    def off(self, values: Tensor) -> float:
        """Root of the mean squared distance from the value on all samples."""
        return float((values - self.truth).square().mean().sqrt())


@lru_cache
def sampled() -> list[Sampled]:
    """Every network on at most 24 disjoint sets of every size of which there are at least ten."""
    shapes: list[tuple[Kind, int]] = [*((kind, p) for p in (64, 256, 1024) for kind in ENDS), ("middling", 256)]
    networks = [(f"MLP, {kind}", mlp(kind, p), "train") for kind, p in shapes]
    networks += [(f"{name}, unseen images", setup, "test") for name, setup in convnets().items() if name == "ResNet18"]
    found = []
    for name, setup, part in networks:
        features, outputs = rows(trained(setup), getattr(data_of(setup), part).inputs)
        truth = float(numbers([low_rank_estimate(features, outputs)], "corrected"))
        n = 64
        while (sets := len(features) // n) >= 10:
            cut = [x[: sets * n].split(n)[:MOST_SETS] for x in (features, outputs)]
            some = [low_rank_estimate(x, f) for x, f in zip(*cut, strict=True)]
            plug_in, corrected, stderr = (numbers(some, field) for field in ("value", "corrected", "stderr"))
            covered = torch.tensor([e.interval is not None and e.interval[0] < truth < e.interval[1] for e in some])
            found.append(Sampled(name, features.shape[1], n, truth, plug_in, corrected, stderr, covered))
            n *= 2
    return found


def samples() -> Iterator[Row]:
    """D_LR over the number of samples."""
    yield ("network | p | D_LR on all | n | sets | plug-in | corrected | error: claimed / seen | 95 % interval covers",)
    for s in sampled():
        means = f"{s.plug_in.mean():.4f}", f"{s.corrected.mean():.4f}", f"{s.claimed:.4f} / {s.corrected.std():.4f}"
        yield s.name, s.p, f"{s.truth:.4f}", f"{s.n:,}", len(s.covered), *means, f"{int(s.covered.sum())} of {len(s.covered)}"


def error_bars() -> Iterator[Row]:
    """Whether the error bars are right, over all networks, by the number of samples for each feature."""
    yield ("samples for each feature | networks and sizes | error seen / claimed, median (least … most) | intervals that cover",)
    for low, high in ((0, 0.5), (0.5, 2), (2, 8), (8, float("inf"))):
        some = [s for s in sampled() if low <= s.n / s.p < high]
        if some:
            ratio = torch.tensor([float(s.corrected.std()) / s.claimed for s in some]).sort().values
            covered = torch.cat([s.covered for s in some]).double()
            spread = f"{ratio.median():.2f} ({ratio[0]:.2f} … {ratio[-1]:.2f})"
            between = f"{low:g} to {high:g}" if high < 1e9 else f"{low:g} and more"
            yield between, len(some), spread, f"{covered.mean():.1%} of {len(covered)}"


def guidance() -> Iterator[Row]:
    """From how many samples on a value lies within 0.01 (root mean square) of that on all."""
    yield ("network | p | D_LR on all | plug-in | corrected | corrected, by the error claimed at n = 512",)
    for name, p in dict.fromkeys((s.name, s.p) for s in sampled()):
        sizes = [s for s in sampled() if (s.name, s.p) == (name, p)]
        needed = []
        for off in ([s.off(s.plug_in) for s in sizes], [s.off(s.corrected) for s in sizes]):
            far = max((k for k, x in enumerate(off) if x > CLOSE), default=-1)
            needed.append(f"{sizes[far + 1].n:,}" if far + 1 < len(sizes) else f"over {sizes[-1].n:,}")
        some = next((s for s in sizes if s.n == 512), sizes[-1])
        yield name, p, f"{some.truth:.4f}", *needed, f"{some.n * (some.claimed / CLOSE) ** 2:,.0f}"


def probe() -> Iterator[Row]:
    """Ten disjoint sets of the same size, one by one."""
    yield ("network | p | corrected on each of ten disjoint sets of 1,024 | mean | spread | claimed error",)
    for s in sampled():
        if s.n == 1024:
            ten, claimed = s.corrected[:10], s.stderr[:10].square().mean().sqrt()
            yield s.name, s.p, listed(ten), *(f"{x:.4f}" for x in (ten.mean(), ten.std(), claimed))


def train_test() -> Iterator[Row]:
    """On the images that it was trained on, and on others."""
    yield ("network | trained on | D_LR, training images | D_LR, test images | accuracy, training | test",)
    networks: list[tuple[str, Setup]] = [
        (f"MLP, {kind}", mlp(kind, images=n)) for n in (None, 1000)[: 1 + REAL] for kind in KINDS
    ]
    for name, setup in [*networks, *convnets().items()]:
        data, network = data_of(setup), trained(setup)
        both = [split[:MANY] for split in (data.train, data.test)]
        values = [pm(estimate(network, split.inputs)) for split in both]
        yield name, f"{len(data.train):,}", *values, *(accuracy(network, split) for split in both)


def seeds() -> Iterator[Row]:
    """Other starts and orders of the same images."""
    yield (
        "network | corrected, each of five seeds | mean | sd over seeds | standard error of one | balanced, mean | sd over seeds",
    )
    for kind in KINDS:
        setup = mlp(kind)
        found = [rows(trained(setup, seed), data_of(setup).train.inputs[:MANY]) for seed in range(5)]
        some = [low_rank_estimate(*x) for x in found]
        values = numbers(some, "corrected")
        balanced = numbers((low_rank_estimate(*x, reference="balanced") for x in found), "corrected")
        spread = (values.mean(), values.std(), some[0].stderr, balanced.mean(), balanced.std())
        yield f"MLP, {kind}", listed(values), *(f"{x:.4f}" for x in spread)


def width() -> Iterator[Row]:
    """The number of features."""
    yield ("network | p | plug-in, n = 512 | corrected, all | isotropic | over isotropic | over untrained features",)
    for kind in ENDS:
        for p in (64, 128, 256, 512, 1024):
            setup = mlp(kind, p)
            inputs = data_of(setup).train.inputs[:MANY]
            few = estimate(trained(setup), inputs[:512])
            yield f"MLP, {kind}", p, f"{few.value:.3f}", *held_against(setup, inputs)


def classes() -> Iterator[Row]:
    """The number of classes."""
    yield ("network | C | rank | corrected, all | isotropic | over isotropic | over untrained features",)
    for kind in ENDS:
        for count in (2, 3, 5, 10):
            setup, some = mlp(kind), None if count == 10 else count
            inputs = data_of(setup, some).train.inputs[:MANY]
            yield f"MLP, {kind}", count, estimate(trained(setup, classes=some), inputs).rank, *held_against(setup, inputs, some)


def held_against(setup: Setup, inputs: Tensor, some: int | None = None) -> list[str]:
    """The corrected value, the isotropic one, and what share it is of that and of untrained features."""
    e = estimate(trained(setup, classes=some), inputs)
    isotropic = e.isotropic or float("nan")  # a number: there are more features than classes
    shares = (float(numbers([e], "corrected")) / isotropic, null_of(setup, inputs, some).untrained_features.ratio)
    return [pm(e), f"{isotropic:.3f}", *(f"{x:.2f}" for x in shares)]


def dtype() -> Iterator[Row]:
    """The precision that the network computes in."""
    yield ("network | computed in | D_LR | less that of float64 | corrected | rank",)
    kinds = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    for name, setup in [*((f"MLP, {kind}", mlp(kind)) for kind in KINDS), *convnets().items()]:
        inputs, exact = data_of(setup).train.inputs[:2000], None
        for text, kind in (kinds | {"float32, autocast to bfloat16": torch.float32}).items():
            network = copy.deepcopy(trained(setup)).to(kind)
            with torch.autocast("cpu", torch.bfloat16) if "autocast" in text else nullcontext():
                r = lazyrich.measure(network, inputs.to(kind))
            exact = r.low_rank if exact is None else exact
            corrected = f"{r.low_rank_corrected:.4f} ± {r.low_rank_stderr:.4f}"
            yield name, text, f"{r.low_rank:.5f}", f"{r.low_rank - exact:+.5f}", corrected, r.output_rank


def loss() -> Iterator[Row]:
    """The loss."""
    yield ("loss | network | D_LR | without directions under 0.1 | balanced | over untrained features | σ₁/σ_r",)
    names: tuple[LossName, ...] = ("squared", "cross-entropy")
    for name in names:
        for kind in KINDS:
            setup = mlp(kind, loss=name)
            inputs = data_of(setup).train.inputs[:MANY]
            features, outputs = rows(trained(setup), inputs)
            e, balanced = low_rank_estimate(features, outputs), low_rank_estimate(features, outputs, reference="balanced")
            uneven = e.singular_values[0] / e.singular_values[e.rank - 1]
            ratio = null_of(setup, inputs).untrained_features.ratio
            yield name, f"MLP, {kind}", pm(e), f"{e.band[0.1]:.3f}", pm(balanced), f"{ratio:.2f}", f"{uneven:.3g}"


def modes() -> Iterator[Row]:
    """Evaluation mode, and what part of training mode makes which difference."""
    yield ("network | mode | D_LR | accuracy",)
    norm, drop = nn.BatchNorm2d, nn.Dropout
    for name, setup in convnets().items():
        split = data_of(setup).train[:2000]
        for text, batch, switched, shifted in (
            ("evaluation, as `measure` does", 500, (), False),
            ("the same on augmented images", 500, (), True),
            ("batch norm in training mode, batches of 500", 500, (norm,), False),
            ("batch norm in training mode, batches of 20", 20, (norm,), False),
            ("dropout in training mode", 500, (drop,), False),
            ("all in training mode, augmented images, batches of 125", 125, (norm, drop), True),
        ):
            network = copy.deepcopy(trained(setup))
            mine = [m for m in network.modules() if isinstance(m, switched)]
            if switched == (drop,) and not mine:
                continue
            for module in mine:
                module.train()
            torch.manual_seed(0)
            features, outputs = rows(network, augment(split.inputs, 0) if shifted else split.inputs, batch)
            right = (outputs.argmax(1) == split.labels).double().mean()
            yield name, text, pm(low_rank_estimate(features, outputs)), f"{right:.1%}"


def null() -> Iterator[Row]:
    """The networks among draws of three hypotheses."""
    yield (
        "network | p | D_LR | untrained features, these outputs | ratio | untrained networks, their outputs | isotropic features",
    )
    networks = [(f"MLP, {kind}", mlp(kind)) for kind in KINDS] + [(f"MLP, {kind}", mlp(kind, 1024)) for kind in ENDS]
    for name, setup in [*networks, *list(convnets().items())[:1]]:
        found = null_of(setup, data_of(setup).train.inputs)
        cells: list[str] = []
        for among in (found.untrained_features, found.untrained_networks, found.isotropic):
            if among is not None:
                cells.append(f"{among.median:.3f} ({among.draws[0]:.3f} … {among.draws[-1]:.3f}), {among.percentile:.0f} % below")
        yield name, found.num_features, f"{found.low_rank:.3f}", cells[0], f"{found.untrained_features.ratio:.2f}", *cells[1:]


def lazy() -> Iterator[Row]:
    """Digits, the last layer alone trained: how a network that is lazy by construction comes out among untrained features."""
    yield ("p | last layer trained for | D_LR, mean of ten networks | ratio, mean (least … most) | below all 19 draws",)
    for p in (64, 256, 512):
        for epochs in (5, 100):
            steps = epochs * (len(Digits().load(0, data_folder()).train) // 128)
            setup = Setup(Digits(), Mlp(width=p), Loss("squared"), Optimizer("adam", 1e-3), steps, trained="last layer")
            found = [null_of(setup, data_of(setup).train.inputs, seed=seed).untrained_features for seed in range(10)]
            ratios = sorted(among.ratio for among in found)
            value, below = sum(among.value for among in found) / 10, sum(among.percentile == 0 for among in found)
            ratio = f"{sum(ratios) / 10:.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f})"
            yield p, f"{epochs} epochs", f"{value:.3f}", ratio, f"{below} of 10"


TABLES: dict[str, Callable[[], Iterator[Row]]] = {
    table.__name__.replace("_", "-"): table
    for table in (samples, error_bars, guidance, probe, train_test, seeds, width, classes, dtype, loss, modes, null, lazy)
}


def main(names: list[str]) -> None:
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise SystemExit(f"no table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    warnings.simplefilter("ignore", lazyrich.RankWarning)
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    versions = f"Python {platform.python_version()}, PyTorch {torch.__version__}, lazyrich {lazyrich.__version__}"
    for name in names or TABLES:
        began, lines = time.monotonic(), []
        for row in TABLES[name]():
            lines.append(f"| {' | '.join(map(str, row))} |")
            lines += ["|" + " --- |" * (lines[0].count(" | ") + 1)] if len(lines) == 1 else []
            print(lines[-1], flush=True)
        seconds = time.monotonic() - began
        lines += ["", f"`python benchmarks/accuracy/sensitivity.py {name}`, {seconds:.0f} s on one thread of a CPU; {versions}."]
        (OUT / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(lines[-1] + "\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
