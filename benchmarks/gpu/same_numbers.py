"""The same numbers on both devices, the cost of a measurement compared with the forward pass, and how often the host waits.

    python benchmarks/gpu/same_numbers.py results/gpu/same_numbers.md            (--device cpu --small tries it without a GPU)

ResNet50 and ViT-B/16 need torchvision, GPT-2 needs Transformers; what is missing is left out by name.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import lazyrich


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def convolutions() -> nn.Module:
    body = [nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(32, 10))


def numbers(r: lazyrich.Richness) -> dict[str, float]:
    """What must agree: the values of the head and of each layer, and the standard error."""
    found = {"D_LR": r.low_rank, "balanced": r.balanced, "± stderr": r.low_rank_stderr or 0.0}
    return found | {f"D_LR of {name}": layer.low_rank for name, layer in r.layers.items()}


def same(device: str) -> Iterator[tuple[str, float]]:
    """(case, largest difference between the CPU and the device)."""
    torch.manual_seed(0)
    for name, build, x in (("MLP", mlp, torch.randn(3000, 64) + 3), ("CNN", convolutions, torch.randn(600, 3, 12, 12))):
        network, y = build().eval(), torch.arange(len(x)) % 10
        start = build().eval()
        more: dict[str, dict[str, Any]] = {"": {}, ", layers": {"layers": "all"}, ", balanced classes": {"class_balanced": True}}
        for text, options in more.items():
            here = numbers(lazyrich.measure(network.cpu(), [(x, y)], start=start.cpu(), **options))
            there = numbers(
                lazyrich.measure(network.to(device), [(x.to(device), y.to(device))], start=start.to(device), **options)
            )
            yield f"measure, {name}{text}", max(abs(here[key] - there[key]) for key in here)
    features, outputs = torch.relu(torch.randn(5000, 300)), torch.randn(5000, 7)
    here, there = (lazyrich.functional.low_rank_estimate(features.to(d), outputs.to(d)) for d in ("cpu", device))
    yield "functional, value", abs(here.value - there.value)
    yield "functional, corrected", abs((here.corrected or 0.0) - (there.corrected or 0.0))
    metric = lazyrich.LowRankMeasure().to(device)
    for rows in torch.arange(5000).split(500):
        metric.update(features[rows].to(device), outputs[rows].to(device))
    yield "metric", abs(float(metric.compute()) - here.value)
    network = mlp().to(device)
    data = torch.randn(512, 64, device=device)
    with lazyrich.Monitor(network, data, every=1) as monitor:
        monitor.step()
    yield "Monitor against measure", abs(float(monitor.series["low_rank"][-1]) - lazyrich.measure(network, data).low_rank)


def networks(device: str, small: bool) -> Iterator[tuple[str, Callable[[], nn.Module], list[Any], dict[str, Any]]]:
    batch, side, length, count = (4, 64, 32, 2) if small else (256, 224, 512, 20)
    images = [(torch.randn(batch, 3, side, side, device=device), torch.randint(1000, (batch,), device=device)) for _ in range(2)]
    tokens = [{"input_ids": torch.randint(50257, (min(batch, 16), length), device=device)} for _ in range(2)]
    try:
        import torchvision  # pyright: ignore[reportMissingImports]

        yield "ResNet50", torchvision.models.resnet50, [images[k % 2] for k in range(count)], {}
        if not small:
            yield "ViT-B/16", torchvision.models.vit_b_16, [images[k % 2] for k in range(count)], {}
    except ImportError:
        print("torchvision is not installed: ResNet50 and ViT-B/16 are left out")
    try:
        from transformers import GPT2Config, GPT2LMHeadModel

        def language() -> nn.Module:
            return GPT2LMHeadModel(GPT2Config(n_layer=1) if small else GPT2Config())

        yield "GPT-2", language, [tokens[k % 2] for k in range(count)], {}
        yield "GPT-2, all layers", language, [tokens[k % 2] for k in range(max(2, count // 4))], {"layers": "all"}
    except ImportError:
        print("Transformers is not installed: GPT-2 is left out")


def cost(device: str, small: bool) -> Iterator[tuple[str, float, float, float, str]]:
    """(network, measure / forward, seconds of the forward pass, MiB beyond it, how often the host waited in a batch)."""
    cuda = device.startswith("cuda")
    for name, build, data, options in networks(device, small):
        network = build().to(device).eval()

        def forward(network: nn.Module = network, data: list[Any] = data) -> None:
            with torch.no_grad():
                for batch in data:
                    network(**batch) if isinstance(batch, dict) else network(batch[0])

        def measured(network: nn.Module = network, data: list[Any] = data, options: dict[str, Any] = options) -> None:
            lazyrich.measure(network, data, **options)

        ratios, seconds, peaks = [], [0.0, 0.0], [0.0, 0.0]
        for turn in range(2 if small else 6):  # the first one is to warm up
            for k, call in enumerate((forward, measured)):
                if cuda:
                    torch.cuda.reset_peak_memory_stats()
                began = time.perf_counter()
                call()
                if cuda:
                    torch.cuda.synchronize()
                    peaks[k] = torch.cuda.max_memory_allocated() / 2**20
                seconds[k] = time.perf_counter() - began
            ratios += [seconds[1] / seconds[0]] if turn else []
        waits = f"{_waits(measured) / len(data):.1f}" if cuda else "-"
        yield name, statistics.median(ratios), seconds[0], peaks[1] - peaks[0], waits


def _waits(call: Callable[[], None]) -> int:
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    card = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    lines = [f"{card}, PyTorch {torch.__version__}, lazyrich {lazyrich.__version__}", ""]

    def written(line: str) -> None:
        lines.append(line)
        print(line, flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")

    written("| case | largest difference from the CPU |\n| --- | ---: |")
    for case, difference in same(options.device):
        written(f"| {case} | {difference:.1e} |")
    written(
        "\n| network | measure / forward | forward, s | MiB beyond it | waits in a batch |\n| --- | ---: | ---: | ---: | ---: |"
    )
    for name, ratio, seconds, memory, waits in cost(options.device, options.small):
        written(f"| {name} | {ratio:.3f} | {seconds:.3f} | {memory:.0f} | {waits} |")


if __name__ == "__main__":
    main()
