"""What a page shows of a run: plain numbers and curves over steps, one or several seeds of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..results.verdict import Verdict


@dataclass(frozen=True, eq=False)
class Seed:
    """The evaluations of one training.

    Attributes:
        steps: (evaluations,) optimizer steps, ascending.
        values: name -> (evaluations,) a number at each; NaN where it was not measured.
        curves: reads the curves, by name, of the evaluation with this index; empty where there are none.
        notes: step -> why nothing could be measured there.
    """

    steps: np.ndarray
    values: Mapping[str, np.ndarray]
    curves: Callable[[int], Mapping[str, np.ndarray]]
    notes: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """What a measurement adds to D_LR of a layer.

    Attributes:
        half_width: half the 95 % interval of D_LR; 0 where it is not known.
        isotropic, balanced: D_LR of structureless features, and the measure with the balanced reference.
    """

    half_width: float
    isotropic: float | None
    balanced: float


@dataclass(frozen=True, eq=False)
class Run:
    """One network, or several seeds of one condition.

    Attributes:
        name: its name on the page.
        seeds: at least one; a measurement is a seed with one evaluation.
        measured: whether it is a measurement and not a series.
        head: name of the layer that a measurement was taken at, "" where it has none.
        notes: the notes of a measurement.
        verdict: that of a measurement.
        layers: name -> what a measurement adds to D_LR of that layer.
        experiment: name of the experiment that it belongs to, "" where the page shows one experiment or none.
    """

    name: str
    seeds: tuple[Seed, ...]
    measured: bool = False
    head: str = ""
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = None
    layers: Mapping[str, Layer] = field(default_factory=dict)
    experiment: str = ""

    @cached_property
    def measures(self) -> list[str]:
        """Names of the numbers, in the order in which they were measured."""
        return list(dict.fromkeys(name for seed in self.seeds for name in seed.values))

    @cached_property
    def steps(self) -> np.ndarray:
        """(shared,) the steps that all seeds share which got that far."""
        return shared_steps([seed.steps for seed in self.seeds])

    def at(self, name: str, steps: np.ndarray) -> np.ndarray:
        """(seeds, steps) one number at these shared steps; NaN at those that a seed has not reached."""
        values = np.full((len(self.seeds), len(steps)), np.nan)
        for row, seed in zip(values, self.seeds, strict=True):
            reached = steps <= seed.steps[-1]
            if name in seed.values:
                row[reached] = seed.values[name][np.searchsorted(seed.steps, steps[reached])]
        return values

    def last(self, name: str) -> np.ndarray:
        """(seeds,) one number at the last evaluation of each seed."""
        return np.array([seed.values[name][-1] if name in seed.values else np.nan for seed in self.seeds])

    def curves(self, step: int) -> list[Mapping[str, np.ndarray]]:
        """The curves at this shared step, of each seed that has some."""
        read = [seed.curves(int(np.searchsorted(seed.steps, step))) for seed in self.seeds if step <= seed.steps[-1]]
        return [curves for curves in read if curves]


def shared_steps(seeds: list[np.ndarray]) -> np.ndarray:
    """The steps that all seeds share which got that far, from the steps of each.

    >>> shared_steps([np.array([0, 10, 20]), np.array([0, 5, 10])]).tolist()
    [0, 10, 20]
    """
    steps = np.unique(np.concatenate(seeds))
    present = [np.isin(steps, own) | (steps > own[-1]) for own in seeds]
    return steps[np.all(present, axis=0)]
