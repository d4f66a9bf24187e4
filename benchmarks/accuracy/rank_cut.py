"""Where does the rounding of the activations end? The measurement behind the default cut of the output rank.

Networks whose outputs sum to zero (the rows of the head do, and its bias) have one output direction that carries nothing
but rounding. For several networks, feature offsets and precisions this prints that spurious singular value and
the smallest true one, in units of eps(dtype of the outputs) times the root mean square output. The cut must lie above the
spurious ones. True ones at or under it (deep untrained networks, whose outputs hardly vary beside their mean) are drowned in
the same rounding: no rule could tell them apart.

    python benchmarks/accuracy/rank_cut.py
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from lazyrich.functional.span import HALF_ROUNDING_FACTOR, ROUNDING_FACTOR

CLASSES, WIDTH, SAMPLES = 10, 512, 2048


class Shift(nn.Module):
    """Adds an offset to the features, as a saturated or badly centred layer would."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.offset


def head() -> nn.Linear:
    """A linear layer whose outputs sum to zero up to rounding."""
    layer = nn.Linear(WIDTH, CLASSES)
    with torch.no_grad():
        layer.weight.sub_(layer.weight.mean(0))
        layer.bias.sub_(layer.bias.mean())
    return layer


def mlp(depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [nn.Linear(64 if k == 0 else WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*layers)


def conv(depth: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    for k in range(depth):
        channels = WIDTH if k == depth - 1 else 64
        layers += [nn.Conv2d(1 if k == 0 else 64, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def transformer(depth: int) -> nn.Sequential:
    layer = nn.TransformerEncoderLayer(WIDTH, 8, 1024, dropout=0.0, batch_first=True, norm_first=True)
    body = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
    return nn.Sequential(nn.Unflatten(1, (4, 16)), nn.Linear(16, WIDTH), body, nn.AdaptiveAvgPool2d((1, WIDTH)), nn.Flatten())


def outputs(body: nn.Module, layer: nn.Module, inputs: torch.Tensor, precision: str) -> torch.Tensor:
    model: Any = nn.Sequential(body, layer).eval()
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision, torch.float32)
    model, inputs = model.to(dtype), inputs.to(dtype)
    context = torch.autocast("cpu", dtype=torch.bfloat16) if precision == "autocast bf16" else nullcontext()
    with torch.no_grad(), context:
        return torch.cat([model(part) for part in inputs.split(512)])


def main() -> None:
    bodies = {
        "mlp 3": lambda: mlp(3),
        "mlp 12": lambda: mlp(12),
        "conv 8": lambda: conv(8),
        "transformer 4": lambda: transformer(4),
    }
    worst: dict[bool, float] = {}
    print(f"{'network':<14} {'offset':>6} {'precision':<14} {'spurious':>9} {'true':>9}   in eps·rms; n = {SAMPLES}")
    for name, build in bodies.items():
        for offset in (0.0, 10.0, 1000.0):
            for precision in ("float32", "bfloat16", "float16", "autocast bf16"):
                torch.manual_seed(0)
                f = outputs(nn.Sequential(build(), Shift(offset)), head(), torch.randn(SAMPLES, 64), precision)
                eps = torch.finfo(f.dtype).eps
                singular = torch.linalg.svdvals(f.double()) / SAMPLES**0.5
                unit = eps * f.double().square().mean().sqrt()
                spurious, true = float(singular[-1] / unit), float(singular[-2] / unit)
                half = eps > 1e-5
                worst[half] = max(worst.get(half, 0.0), spurious)
                print(f"{name:<14} {offset:>6.0f} {precision:<14} {spurious:>9.2f} {true:>9.1f}", flush=True)
    for half, largest in worst.items():
        factor, kind = (HALF_ROUNDING_FACTOR, "half precision") if half else (ROUNDING_FACTOR, "float32")
        print(f"{kind}: largest spurious {largest:.2f}, the cut is at {factor:g}")


if __name__ == "__main__":
    main()
