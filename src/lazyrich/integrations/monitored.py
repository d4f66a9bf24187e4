"""What the callbacks share: a monitor that starts with training, and the evaluations that were not logged yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from torch import nn

from ..results.catalogue import LOGGED
from ..training.monitor import Monitor

PREFIX = "richness/"
OPTIONS = (
    "every", "preset", "out", "num_samples", "head", "rows", "forward", "targets", "ignore_index", "layout", "extra",
    "alarms",
)  # fmt: skip
_NOT_LOGGED = {"loss", "epoch", "seconds"}  # the trainer logs these itself


class Monitored:
    """Options of a monitor, and the monitor once training has started.

    Args:
        prefix: what precedes the names in the log; two callbacks need different ones.
        measures: names of the numbers to log, or "all"; by default the eight of :meth:`lazyrich.Richness.logged` and those that
            ``extra`` names. The series holds all numbers.
        **options: as for :class:`lazyrich.Monitor`.

    Attributes:
        monitor: the monitor of the last training, None before the first.
    """

    def __init__(self, *, prefix: str = PREFIX, measures: Sequence[str] | Literal["all"] | None = None, **options: Any) -> None:
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise TypeError(
                f"RichnessCallback has no option {', '.join(unknown)}; it takes data, prefix, measures and {', '.join(OPTIONS)}"
            )
        self._options, self._prefix = options, prefix
        self._measures = (*LOGGED, *options.get("extra", ())) if measures is None else measures
        self._logged = 0
        self.monitor: Monitor | None = None

    @property
    def running(self) -> Monitor:
        """The monitor of the current training."""
        if self.monitor is None:
            raise RuntimeError("RichnessCallback: training has not started")
        return self.monitor

    def begin(self, model: nn.Module, data: Any, step: int) -> None:
        """Start a monitor, after ``step`` optimizer steps; after the first step it continues the series in ``out``."""
        resume = bool(step and self._options.get("out"))
        self.monitor = Monitor(model, data, step=step, resume=resume, **self._options)
        self._logged = sum(evaluation.step < step for evaluation in self.monitor.evaluations)

    def to_log(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Step and numbers of each new evaluation, under the names that loggers show."""
        for evaluation in self.running.evaluations[self._logged :]:
            self._logged += 1
            chosen = [name for name in evaluation.values if self._measures == "all" or name in self._measures]
            yield (
                evaluation.step,
                {self._prefix + name: evaluation.values[name] for name in chosen if name not in _NOT_LOGGED},
            )
