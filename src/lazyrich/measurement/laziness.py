"""λ of a measurement: from the features of the start, or from those of networks that are drawn again."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ..errors import DataError, DegenerateError, RankWarning
from ..functional import LowRankEstimate, low_rank_estimate, low_rank_measure
from ..functional.influence import Influence
from ..functional.laziness import LazinessEstimate, laziness_estimate, with_room
from ..functional.low_rank import Reference, sketched_low_rank
from ..gram import Gram
from ..model.batches import is_one_shot
from ..model.redraw import new_norms
from ..model.undisturbed import undisturbed
from .narrow import NarrowGram, narrowed
from .null import untrained_network
from .one_pass import OnePass
from .start import StartNetwork, StartSums, settle_on

REFERENCES: tuple[Reference, Reference] = ("projection", "balanced")


@dataclass(frozen=True)
class Denominators:
    """D_LR of the features of the start against the outputs now: one value for each start.

    Attributes:
        values: for each of the references "projection" and "balanced", one value for each draw, or that of the start.
        source: where they are from.
        notes: why values are missing.
        estimate: of the start's own features, with the reference "projection".
    """

    values: dict[Reference, list[float]]
    source: Literal["start", "redraws"]
    notes: tuple[str, ...] = ()
    estimate: LowRankEstimate | None = None


@dataclass(frozen=True)
class Laziness:
    """λ with both references.

    Attributes:
        value: of the projection; None where it is undefined.
        corrected, stderr, interval: of the projection with the start itself; of redraws ``stderr`` alone, which is the standard
            deviation of λ over them.
        balanced: of the balanced reference.
        source: where the denominators are from.
        notes: why values are missing.
        influence: of the projection with the start itself.
    """

    value: float | None = None
    corrected: float | None = None
    stderr: float | None = None
    interval: tuple[float, float] | None = None
    balanced: float | None = None
    source: Literal["start", "redraws"] | None = None
    notes: tuple[str, ...] = ()
    influence: Influence | None = None

    def numbers(self) -> dict[str, float]:
        """The numbers by their names in the catalogue; what is undefined is left out."""
        names = ("corrected", "stderr", "balanced")
        values = {"laziness": self.value} | {f"laziness_{name}": getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


def of_start(gram: Gram | None, note: str | None = None) -> Denominators:
    """The denominators of the start's own features, with the outputs now; or a note why there are none."""
    if gram is None:
        return Denominators({}, "start", () if note is None else (note,))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RankWarning)  # of the outputs, which are those of the measured network
            estimate = low_rank_estimate(gram)
        values: dict[Reference, list[float]] = {reference: [_low_rank(gram, reference)] for reference in REFERENCES}
        return Denominators(values, "start", estimate=estimate)
    except DegenerateError as error:
        return Denominators({}, "start", (f"no laziness ratio: at the start, {error}",))


def of_redraws(one_pass: OnePass, draws: int, build: Callable[[], nn.Module] | None) -> Denominators:
    """The denominators of networks that are drawn again, one pass over the data each; draw k has the seed k.

    Raises:
        DataError: the data can be used once.
        DegenerateError: constant features of a draw, or constant outputs.
        TypeError, ValueError: as :func:`lazyrich.null_distribution`.
    """
    if is_one_shot(one_pass.data):
        raise DataError(f"null={draws} takes a pass over the data for each draw, and data is an iterator that can be used once: "
                        "pass a DataLoader or a list")  # fmt: skip
    values: dict[Reference, list[float]] = {reference: [] for reference in REFERENCES}
    for k in range(draws):
        with undisturbed(one_pass.model, one_pass.data, None):  # every pass then sees the same data
            torch.manual_seed(k)
            drawn = untrained_network(one_pass.model, build, one_pass.device)
            settle_on(drawn, new_norms(drawn, one_pass.model), one_pass)
            sums = StartSums(one_pass, StartNetwork(drawn, one_pass))
            for part in narrowed(one_pass.parts(f"draw {k + 1} of {draws}"), one_pass.processes):
                sums.add(part)
            if sums.gram is None or not sums.gram.count:
                break  # the measurement itself says that there are no samples
            sums.gram.reduce(one_pass.processes)
            for reference in REFERENCES:
                values[reference].append(_low_rank(sums.gram, reference))
    return Denominators(values, "redraws")


def laziness_of(now: LowRankEstimate, balanced: float, start: Denominators | None) -> Laziness:
    """λ from the measured values and what the features of the start give."""
    if start is None:
        return Laziness()
    notes = list(start.notes)

    def found(reference: Reference) -> LazinessEstimate | None:
        if not start.values:
            return None
        try:
            if reference == "projection" and start.estimate is not None:
                return laziness_estimate(now, start.estimate)
            value = now.value if reference == "projection" else balanced
            return LazinessEstimate(value / with_room(statistics.median(start.values[reference])))
        except DegenerateError as error:
            notes.append(f"{'no laziness ratio' if reference == 'projection' else 'no balanced laziness ratio'}: {error}")
            return None

    result, of_balanced = found("projection"), found("balanced")
    ratio = None if of_balanced is None else of_balanced.value
    if result is None:
        return Laziness(balanced=ratio, source=start.source, notes=tuple(notes))
    draws = start.values.get("projection", [])
    spread = statistics.stdev(now.value / draw for draw in draws) if len(draws) > 1 else None
    stderr = result.stderr if start.estimate is not None else spread
    return Laziness(
        result.value, result.corrected, stderr, result.interval, ratio, start.source, tuple(notes), result.influence
    )  # fmt: skip


def layer_laziness(layer: NarrowGram, now: LowRankEstimate | float) -> LazinessEstimate | None:
    """λ of one layer, with an error where it is not sketched; None without the start, or where it is undefined."""
    if layer.start is None:
        return None
    try:
        if isinstance(now, LowRankEstimate):
            return laziness_estimate(now, low_rank_estimate(layer.start))
        return LazinessEstimate(now / with_room(sketched_low_rank(layer.start)[0]))
    except DegenerateError:
        return None


def _low_rank(gram: Gram, reference: Reference) -> float:
    return float(low_rank_measure(gram, reference=reference))
