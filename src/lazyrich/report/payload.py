"""What the page's script draws, as plain JSON: thinned and rounded, so that a page of a hundred runs stays small."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._support.spread import mean_and_sd
from ..results.catalogue import entry, listed
from ..results.names import layer_value, split_layer_value
from ..results.series import Series
from .found import Found, Run, shared_steps

POINTS = 60  # of a curve
CURVES = ("relative_eigenvalues", "utilization", "quality", "contributions")
EVALUATIONS = 20_000  # over all runs
CURVE_SETS = 6_000


def overview(found: Found) -> dict[str, Any]:
    """All but the curves: what the catalogue says of the measures, and for every run its steps and values.

    ``values`` and ``sd`` hold a list for each measure, null where it could not be taken; ``sd`` is there for several seeds.
    ``thinned`` says whether not every evaluation is drawn with its curves.
    """
    names = listed({name for run in found.runs for series in run.seeds for name in series.measures})
    return {
        "labels": {name: entry(name).full_label for name in names},
        "symbols": {name: entry(name).symbol for name in names},
        "groups": {name: entry(name).group for name in names},
        "runs": [_numbers(run, len(found.runs)) for run in found.runs],
        "thinned": any(len(shared_steps(list(run.seeds))) > _with_curves(run, len(found.runs)) for run in found.runs),
    }


def curves(run: Run, runs: int) -> dict[str, Any]:
    """The curves of one run: ``at`` are the places among its steps that have some.

    Cumulative contributions stand for the contributions; ``k`` counts features from 1. Of several seeds it is the mean over
    those that were looked at, with the standard deviation.
    """
    steps = _steps(run, runs)
    held: dict[int, list[dict[str, np.ndarray]]] = {}
    for place in _spread(len(steps), _with_curves(run, runs)):
        given = [c for series in run.seeds if (c := _curves_at(series, int(steps[place])))]
        if given:
            held[place] = given
    widest = max((len(c[name]) for sets in held.values() for c in sets for name in c), default=0)
    k = _log_spaced(widest)
    found: dict[str, Any] = {"k": k.tolist(), "at": list(held)}
    for name in CURVES:
        taken = [_taken([c[name] for c in sets if name in c], k) for sets in held.values()]
        if any(len(values) for values in taken):
            means, sds = zip(*map(mean_and_sd, taken), strict=True)
            found[name] = [_rounded(values, 3) for values in means]
            if len(run.seeds) > 1:
                found[name + "_sd"] = [_rounded(values, 2) for values in sds]
    return found


def _numbers(run: Run, runs: int) -> dict[str, Any]:
    steps = _steps(run, runs)
    names = {name for series in run.seeds for name in series.measures}
    values, spread = {}, {}
    for name in names:
        seeds = np.array([_at(series, name, steps) for series in run.seeds])
        mean, sd = mean_and_sd(seeds)
        values[name] = _rounded(mean)
        if len(run.seeds) > 1:
            spread[name] = _rounded(sd)
    parts = [split_layer_value(name) for series in run.seeds for name in series.measures]
    layers = list(dict.fromkeys(layer for measure, layer in parts if measure == "low_rank" and layer is not None))
    described = {} if run.result is None else run.result.layers
    more = {
        "error": [_single(1.96 * (x.low_rank_stderr or x.reduction_stderr or 0.0)) for x in described.values()],
        "isotropic": [_single(x.isotropic) for x in described.values()],
        "balanced": [_single(x.balanced) for x in described.values()],
    }
    return {
        "name": run.name,
        "seeds": len(run.seeds),
        "measured": run.result is not None,
        "steps": steps.tolist(),
        "values": {name: values[name] for name in sorted(names)},
        **({"sd": {name: spread[name] for name in sorted(names)}} if spread else {}),
        "layers": layers,
        "layer_values": [layer_value("low_rank", layer) for layer in layers],
        **(more if described else {}),
    }


def _steps(run: Run, runs: int) -> np.ndarray:
    """The steps that are drawn, of a run among so many."""
    steps = shared_steps(list(run.seeds))
    return steps[_spread(len(steps), max(20, EVALUATIONS // runs))]


def _with_curves(run: Run, runs: int) -> int:
    """How many evaluations of a run among so many may have curves; a band takes as much as a curve."""
    return max(2, CURVE_SETS // runs // (2 if len(run.seeds) > 1 else 1))


def _spread(count: int, most: int) -> list[int]:
    """At most so many places, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _at(series: Series, name: str, steps: np.ndarray) -> np.ndarray:
    """One measure at these steps; NaN at those that the series has not come to."""
    places = np.searchsorted(series.steps, steps)
    known = places < len(series)
    values = np.full(len(steps), np.nan)
    values[known] = series[name][places[known]]
    return values


def _curves_at(series: Series, step: int) -> dict[str, np.ndarray]:
    place = int(np.searchsorted(series.steps, step))
    if place == len(series):
        return {}
    given = {name: np.asarray(curve, np.float64) for name, curve in series.curves(place).items() if name in CURVES}
    if "contributions" in given:
        given["contributions"] = np.cumsum(given["contributions"])
    if "relative_eigenvalues" in given:  # on a log axis, and what is smaller is rounding
        given["relative_eigenvalues"] = np.where(given["relative_eigenvalues"] > 1e-8, given["relative_eigenvalues"], np.nan)
    return given


def _log_spaced(count: int) -> np.ndarray:
    """From 1 to ``count``, whole and about a constant factor apart."""
    return np.unique(np.geomspace(1, count, POINTS).round().astype(int)) if count else np.array([], int)


def _taken(seeds: list[np.ndarray], k: np.ndarray) -> np.ndarray:
    """(seeds, k) the values at feature k; NaN beyond the end of a curve."""
    taken = np.full((len(seeds), len(k)), np.nan)
    for row, curve in zip(taken, seeds, strict=True):
        row[k <= len(curve)] = curve[k[k <= len(curve)] - 1]
    return taken


def _rounded(values: np.ndarray, digits: int = 5) -> list[float | int | None]:
    return [_single(value, digits) for value in values.tolist()]


def _single(value: float, digits: int = 5) -> float | int | None:
    """Significant digits; None, which is JSON's null, for what is no number."""
    if not math.isfinite(value):
        return None
    value = float(f"{value:.{digits}g}")
    return int(value) if value == int(value) and abs(value) < 1e15 else value
