"""What the callbacks share: a monitor that begins with training, and what of it was not logged yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from ..training.monitor import Monitor

PREFIX = "richness/"
OPTIONS = ("every", "preset", "out", "num_samples", "head", "alarms")
_NOT_LOGGED = {"loss", "epoch", "seconds"}  # the trainer's own business


class Monitored:
    """A monitor to come.

    Attributes:
        monitor: that of the last training, None before the first.
    """

    def __init__(self, **options: Any) -> None:
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise TypeError(f"RichnessCallback has no option {', '.join(unknown)}; it takes data and {', '.join(OPTIONS)}")
        self._options = options
        self._logged = 0
        self.monitor: Monitor | None = None

    @property
    def running(self) -> Monitor:
        """The monitor of the training that goes on."""
        if self.monitor is None:
            raise RuntimeError("RichnessCallback: training has not started")
        return self.monitor

    def begin(self, model: nn.Module, data: Any, step: int) -> None:
        """Training begins, or goes on after ``step``."""
        resume = bool(step and self._options.get("out"))
        self.monitor = Monitor(model, data, step=step, resume=resume, **self._options)
        self._logged = sum(found.step < step for found in self.monitor.evaluations)

    def to_log(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Step and numbers of the evaluations that were not asked for before, under the names that loggers show."""
        for found in self.running.evaluations[self._logged :]:
            self._logged += 1
            yield found.step, {PREFIX + name: value for name, value in found.values.items() if name not in _NOT_LOGGED}
