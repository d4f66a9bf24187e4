"""The networks of `sensitivity.py`, trained by the parts of the experiments.

Perceptrons of four layers on MNIST in three regimes: *rich* (trained in full), *middling* (outputs that count a hundredfold, so
that features need to move less) and *lazy* (the last layer alone is trained); a slim ResNet18 and VGG16 on CIFAR-10. Without
LAZYRICH_DATA: scikit-learn's digits, and no convolution networks.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

import lazyrich
from lazyrich.experiments import Data, Digits, Images, Loss, Mlp, ModularArithmetic, Optimizer, ResNet18, Setup, Split, Vgg16
from lazyrich.experiments.ingredients.data import augment
from lazyrich.experiments.ingredients.images import data_folder
from lazyrich.experiments.ingredients.seeds import derived
from lazyrich.experiments.training import batch_rows
from lazyrich.functional import LowRankEstimate, low_rank_estimate

REAL = bool(os.environ.get("LAZYRICH_DATA"))
Kind = Literal["rich", "middling", "lazy"]
KINDS: tuple[Kind, ...] = ("rich", "middling", "lazy")
ENDS: tuple[Kind, ...] = ("rich", "lazy")
LossName = Literal["squared", "cross-entropy"]


def mlp(kind: Kind, width: int = 256, loss: LossName = "squared", images: int | None = None) -> Setup:
    """A perceptron in one of the three regimes."""
    return Setup(
        data=Images("mnist", train=images) if REAL else Digits(),
        model=Mlp(width=width, output_scale=100.0 if kind == "middling" else 1.0),
        loss=Loss(loss),
        optimizer=Optimizer("adam", 1e-2 if kind == "lazy" else 1e-3),
        steps=1000,
        trained="last layer" if kind == "lazy" else "all",
    )


def convnets() -> dict[str, Setup]:
    """Networks with batch norm, and one with dropout too."""
    if not REAL:
        return {}
    images, sgd = Images("cifar10", train=5_000, augmented=True), Optimizer("sgd", 0.05, weight_decay=5e-4, warmup=39)
    return {
        "ResNet18": Setup(images, ResNet18(width=8), Loss("squared", weight=5.0), sgd, steps=200),
        "VGG16": Setup(images, Vgg16(width=8, dropout=0.3), Loss("cross-entropy"), sgd, steps=200),
    }


def data_of(setup: Setup, classes: int | None = None) -> Data:
    """What a network is trained and measured on; with ``classes`` the first so many of them."""
    return _loaded(setup.data, classes)


@lru_cache
def _loaded(source: Images | Digits | ModularArithmetic, classes: int | None) -> Data:
    data = source.load(0, data_folder())
    if classes is None:
        return data
    train, test = (split[split.labels < classes] for split in (data.train, data.test))
    return Data(train, test, classes)


@lru_cache
def trained(setup: Setup, seed: int = 0, classes: int | None = None) -> nn.Sequential:
    """The network after its last step; start and order of the images are those of the seed."""
    data = data_of(setup, classes)
    torch.manual_seed(derived(seed, "start"))
    network = setup.model.build(data.train.inputs, data.num_classes)
    if not isinstance(network, nn.Sequential):
        raise TypeError(f"features are taken before the last of a sequence of layers, and {type(network).__name__} is none")
    part, given = network, data.train.inputs
    if setup.trained == "last layer":  # the features stay, so they are computed once
        part, given = network[-1:], rows(network, given)[0]
    optimizer = setup.optimizer.build(part, setup.model)
    for step in range(1, setup.steps + 1):
        chosen = batch_rows(len(given), setup.batch_size, seed, step)
        inputs = given[chosen]
        if isinstance(setup.data, Images) and setup.data.augmented:
            inputs = augment(inputs, derived(seed, "augmentation", step))
        setup.optimizer.set_rate(optimizer, step)
        optimizer.zero_grad()
        setup.loss(part(inputs), data.train.labels[chosen]).backward()
        optimizer.step()
    return network.eval()


def rows(network: nn.Sequential, inputs: Tensor, batch: int = 1000) -> tuple[Tensor, Tensor]:
    """Features (n, p) and outputs (n, C), in whatever mode the network is."""
    with torch.no_grad():
        features = [network[:-1](x) for x in inputs.split(batch)]
        return torch.cat(features), torch.cat([network[-1](x) for x in features])


def estimate(network: nn.Sequential, inputs: Tensor) -> LowRankEstimate:
    """D_LR and all that belongs to it, on these inputs."""
    return low_rank_estimate(*rows(network, inputs))


def accuracy(network: nn.Sequential, split: Split) -> str:
    """Share of right answers."""
    return f"{(rows(network, split.inputs)[1].argmax(1) == split.labels).double().mean():.1%}"


def null_of(setup: Setup, inputs: Tensor, classes: int | None = None, seed: int = 0) -> lazyrich.NullDistribution:
    """The network among new ones that start as it did."""
    example, outputs = inputs[:2], data_of(setup, classes).num_classes
    network = trained(setup, seed, classes)
    return lazyrich.null_distribution(network, inputs, build=lambda: setup.model.build(example, outputs))
