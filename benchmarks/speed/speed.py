"""How fast, with how much memory and how exactly, beside the packages that compute the same or the like.

All are given the same float32 features (n = 20,000, p = 512, C = 10) in memory and take turns in one process. `ms` is a median.
Extra memory is what a fresh process grows by at its worst moment during the call, after a call on 64 × 16; the median of three.
The errors are relative, each number against its own definition in float64 on the same input, the worst where there are several;
once with the features as they are and once with 1,000 added to all, where float32 products not about a mean lose their digits.

The other packages are no dependencies: install them in an environment of their own and run this with its Python; what is missing
is left out.

    python benchmarks/speed/speed.py --threads 1 2 --out results/speed/peers.md
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import in_float64
import numpy as np
import torch
from collapse_by_passes import three_passes, two_passes
from side_by_side import LEAST_REPETITIONS, Report, extra_memory, in_turns, installed, threads
from torch import Tensor

from lazyrich import Gram, functional

sys.path.append(str(Path(__file__).parents[1]))  # for the package `peers`
ROWS, WIDTH, CLASSES, BATCH, OFFSET = 20_000, 512, 10, 1_000, 1_000.0
TWO_PASSES = ("two passes, pseudo-inverse", "two passes, C singular vectors")
PACKAGES = ("lazyrich", "torch", "numpy", "scikit-learn", "reptrix", "pytorch-cka", "torch-cka", "weightwatcher")
Values = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Data:
    """Features, the layer before, labels, and the head that computes the outputs."""

    features: Tensor
    layer: Tensor
    outputs: Tensor
    labels: Tensor
    head: Tensor

    def first(self, rows: int, width: int = WIDTH) -> Data:
        some = slice(rows)
        return Data(
            self.features[some, :width], self.layer[some, :width], self.outputs[some], self.labels[some], self.head[:, :width]
        )


def data() -> Data:
    """A ReLU layer over inputs with a power-law spectrum and a mean for each class."""
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (ROWS,), generator=g)
    strength = torch.arange(1, WIDTH + 1) ** -0.5
    inputs = 2 * torch.randn(ROWS, WIDTH, generator=g) * strength + torch.randn(CLASSES, WIDTH, generator=g)[labels] * strength
    layer = inputs @ (torch.randn(WIDTH, WIDTH, generator=g) / WIDTH**0.5)
    features = torch.relu(layer @ (torch.randn(WIDTH, WIDTH, generator=g) * (2 / WIDTH) ** 0.5))
    head = torch.randn(CLASSES, WIDTH, generator=g) / WIDTH**0.5
    return Data(features, layer, features @ head.T, labels, head)


@dataclass(frozen=True)
class Contender:
    """A number that somebody computes.

    Attributes:
        number: what it is.
        by: who computes it.
        run, exact: the number, and by its definition in float64.
        rows: of how many samples.
    """

    number: str
    by: str
    run: Callable[[Data], Values]
    exact: Callable[[Data], Values]
    rows: int = ROWS

    @property
    def name(self) -> str:
        return f"{self.number} | {self.by} | {self.rows:,}"


# --- lazyrich ----------------------------------------------------------------------------------------------------------


def filled(features: Tensor, outputs: Tensor | None = None, labels: Tensor | None = None, *, retain: int = 0) -> Gram:
    """A Gram that has seen the batches, as `measure` fills it."""
    gram = Gram(retain=retain)
    for start in range(0, len(features), BATCH):
        some = slice(start, start + BATCH)
        targets = None if labels is None else torch.nn.functional.one_hot(labels[some], CLASSES)
        gram.update(features[some], None if outputs is None else outputs[some], targets)
    return gram


def one_pass(d: Data) -> Values:
    """Everything that the speed is stated for, from one pass."""
    gram = filled(d.features, d.outputs, d.labels, retain=1024)
    estimate = functional.low_rank_estimate(gram)
    if estimate.corrected is None and len(d.features) > WIDTH:
        raise ArithmeticError("no corrected value")
    spectrum = functional.feature_spectrum(gram)
    return {
        "D_LR": estimate.value,
        "spectrum": spectrum.eigenvalues[: WIDTH // 2],
        "rankme": functional.rankme(gram),
        "stable rank": functional.stable_rank(gram),
        "effective rank": functional.effective_rank(gram),
        "participation ratio": functional.participation_ratio(gram),
        **collapse_of(gram, d.head),
    }


def collapse_of(gram: Gram, head: Tensor) -> Values:
    found = functional.neural_collapse(gram, head_weight=head)
    return {"NC1": found.nc1, "NC2 norms": found.nc2_equinorm, "NC2 angles": found.nc2_equiangular, "NC3": found.nc3}


def lazyrich_alpha(d: Data) -> Values:
    return {"α": functional.alpha_req(filled(d.features), fit_range=(11, min(100, len(d.features) // 2))).alpha}


# --- others ------------------------------------------------------------------------------------------------------------


def peer(module: str, function: str, number: str, *layers: str) -> Callable[[Data], Values]:
    """A function of benchmarks/peers on the named tensors of the data."""

    def run(d: Data) -> Values:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = getattr(importlib.import_module(f"peers.{module}"), function)(*(getattr(d, name) for name in layers))
        return {number: float(found)}

    return run


def torch_spectrum(d: Data) -> Values:
    return {"spectrum": torch.linalg.eigh(torch.cov(d.features.T)).eigenvalues.flip(0)[: WIDTH // 2].numpy()}


def sklearn_spectrum(solver: str) -> Callable[[Data], Values]:
    def run(d: Data) -> Values:
        from sklearn.decomposition import PCA

        found = PCA(svd_solver=solver).fit(d.features.numpy()).explained_variance_
        return {"spectrum": found[: WIDTH // 2]}

    return run


def collapse_in(passes: Callable[..., dict[str, float]], **options: bool) -> Callable[[Data], Values]:
    def run(d: Data) -> Values:
        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            yield from zip(d.features.split(BATCH), d.labels.split(BATCH), strict=True)

        return passes(batches, d.head, **options)

    return run


# --- definitions -------------------------------------------------------------------------------------------------------


def doubles(*tensors: Tensor) -> list[np.ndarray]:
    return [x.double().numpy() for x in tensors]


@cache
def eigenvalues(d: Data, centred: bool) -> np.ndarray:
    return in_float64.eigenvalues(*doubles(d.features), centred=centred)


def spectrum_of(d: Data, unbiased: bool) -> Values:
    n = len(d.features)
    return {"spectrum": eigenvalues(d, True)[: WIDTH // 2] * (n / (n - 1) if unbiased else 1)}


def everything(d: Data) -> Values:
    raw, centred = eigenvalues(d, False), eigenvalues(d, True)
    return {
        "D_LR": in_float64.low_rank(*doubles(d.features, d.outputs)),
        "spectrum": raw[: WIDTH // 2],
        "rankme": in_float64.rankme(raw),
        "stable rank": raw.sum() / raw[0],
        "effective rank": in_float64.entropy_rank(centred / centred.sum()),
        "participation ratio": centred.sum() ** 2 / (centred**2).sum(),
        **collapse(d),
    }


def collapse(d: Data) -> Values:
    features, head = doubles(d.features, d.head)
    return in_float64.collapse(features, d.labels.numpy(), head)


def collapse_and_nc4(d: Data) -> Values:
    x, head = doubles(d.features, d.head)
    means = np.stack([x[d.labels.numpy() == c].mean(0) for c in range(CLASSES)])
    nearest = ((means**2).sum(1) - 2 * x @ means.T).argmin(1)
    return collapse(d) | {"NC4": float((nearest != (x @ head.T).argmax(1)).mean())}


CONTENDERS = [
    Contender("one pass, all below but CKA", "lazyrich", one_pass, everything),
    Contender("RankMe", "lazyrich", lambda d: {"rankme": functional.rankme(filled(d.features))},
              lambda d: {"rankme": in_float64.rankme(eigenvalues(d, False))}),
    Contender("RankMe", "reptrix", peer("on_reptrix", "rankme", "rankme", "features"),
              lambda d: {"rankme": in_float64.entropy_rank(eigenvalues(d, True) / eigenvalues(d, True).sum() + 1e-7)}),
    Contender("α", "lazyrich", lazyrich_alpha, lambda d: {"α": in_float64.exponent(eigenvalues(d, True), 11, 100)}),
    Contender("α", "reptrix", peer("on_reptrix", "alpha_req", "α", "features"),
              lambda d: {"α": in_float64.exponent(eigenvalues(d, True), 11, 100)}),
    *(Contender("CKA of two layers", by, run, exact, rows) for rows, other, module in
      ((10_000, "pytorch-cka", "on_pytorch_cka"), (4_000, "torch-cka", "on_torch_cka")) for by, run, exact in (
          ("lazyrich", lambda d: {"CKA": float(functional.kernel_alignment(filled(d.features, d.layer)))},
           lambda d: {"CKA": in_float64.alignment(*doubles(d.features, d.layer))}),
          (other, peer(module, "debiased_kernel_alignment", "CKA", "features", "layer"),
           lambda d: {"CKA": in_float64.debiased_alignment(*doubles(d.features, d.layer))}))),
    Contender("NC1-NC3", "lazyrich", lambda d: collapse_of(filled(d.features, labels=d.labels), d.head), collapse),
    Contender("NC1-NC3", TWO_PASSES[0], collapse_in(two_passes), collapse),
    Contender("NC1-NC3", TWO_PASSES[1], collapse_in(two_passes, pseudo_inverse=False), collapse),
    Contender("NC1-NC4", "three passes, pseudo-inverse", collapse_in(three_passes), collapse_and_nc4),
    Contender("stable rank", "lazyrich", lambda d: {"stable rank": functional.stable_rank(filled(d.features))},
              lambda d: {"stable rank": eigenvalues(d, False).sum() / eigenvalues(d, False)[0]}),
    Contender("stable rank", "weightwatcher", peer("on_weightwatcher", "stable_rank", "stable rank", "features"),
              lambda d: {"stable rank": eigenvalues(d, False).sum() / eigenvalues(d, False)[0]}),
    Contender("spectrum", "lazyrich",
              lambda d: {"spectrum": functional.feature_spectrum(filled(d.features), centered=True).eigenvalues[: WIDTH // 2]},
              lambda d: spectrum_of(d, unbiased=False)),
    Contender("spectrum", "torch.cov + eigh", torch_spectrum, lambda d: spectrum_of(d, unbiased=True)),
    Contender("spectrum", "scikit-learn PCA", sklearn_spectrum("auto"), lambda d: spectrum_of(d, unbiased=True)),
    Contender("spectrum", "scikit-learn PCA, full", sklearn_spectrum("full"), lambda d: spectrum_of(d, unbiased=True)),
]  # fmt: skip


# --- measuring ---------------------------------------------------------------------------------------------------------


def error(contender: Contender, d: Data) -> str:
    """The worst relative error of its numbers."""
    found, exact = contender.run(d), contender.exact(d)
    worst = {name: np.max(np.abs(np.asarray(found[name], dtype=np.float64) / exact[name] - 1)) for name in exact}
    name = max(worst, key=lambda k: worst[k] if worst[k] == worst[k] else np.inf)
    return f"{worst[name]:.0e}" + (f" ({name})" if len(worst) > 1 else "")


def memory(contender: Contender, folder: Path, count: int) -> float | None:
    """MB, by fresh processes."""
    command = [sys.executable, __file__, "--memory", contender.name, str(folder), "--threads", str(count)]
    grown = []
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise RuntimeError(f"{contender.name}: {done.stderr[-2000:]}")
        grown.append(done.stdout.split()[-1])
    return None if "None" in grown else statistics.median(int(found) / 1e6 for found in grown)


def memory_of(name: str, folder: str, count: int) -> None:
    """What the fresh process does."""
    contender = next(c for c in CONTENDERS if c.name == name)
    with threads(count):
        d = Data(**{path.stem: torch.from_numpy(np.load(path)) for path in Path(folder).iterdir()}).first(contender.rows)
        with contextlib.suppress(Exception):  # too little for some; what matters is that everything is loaded
            contender.run(d.first(64, 16))
        print(extra_memory(lambda: contender.run(d)))


def measured(
    report: Report, present: list[Contender], d: Data, count: int, repetitions: int, errors: dict[str, list[str]]
) -> None:
    """The table and what is required, at so many threads."""
    with threads(count):
        seconds = in_turns({c.name: lambda c=c: c.run(d.first(c.rows)) for c in present}, repetitions)
    with tempfile.TemporaryDirectory() as folder:
        for key, x in vars(d).items():
            np.save(Path(folder) / f"{key}.npy", x.numpy())
        extra = {c.name: memory(c, Path(folder), count) for c in present}
    whole = seconds[present[0].name]
    ours = {(c.number, c.rows): seconds[c.name] for c in present if c.by == "lazyrich"}

    def row(c: Contender) -> list[str]:
        mine = ours.get((c.number.replace("NC4", "NC3"), c.rows))
        ratios = [f"{seconds[c.name] / (mine or whole):.2f}" if c.by != "lazyrich" else "", f"{seconds[c.name] / whole:.2f}"]
        megabytes = extra[c.name]
        held = "-" if megabytes is None else f"{megabytes:,.0f}"
        return [c.number, c.by, f"{c.rows:,}", f"{1e3 * seconds[c.name]:,.0f}", *ratios, held, *errors[c.name]]

    report.say(f"## {count} thread{'s' if count > 1 else ''}\n")
    columns = ["number", "by", "n", "ms", "× lazyrich's", "× the one pass", "extra MB", "error", f"error, offset {OFFSET:,.0f}"]
    report.table(columns, (row(c) for c in present))
    required = [("reptrix's RankMe", "RankMe", "reptrix", 3.0), ("pytorch-cka's CKA at n = 10,000", "CKA", "pytorch-cka", 10.0)]
    required += [(f"NC1-NC3 in {how}", "NC1-NC3", how, 1.0) for how in TWO_PASSES]
    rows = []
    for what, number, by, least in required:
        for c in present:
            if c.number.startswith(number) and c.by == by:
                ratio = seconds[c.name] / whole
                rows.append([f"{what} / the one pass", f"≥ {least:g}", f"{ratio:.2f}", "yes" if ratio >= least else "**no**"])
    megabytes = extra[present[0].name]
    if megabytes is not None:
        rows.append(["extra memory of the one pass, MB", "< 30", f"{megabytes:.1f}", "yes" if megabytes < 30 else "**no**"])
    report.table(["", "required", "measured", "holds"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repetitions", type=int, default=LEAST_REPETITIONS)
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.memory:
        name, folder = given.memory
        memory_of(name, folder, given.threads[0])
        return
    packages = {c.by for c in CONTENDERS if c.by in PACKAGES}
    missing = {name for name in packages if not installed(name)}
    present = [c for c in CONTENDERS if c.by not in missing]
    report = Report(f"One pass beside other packages: n = {ROWS:,}, p = {WIDTH}, C = {CLASSES}, float32, batches of {BATCH:,}")
    report.machine(PACKAGES)
    if missing:
        report.say(f"Not installed and left out: {', '.join(sorted(missing))}.\n")
    d = data()
    shifted = replace(d, features=d.features + OFFSET)
    errors = {c.name: [error(c, x.first(c.rows)) for x in (d, shifted)] for c in present}
    for count in given.threads:
        measured(report, present, d, count, given.repetitions, errors)
    report.save(given.out)


if __name__ == "__main__":
    main()
