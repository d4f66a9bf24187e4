"""The experiments. Each is one file: what it varies, what it should show, and the figures that the paper reports."""

from __future__ import annotations

from .catalogue import (
    architectures,
    batch_norm,
    collapse,
    depth_profile,
    dial,
    encoded_mnist,
    feature_growth,
    grokking,
    label_shuffle,
    learning_rate,
    sample_size,
    target_downscale,
    train_size,
    weight_decay,
)
from .experiment import Claim, Experiment, Results, Row
from .ingredients.data import Data, Digits, Images, ModularArithmetic, Split
from .ingredients.models import Mlp, ResNet18, Transformer, Vgg16
from .machine import Machine
from .run_all import run_experiment
from .run_folder import Run
from .setup import Loss, Optimizer, Setup
from .sweeps.grid import Point
from .sweeps.on_ray import Cluster
from .sweeps.sweep import sweep_experiment
from .sweeps.swept import Swept

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        encoded_mnist,
        grokking,
        label_shuffle,
        learning_rate,
        batch_norm,
        train_size,
        weight_decay,
        target_downscale,
        feature_growth,
        collapse,
        dial,
        depth_profile,
        sample_size,
        architectures,
    )
}

__all__ = [
    "EXPERIMENTS",
    "Claim",
    "Cluster",
    "Data",
    "Digits",
    "Experiment",
    "Images",
    "Loss",
    "Machine",
    "Mlp",
    "ModularArithmetic",
    "Optimizer",
    "Point",
    "ResNet18",
    "Results",
    "Row",
    "Run",
    "Setup",
    "Split",
    "Swept",
    "Transformer",
    "Vgg16",
    "run_experiment",
    "sweep_experiment",
]
