"""What one training is: data, model, loss, optimizer and the steps at which it is evaluated; all of it plain values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..results.catalogue import functions
from .ingredients.data import Digits, Images, ModularArithmetic
from .ingredients.models import Model
from .ingredients.parametrization import rate_factors


@dataclass(frozen=True)
class Loss:
    """Cross-entropy, or the squared error against one-hot targets.

    Attributes:
        target_scale: factor of the one-hot targets (squared error only).
        weight: factor of the loss.
    """

    name: Literal["squared", "cross-entropy"] = "squared"
    target_scale: float = 1.0
    weight: float = 1.0

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean over the batch, and for the squared error also over the outputs."""
        if self.name == "cross-entropy":
            return self.weight * nn.functional.cross_entropy(outputs, labels)
        targets = self.target_scale * nn.functional.one_hot(labels, outputs.shape[1])
        return self.weight * (outputs - targets).square().mean()


@dataclass(frozen=True)
class Optimizer:
    """SGD with momentum, Adam or AdamW, and the schedule of the learning rate.

    Attributes:
        weight_decay: L2 for "sgd" and "adam", decoupled for "adamw".
        warmup: number of steps over which the rate rises linearly.
        milestones: steps after which the rate is multiplied by ``factor``.
    """

    name: Literal["sgd", "adam", "adamw"] = "adam"
    rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: int = 0
    milestones: tuple[int, ...] = ()
    factor: float = 0.2

    def __post_init__(self) -> None:
        for name in ("rate", "weight_decay", "momentum", "warmup"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")

    def build(self, network: nn.Module, model: Model) -> torch.optim.Optimizer:
        """The optimizer of the parameters that require gradients, with the rates of the model's parametrization."""
        groups = [
            {"params": [p for p in parameters if p.requires_grad], "lr": self.rate * factor, "full_rate": self.rate * factor}
            for parameters, factor in rate_factors(network, model.parametrization, model.width_ratio, self.name != "sgd")
        ]
        if self.name == "sgd":
            return torch.optim.SGD(groups, momentum=self.momentum, weight_decay=self.weight_decay)
        kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        return kind(groups, betas=self.betas, weight_decay=self.weight_decay)

    def set_rate(self, optimizer: Any, step: int) -> None:
        """Set the learning rate of step ``step`` (from 1). It depends on the step only."""
        share = min(1.0, step / self.warmup) if self.warmup else 1.0
        share *= self.factor ** sum(step > milestone for milestone in self.milestones)
        for group in optimizer.param_groups:
            group["lr"] = group["full_rate"] * share


@dataclass(frozen=True)
class Setup:
    """One training.

    Attributes:
        evaluate: the steps after which everything is measured; 0 is the start, and the last step is added.
        trained: all parameters, or those of the last layer only.
        measured: number of training samples that are measured (a fixed random choice), and at most as many test samples.
        extra: measures to take beyond the usual ones, by their names in the catalogue.
        layers: names of layers whose features are measured too.
        held_out: also measure the quality of the training features on test data, which takes one more pass.
    """

    data: Images | Digits | ModularArithmetic
    model: Model
    loss: Loss
    optimizer: Optimizer
    steps: int
    batch_size: int = 128
    evaluate: tuple[int, ...] = field(default=())
    trained: Literal["all", "last layer"] = "all"
    measured: int = 2000
    held_out: bool = False
    extra: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.measured < 2:
            raise ValueError(
                f"steps, batch_size and measured must be positive, got {self.steps}, {self.batch_size}, {self.measured}"
            )
        if any(not 0 <= step <= self.steps for step in self.evaluate):
            raise ValueError(f"evaluate must hold steps between 0 and {self.steps:,}, got {self.evaluate}")
        functions(self.extra)  # raises where one is not in the catalogue
        object.__setattr__(self, "evaluate", tuple(sorted({*self.evaluate, self.steps})))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the classes of data and model; without ``layers`` where there are none, as before they existed."""
        values = {**asdict(self), "data": _named(self.data), "model": _named(self.model)}
        return values if self.layers else {name: value for name, value in values.items() if name != "layers"}


def _named(part: Any) -> dict[str, Any]:
    return {"kind": type(part).__name__, **asdict(part)}


def log_spaced_steps(last: int, count: int) -> tuple[int, ...]:
    """0, and about ``count`` steps from 1 to ``last``, a constant factor apart.

    >>> log_spaced_steps(1000, 4)
    (0, 1, 10, 100, 1000)
    """
    return tuple(sorted({0, *np.unique(np.geomspace(1, last, count).round().astype(int)).tolist()}))


def regular_steps(interval: int, last: int, also: Iterable[int] = ()) -> tuple[int, ...]:
    """0 and every multiple of ``interval`` up to ``last``, ``last`` itself, and the steps in ``also``.

    >>> regular_steps(30, 100, also=(5,))
    (0, 5, 30, 60, 90, 100)
    """
    return tuple(sorted({*range(0, last + 1, interval), last, *also}))
