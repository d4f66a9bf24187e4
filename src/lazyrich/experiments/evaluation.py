"""Everything that is measured at one moment of training, through the library's own public calls."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import DegenerateError, RankWarning
from ..functional import held_out_quality
from ..measure import collect, measure
from ..richness import Richness
from .data import Data, Split
from .setup import Loss, Setup

FROM_RICHNESS = (
    "low_rank", "low_rank_corrected", "low_rank_stderr", "balanced", "balanced_corrected", "balanced_stderr",
    "output_alignment", "output_rank", "isotropic",
)  # fmt: skip
FROM_COMPARISON = {
    "initial_alignment": "s_init", "squared_parameter_norm": "parameter_norm", "squared_parameter_distance": "parameter_distance",
    "target_alignment": "target_alignment", "participation_ratio": "participation_ratio", "effective_rank": "effective_rank",
    "rankme": "rankme", "stable_rank": "stable_rank", "spectral_exponent": "alpha_req",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Numbers by name, and the three curves."""

    values: dict[str, float]
    curves: dict[str, np.ndarray]


def evaluated(network: nn.Module, start: nn.Module, data: Data, setup: Setup, fabric: Any) -> Evaluation:
    """Losses and accuracies on training and test data, D_LR with all its company, and the curves.

    Where features or outputs are constant (a dead network) only losses and accuracies are there.
    """
    train, test = (_share(split[: setup.measured], fabric) for split in (data.train, data.test))
    values: dict[str, float] = {}
    for name, split in (("train", train), ("test", test)):
        values[f"{name}_loss"], values[f"{name}_accuracy"] = _accuracy(network, split, setup.loss, fabric)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)  # the band is among the numbers
        try:
            r = measure(network, (train.inputs, train.labels), head="head", start=start)
        except DegenerateError:
            return Evaluation(values, {})
        values |= _read(r)
        curves = {"relative_eigenvalues": r.spectrum.relative_eigenvalues, "utilization": r.spectrum.cumulative_utilization}
        curves["contributions"] = r.spectrum.contributions
        if r.spectrum.cumulative_quality is not None:
            curves["quality"] = r.spectrum.cumulative_quality
        if setup.held_out and fabric.world_size == 1:
            curves["held_out_quality"] = held_out_quality(r.spectrum, collect(network, (test.inputs, test.labels), head="head"))
    for name in ("utilization", "quality", "held_out_quality"):
        if name in curves:
            first = curves[name][: data.num_classes]
            values[f"{name}_of_the_first_{data.num_classes}"] = float(first[-1])
    return Evaluation(values, {name: np.asarray(curve, np.float32) for name, curve in curves.items() if curve is not None})


def _read(r: Richness) -> dict[str, float]:
    given: dict[str, Any] = {name: getattr(r, name) for name in FROM_RICHNESS}
    given |= {f"low_rank_at_{rtol:g}": value for rtol, value in r.low_rank_band.items()}
    if r.comparison is not None:
        given |= {name: getattr(r.comparison, attribute) for attribute, name in FROM_COMPARISON.items()}
    if r.neural_collapse is not None:
        collapse = r.neural_collapse
        given |= {"nc1": collapse.nc1, "nc2_equinorm": collapse.nc2_equinorm, "nc2_equiangular": collapse.nc2_equiangular}
        given["nc3"] = collapse.nc3
    values = r.output_singular_values
    given["output_condition"] = values[0] / values[min(r.output_rank, len(values)) - 1]
    return {name: float(value) for name, value in given.items() if value is not None}


def _share(split: Split, fabric: Any) -> Split:
    """This process's part; the same number on every process."""
    each = len(split) // fabric.world_size
    return split if fabric.world_size == 1 else split[slice(fabric.global_rank, each * fabric.world_size, fabric.world_size)]


@torch.no_grad()
def _accuracy(network: nn.Module, split: Split, loss: Loss, fabric: Any) -> tuple[float, float]:
    was_training = network.training
    network.eval()
    try:
        sums = torch.zeros(3, dtype=torch.float64)
        for rows in torch.arange(len(split)).split(1000):
            labels = split.labels[rows]
            outputs = network(split.inputs[rows])
            right = (outputs.argmax(1) == labels).sum()
            sums += torch.tensor([float(loss(outputs, labels)) * len(rows), float(right), float(len(rows))])
    finally:
        network.train(was_training)
    total, right, count = (
        sums if fabric.world_size == 1 else fabric.all_reduce(sums.to(fabric.device), reduce_op="sum")
    ).tolist()
    return total / count, right / count
