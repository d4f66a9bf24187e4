"""Everything that is measured at one step of a training, through the public functions of the library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import DegenerateError
from ..functional import held_out_quality
from ..measurement.measure import collect, measure
from ..model.undisturbed import undisturbed
from ..results.series import Evaluation, Measured, evaluate
from .ingredients.data import Data, Split
from .setup import Loss, Setup


def evaluate_network(network: nn.Module, start: nn.Module, data: Data, setup: Setup, step: int, fabric: Any) -> Evaluation:
    """Losses and accuracies on training and test data, D_LR and the other measures, and the curves.

    If features or outputs are constant (a dead network), there are only losses and accuracies.
    """
    train, test = (_share(split[: setup.measured], fabric) for split in (data.train, data.test))
    values: dict[str, float] = {}
    for name, split in (("train", train), ("test", test)):
        values[f"{name}_loss"], values[f"{name}_accuracy"] = _accuracy(network, split, setup.loss, fabric)

    def measured() -> Measured:
        r = measure(
            network, (train.inputs, train.labels), head="head", start=start, extra=setup.extra, layers=setup.layers or None
        )
        curves = r.curves()
        if setup.held_out and fabric.world_size == 1:
            curves["held_out_quality"] = held_out_quality(r.spectrum, collect(network, (test.inputs, test.labels), head="head"))
        return r.numbers() | _from_curves(curves, data.num_classes), curves, {}

    evaluation = evaluate(step, measured, noted=(DegenerateError,))
    return replace(evaluation, values=values | evaluation.values)


def _from_curves(curves: Mapping[str, np.ndarray], num_classes: int) -> dict[str, float]:
    """What the first features hold, as many as half of the classes and as many as all; and how many hold 95 % of the outputs."""
    values = {
        f"{name}_of_the_first_{count}": float(curves[name][:count][-1])
        for count in (num_classes // 2, num_classes)
        for name in ("utilization", "quality", "held_out_quality")
        if name in curves and count
    }
    utilization = curves["utilization"]
    if utilization[-1] >= 0.95:
        values["features_for_outputs"] = float((utilization < 0.95).sum() + 1)
    return values


def _share(split: Split, fabric: Any) -> Split:
    """The samples of this process; every process has the same number."""
    each = len(split) // fabric.world_size
    return split if fabric.world_size == 1 else split[slice(fabric.global_rank, each * fabric.world_size, fabric.world_size)]


def _accuracy(network: nn.Module, split: Split, loss: Loss, fabric: Any) -> tuple[float, float]:
    sums = torch.zeros(3, dtype=torch.float64)
    with undisturbed(network, None, None):
        for rows in torch.arange(len(split)).split(1000):
            labels = split.labels[rows]
            outputs = network(split.inputs[rows])
            right = (outputs.argmax(1) == labels).sum()
            sums += torch.tensor([float(loss(outputs, labels)) * len(rows), float(right), float(len(rows))])
    total, right, count = (
        sums if fabric.world_size == 1 else fabric.all_reduce(sums.to(fabric.device), reduce_op="sum")
    ).tolist()
    return total / count, right / count
