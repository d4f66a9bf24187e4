"""How near to the machine's limit: the Gram beside bare matrix products, `measure` beside bare forward passes.

All pairs take turns; a figure is a ratio of medians. Bare are: the float32 products XᵀX of blocks of 1,024 rows, added up; the
model in evaluation mode without gradients over the same list of batches; one product of a p × p with a p × C matrix in float64.
The last table is what rounding does to D_LR, against float64: features in bfloat16 or rounded to the 10 bits that tf32 multiplies
(CPUs have no tf32 products; the rounding is imitated), and their products in float32 or in bfloat16.

    python benchmarks/speed/against_the_limit.py --threads 1 --out results/speed/limit.md
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import in_float64
import torch
from side_by_side import LEAST_REPETITIONS, Report, in_turns, threads
from speed import CLASSES, OFFSET, data
from torch import Tensor, nn

import lazyrich
from lazyrich import Gram, functional
from lazyrich.experiments import Mlp, ResNet18

BLOCK, BLOCKS = 1024, 12
IMAGES = {"MLP 784-512-512-10": 60_000, "ResNet18, 3 × 32 × 32": 2_048}
Rows = list[list[str]]


def gram_rates(report: Report, repetitions: int) -> None:
    """The rate of `Gram.update` over that of the bare products, counting the operations of XᵀX alone."""
    rows: Rows = []
    for p in (512, 1024, 2048):
        g = torch.Generator().manual_seed(p)
        x = torch.relu(torch.randn(BLOCK * BLOCKS, p, generator=g))
        outputs, targets = torch.randn(len(x), CLASSES, generator=g), torch.randn(len(x), CLASSES, generator=g)

        def bare(x: Tensor = x, p: int = p) -> None:
            total = torch.zeros(p, p)
            for block in x.split(BLOCK):
                torch.addmm(total, block.T, block, out=total)

        def update(batch: int, *others: Tensor, retain: int = 0, x: Tensor = x) -> Callable[[], Any]:
            def run() -> None:
                gram = Gram(retain=retain)
                for parts in zip(x.split(batch), *(y.split(batch) for y in others), strict=True):
                    gram.update(*parts)
                gram.mean("features")  # what is pending is added

            return run

        calls = {
            "bare": bare,
            "features, batches of 1,024": update(1024),
            "features, batches of 256": update(256),
            "features, outputs, targets, 1,024 rows kept, batches of 256": update(256, outputs, targets, retain=1024),
        }
        seconds = in_turns(calls, repetitions)
        rate = 2 * len(x) * p**2 / seconds["bare"] / 1e9
        for name in list(calls)[1:]:
            share = seconds["bare"] / seconds[name]
            required = ("≥ 0.70", holds(share >= 0.7)) if name.startswith("features, batches") else ("", "")
            rows.append([f"{p:,}", name, f"{rate:.0f}", required[0], f"{share:.2f}", required[1]])
    report.say("## Gram.update beside the bare product\n")
    report.table(["p", "a Gram of", "bare, 10⁹ operations/s", "required share of its rate", "measured", "holds"], rows)


def measure_ratios(report: Report, repetitions: int) -> None:
    """The time of `measure` over that of a bare forward pass over the same batches."""
    g, rows = torch.Generator().manual_seed(0), []
    for (name, count), network in zip(IMAGES.items(), (Mlp(width=512, depth=3), ResNet18()), strict=True):
        shape, batch = ((1, 28, 28), 256) if isinstance(network, Mlp) else ((3, 32, 32), 128)
        images, labels = torch.randn(count, *shape, generator=g), torch.randint(CLASSES, (count,), generator=g)
        torch.manual_seed(0)
        model = network.build(images, CLASSES).eval()
        batches = list(zip(images.split(batch), labels.split(batch), strict=True))

        def forward(model: nn.Module = model, batches: list[tuple[Tensor, Tensor]] = batches) -> None:
            with torch.no_grad():
                for x, _ in batches:
                    model(x)

        calls = {"bare": forward, "measure": lambda m=model, b=batches: lazyrich.measure(m, b)}
        seconds = in_turns(calls, repetitions)
        width = 512  # of the features, of both networks
        gram = 2 * width * (width + 2 * CLASSES)
        operations = forward_operations(model, images[:1])
        if isinstance(network, Mlp):
            most, how = 1.15 * (operations + gram) / operations, f"1.15 · (1 + {gram / operations:.3f})"
        else:
            most, how = 1.03, "1.03"
        ratio = seconds["measure"] / seconds["bare"]
        cells = [f"{count:,}", f"{seconds['bare']:.2f}", f"{seconds['measure'] - seconds['bare']:.2f}"]
        rows.append(
            [name, *cells, f"≤ {most:.3f} = {how}" if how != "1.03" else f"≤ {how}", f"{ratio:.3f}", holds(ratio <= most)]
        )
    report.say("## measure beside the bare forward pass\n")
    report.table(["model", "images", "bare, s", "more, s", "required ratio", "measured", "holds"], rows)


def forward_operations(model: nn.Module, example: Tensor) -> int:
    """Multiplications and additions of one forward pass of one sample, as PyTorch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(example)
    return counter.get_total_flops()


def large(report: Report, repetitions: int) -> None:
    """D_LR alone at p = 4,096 and C = 100, which decomposes nothing of size p."""
    p, outputs = 4096, 100
    g = torch.Generator().manual_seed(0)
    gram = Gram(retain=0)
    for _ in range(6):
        x = torch.randn(BLOCK, p, generator=g)
        gram.update(x, x[:, :outputs] + torch.randn(BLOCK, outputs, generator=g))
    state = gram.state_dict()
    a, b = torch.randn(p, p, generator=g, dtype=torch.float64), torch.randn(p, outputs, generator=g, dtype=torch.float64)
    fresh = {"D_LR": Gram.from_tensors(state)}

    def low_rank() -> None:
        functional.low_rank_measure(fresh["D_LR"])

    def product() -> None:
        torch.mm(a, b)
        fresh["D_LR"] = Gram.from_tensors(state)  # that keeps nothing from the turn before

    seconds = in_turns({"D_LR": low_rank, "product": product}, repetitions)
    ratio = seconds["D_LR"] / seconds["product"]
    cells = [f"{1e3 * seconds['product']:.0f}", f"{1e3 * seconds['D_LR']:.0f}", "a few: ≤ 5", f"{ratio:.2f}", holds(ratio <= 5)]
    report.say(f"## D_LR alone, p = {p:,}, C = {outputs}, from a filled Gram\n")
    report.table(["one p × p × C product, ms", "D_LR, ms", "required products", "measured", "holds"], [cells])


def rounding(report: Report) -> None:
    """D_LR from rounded features or products, less that in float64 from the features as they were."""
    d = data()
    rows: Rows = []
    for offset in (0.0, 10.0, OFFSET):
        x = d.features + offset
        exact = in_float64.low_rank(x.double().numpy(), d.outputs.double().numpy())
        given = {
            "float32": x,
            "rounded to tf32's 10 bits, products in float32": as_tf32(x),
            "bfloat16, products in float32": x.bfloat16(),
            "centred in float32, then as tf32": as_tf32(x - x.mean(0)),
            "centred in float32, then bfloat16": (x - x.mean(0)).bfloat16(),
        }
        for how, features in given.items():
            try:
                error = f"{float(functional.low_rank_measure(features, d.outputs)) - exact:+.1e}"
            except lazyrich.DegenerateError as refused:
                error = f"refused: {str(refused).split(':')[0]}"
            rows.append([f"{offset:,.0f}", how, f"{exact:.6f}", error])
    report.say("## What rounding does to D_LR\n")
    report.table(["offset of the features", "precision", "D_LR in float64", "error"], rows)


def as_tf32(x: Tensor) -> Tensor:
    """Rounded to a mantissa of 10 bits, halves away from zero."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def holds(yes: bool) -> str:
    return "yes" if yes else "**no**"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=LEAST_REPETITIONS)
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    given = parser.parse_args()
    warnings.simplefilter("ignore", lazyrich.RankWarning)
    report = Report(f"Beside the machine's limit, {given.threads} thread{'s' if given.threads > 1 else ''}")
    report.machine(("lazyrich", "torch", "numpy"))
    with threads(given.threads):
        gram_rates(report, given.repetitions)
        measure_ratios(report, given.repetitions)
        large(report, given.repetitions)
        rounding(report)
    report.save(given.out)


if __name__ == "__main__":
    main()
