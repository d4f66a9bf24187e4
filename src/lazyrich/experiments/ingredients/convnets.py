"""ResNet18 and VGG16 for images of 32 × 32 pixels, of any width and with any normalisation."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

NormName = Literal["batch", "none", "frozen batch", "layer", "group"]


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with the statistics of the first training batch: the same start, but samples of a batch do not interact."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=None)

    def forward(self, input: Tensor) -> Tensor:
        """The affine map with the statistics of the first training batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            raise TypeError("frozen batch norm needs its statistics: track_running_stats=True")
        if self.training and self.num_batches_tracked == 0:
            with torch.no_grad():
                var, mean = torch.var_mean(input.float(), dim=(0, 2, 3))
                self.running_mean.copy_(mean)
                self.running_var.copy_(var)
                self.num_batches_tracked += 1
        return nn.functional.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def norm_layer(name: NormName, channels: int) -> nn.Module:
    """The normalisation of this name for maps of ``channels``; group norm has groups of up to 16 channels."""
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "frozen batch":
        return FrozenBatchNorm2d(channels)
    if name == "layer":
        return nn.GroupNorm(1, channels)
    if name == "group":
        return nn.GroupNorm(max(1, channels // 16) if channels % 16 == 0 else 1, channels)
    if name == "none":
        return nn.Identity()
    raise ValueError(f"norm must be one of {', '.join(get_args(NormName))}, got {name!r}")


class _Block(nn.Module):
    """Two 3 × 3 convolutions, added to a shortcut."""

    def __init__(self, inner: int, outer: int, stride: int, norm: NormName) -> None:
        super().__init__()
        bias = norm == "none"
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=bias)
        self.norm1 = norm_layer(norm, outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=bias)
        self.norm2 = norm_layer(norm, outer)
        self.shortcut = nn.Sequential()
        if stride != 1 or inner != outer:
            self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=bias), norm_layer(norm, outer))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inner, h, w) -> (n, outer, h/stride, w/stride)."""
        y = nn.functional.relu(self.norm1(self.conv1(x)))
        return nn.functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet18(channels: int, outputs: int, width: int, norm: NormName) -> nn.Module:
    """He et al. (2016) with the stem for small images."""
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(channels, width, 3, 1, 1, bias=norm == "none"))
    model.add_module("norm", norm_layer(norm, width))
    model.add_module("relu", nn.ReLU())
    inner = width
    for stage, outer in enumerate((width, 2 * width, 4 * width, 8 * width)):
        for block in range(2):
            model.add_module(f"stage{stage + 1}block{block + 1}", _Block(inner, outer, 2 if stage and not block else 1, norm))
            inner = outer
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("head", nn.Linear(inner, outputs))
    return _he(model)


def vgg16(channels: int, outputs: int, width: int, norm: NormName, dropout: float) -> nn.Module:
    """Simonyan & Zisserman (2015), configuration D, for images of 32 × 32."""
    model = nn.Sequential()
    inner = channels
    for stage, (outer, layers) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)), start=1):
        for layer in range(1, layers + 1):
            model.add_module(f"conv{stage}_{layer}", nn.Conv2d(inner, outer * width, 3, 1, 1))
            if norm != "none":
                model.add_module(f"norm{stage}_{layer}", norm_layer(norm, outer * width))
            model.add_module(f"relu{stage}_{layer}", nn.ReLU())
            inner = outer * width
        model.add_module(f"pool{stage}", nn.MaxPool2d(2))
    model.add_module("flatten", nn.Flatten())
    for k, fan_in in enumerate((8 * width, 64 * width), start=1):
        model.add_module(f"linear{k}", nn.Linear(fan_in, 64 * width))
        model.add_module(f"relu{k}", nn.ReLU())
        model.add_module(f"dropout{k}", nn.Dropout(dropout))
    model.add_module("head", nn.Linear(64 * width, outputs))
    return _he(model)


def _he(model: nn.Module) -> nn.Module:
    """He initialisation of all layers before the head, because a deep network without norms does not train without it."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) or (isinstance(layer, nn.Linear) and name != "head"):
            mode = "fan_out" if isinstance(layer, nn.Conv2d) else "fan_in"
            nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model
