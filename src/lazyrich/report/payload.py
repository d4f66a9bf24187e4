"""What the script of the page draws, as plain JSON: thinned and rounded, so that a page of a hundred runs stays small."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._support.spread import mean_and_sd
from ..results.catalogue import entry, listed
from ..results.curves_panel import SMALLEST
from ..results.drawing import log_steps
from ..results.names import layer_value, split_layer_value
from .runs import Run

POINTS = 60  # of a curve
CURVES = ("relative_eigenvalues", "utilization", "quality", "contributions")
EVALUATIONS = 20_000  # over all runs
CURVE_SETS = 6_000


def overview(runs: Sequence[Run]) -> dict[str, Any]:
    """All but the curves: the catalogue's entries of the measures, and the steps and values of every run.

    ``slot`` is the position of a run among those of its experiment, which decides its colour. ``values`` and ``sd`` hold a list
    for each measure, with null where it was not measured; only runs of several seeds have ``sd``. ``thinned`` is true if some
    evaluations are left out of the curves.
    """
    names = listed({name for run in runs for name in run.measures})
    return {
        "labels": {name: entry(name).full_label for name in names},
        "symbols": {name: entry(name).symbol for name in names},
        "groups": {name: entry(name).group for name in names},
        "runs": [_numbers(run, len(runs)) | {"slot": slot} for run, slot in zip(runs, _slots(runs), strict=True)],
        "thinned": any(len(run.steps) > _max_curves(run, len(runs)) for run in runs),
    }


def curves(run: Run, num_runs: int) -> dict[str, Any]:
    """The curves of one run of so many; ``at`` holds the indices of the drawn steps that have curves.

    The contributions are cumulative; ``k`` counts features from 1. Curves of several seeds are the mean and the standard
    deviation over those seeds that have them at that step.
    """
    steps = _drawn_steps(run, num_runs)
    sets: dict[int, list[dict[str, np.ndarray]]] = {}
    for index in _evenly(len(steps), _max_curves(run, num_runs)):
        if seeds := [_drawn(curves) for curves in run.curves(int(steps[index]))]:
            sets[index] = seeds
    widest = max((len(curve) for seeds in sets.values() for seed in seeds for curve in seed.values()), default=0)
    k = _log_spaced(widest)
    content: dict[str, Any] = {"k": k.tolist(), "at": list(sets)}
    for name in CURVES:
        values = [_at_features([seed[name] for seed in seeds if name in seed], k) for seeds in sets.values()]
        if any(len(seeds) for seeds in values):
            means, sds = zip(*map(mean_and_sd, values), strict=True)
            content[name] = [_rounded(mean, 3) for mean in means]
            if len(run.seeds) > 1:
                content[name + "_sd"] = [_rounded(sd, 2) for sd in sds]
    return content


def _numbers(run: Run, num_runs: int) -> dict[str, Any]:
    steps = _drawn_steps(run, num_runs)
    values, spread = {}, {}
    for name in sorted(run.measures):
        mean, sd = mean_and_sd(run.at(name, steps))
        values[name] = _rounded(mean)
        if len(run.seeds) > 1:
            spread[name] = _rounded(sd)
    layers = [layer for measure, layer in map(split_layer_value, run.measures) if measure == "low_rank" and layer is not None]
    content = {
        "name": run.name,
        "seeds": len(run.seeds),
        "experiment": run.experiment,
        "log_steps": log_steps(steps),
        "steps": steps.tolist(),
        "values": values,
        "layers": layers,
        "layer_values": [layer_value("low_rank", layer) for layer in layers],
    }
    if spread:
        content["sd"] = spread
    if run.layers:
        content["error"] = [_single(layer.half_width) for layer in run.layers.values()]
        content["isotropic"] = [None if x.isotropic is None else _single(x.isotropic) for x in run.layers.values()]
        content["balanced"] = [_single(layer.balanced) for layer in run.layers.values()]
    return content


def _slots(runs: Sequence[Run]) -> list[int]:
    names = [run.experiment for run in runs]
    return [names[:position].count(name) for position, name in enumerate(names)]


def _drawn_steps(run: Run, num_runs: int) -> np.ndarray:
    """The steps that are drawn, of a run among so many."""
    return run.steps[_evenly(len(run.steps), max(20, EVALUATIONS // num_runs))]


def _max_curves(run: Run, num_runs: int) -> int:
    """How many evaluations of a run among so many may have curves; a band takes as much space as a curve."""
    return max(2, CURVE_SETS // num_runs // (2 if len(run.seeds) > 1 else 1))


def _evenly(count: int, most: int) -> list[int]:
    """At most so many indices below ``count``, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _drawn(curves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The curves as they are drawn: contributions cumulative, eigenvalues that are rounding errors left out."""
    drawn = {name: np.asarray(curve, np.float64) for name, curve in curves.items() if name in CURVES}
    if "contributions" in drawn:
        drawn["contributions"] = np.cumsum(drawn["contributions"])
    if "relative_eigenvalues" in drawn:
        drawn["relative_eigenvalues"] = np.where(drawn["relative_eigenvalues"] > SMALLEST, drawn["relative_eigenvalues"], np.nan)
    return drawn


def _log_spaced(count: int) -> np.ndarray:
    """Integers from 1 to ``count``, about a constant factor apart."""
    return np.unique(np.geomspace(1, count, POINTS).round().astype(int)) if count else np.array([], int)


def _at_features(seeds: list[np.ndarray], k: np.ndarray) -> np.ndarray:
    """(seeds, k) the values at feature k; NaN beyond the end of a curve."""
    values = np.full((len(seeds), len(k)), np.nan)
    for row, curve in zip(values, seeds, strict=True):
        row[k <= len(curve)] = curve[k[k <= len(curve)] - 1]
    return values


def _rounded(values: np.ndarray, digits: int = 5) -> list[float | int | None]:
    return [_single(value, digits) for value in values.tolist()]


def _single(value: float, digits: int = 5) -> float | int | None:
    """Round to significant digits; None, which is JSON's null, for NaN and infinity."""
    if not math.isfinite(value):
        return None
    value = float(f"{value:.{digits}g}")
    return int(value) if value == int(value) and abs(value) < 1e15 else value
