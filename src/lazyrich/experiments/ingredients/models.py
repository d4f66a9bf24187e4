"""The networks of the experiments: frozen descriptions with a method ``build``. The head is an ``nn.Linear`` called ``head``."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .convnets import NormName, resnet18, vgg16
from .parametrization import Parametrization, parametrized


@dataclass(frozen=True, kw_only=True)
class _Described(ABC):
    """What all descriptions have in common.

    Attributes:
        output_scale: α, a factor of the outputs.
        parametrization: "standard", "ntk", or "mup" with ``base_width``, the width at which it equals the standard one.
    """

    output_scale: float = 1.0
    parametrization: Parametrization = "standard"
    width: int
    base_width: int

    def __post_init__(self) -> None:
        for name in ("width", "base_width", "depth", "heads", "tokens"):
            if getattr(self, name, 1) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def width_ratio(self) -> float:
        """Width over the width for which the learning rates were chosen."""
        return self.width / self.base_width

    def build(self, example: Tensor, outputs: int) -> nn.Module:
        """A new network for inputs like ``example`` (n, …), initialised with PyTorch's global random state."""
        model = self._network(example, outputs)
        return parametrized(model, self.parametrization, width_ratio=self.width_ratio, output_scale=self.output_scale)

    @abstractmethod
    def _network(self, example: Tensor, outputs: int) -> nn.Module:
        """The network in standard parametrization."""


@dataclass(frozen=True)
class Mlp(_Described):
    """A multi-layer perceptron of ``depth`` linear layers.

    Attributes:
        init_scale: s, if weights are initialised from N(0, (s/√fan-in)²); None: PyTorch's initialisation.
        antisymmetric: whether the network is the difference of two copies of itself, each trained, so that its outputs are zero
            at the start. The features are those of both copies, twice ``width``.
    """

    width: int = 512
    depth: int = 4
    activation: Literal["relu", "tanh"] = "relu"
    init_scale: float | None = None
    antisymmetric: bool = False
    base_width: int = 512

    def _network(self, example: Tensor, outputs: int) -> nn.Module:
        widths = [example[0].numel(), *[self.width] * (self.depth - 1)]
        parts: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
        for k, (inner, outer) in enumerate(pairwise(widths), start=1):
            activation = nn.ReLU() if self.activation == "relu" else nn.Tanh()
            parts += [(f"layer{k}", nn.Linear(inner, outer)), (f"activation{k}", activation)]
        model = nn.Sequential(OrderedDict([*parts, ("head", nn.Linear(widths[-1], outputs))]))
        if self.init_scale is not None:
            for layer in model.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=self.init_scale / layer.in_features**0.5)
        return antisymmetric(model) if self.antisymmetric else model


class _Both(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.first, self.second = body, copy.deepcopy(body)

    def forward(self, x: Tensor) -> Tensor:
        """(n, …) -> (n, 2 p): the features of both copies, over √2."""
        return torch.cat([self.first(x), self.second(x)], dim=1) / 2**0.5


def antisymmetric(model: nn.Sequential) -> nn.Sequential:
    """The difference of a network and its copy over √2, with one head for both (Chizat, Oyallon & Bach 2019).

    Its outputs are zero at the start, and its tangent kernel there is that of the network.
    """
    head: Any = model[-1]
    both = nn.Linear(2 * head.in_features, head.out_features)
    with torch.no_grad():
        both.weight.copy_(torch.cat([head.weight, -head.weight], dim=1))
        both.bias.zero_()
    return nn.Sequential(OrderedDict(body=_Both(model[:-1]), head=both))


@dataclass(frozen=True)
class ResNet18(_Described):
    """ResNet18 with the stem for small images: 3 × 3, no max-pooling.

    Attributes:
        width: channels of the first stage; there are 8 times as many features. The published network has 64.
        norm: normalisation; the published network has "batch".
    """

    width: int = 64
    norm: NormName = "batch"
    base_width: int = 64

    def _network(self, example: Tensor, outputs: int) -> nn.Module:
        return resnet18(example.shape[1], outputs, self.width, self.norm)


@dataclass(frozen=True)
class Vgg16(_Described):
    """VGG16: 13 convolutions and a classifier of three layers.

    Attributes:
        width: channels of the first stage; the classifier is 64 times as wide. The published network has 64.
        norm: "batch", "none", "layer", "group", or "frozen batch": batch norm with the statistics of the first training batch,
            which never change.
        dropout: its probability in the classifier.
    """

    width: int = 64
    norm: NormName = "batch"
    dropout: float = 0.5
    base_width: int = 64

    def _network(self, example: Tensor, outputs: int) -> nn.Module:
        return vgg16(example.shape[1], outputs, self.width, self.norm, self.dropout)


@dataclass(frozen=True)
class Transformer(_Described):
    """A small pre-norm transformer over tokens; its output is taken at the last token.

    Attributes:
        tokens: number of different tokens.
    """

    tokens: int = field(kw_only=True)
    width: int = 128
    depth: int = 2
    heads: int = 4
    base_width: int = 128

    def _network(self, example: Tensor, outputs: int) -> nn.Module:
        return _Transformer(self, example.shape[1], outputs)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projections, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, answers: int) -> Tensor:
        """(n, length, width) -> (n, answers, width): the last tokens, each of which attends to all."""
        query, key, value = self.projections(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query[:, :, -answers:], key, value)
        x = x[:, -answers:] + self.out(mixed.transpose(1, 2).flatten(-2))
        return x + self.mlp(self.norm2(x))


class _Transformer(nn.Module):
    def __init__(self, described: Transformer, length: int, outputs: int) -> None:
        super().__init__()
        width = described.width
        self.tokens, self.positions = nn.Embedding(described.tokens, width), nn.Embedding(length, width)
        nn.init.normal_(self.tokens.weight, std=width**-0.5)
        nn.init.normal_(self.positions.weight, std=width**-0.5)
        self.blocks = nn.ModuleList(_Block(width, described.heads) for _ in range(described.depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, length) -> (n, outputs)."""
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:  # of the last block only the output at the last token is needed
            x = block(x, 1 if block is self.blocks[-1] else x.shape[1])
        return self.head(self.norm(x[:, -1]))


Model = Mlp | ResNet18 | Vgg16 | Transformer
