"""The measure during training: when it is due, on a probe set that stays, kept as it comes."""

from __future__ import annotations

import copy
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor, nn

from .._support.processes import Processes
from .._support.text import plain
from ..errors import DataError
from ..functional import low_rank_estimate, low_rank_measure, tangent_kernel, tangent_kernel_change
from ..measurement.measure import collect, measure
from ..model.batches import first_dimension, frozen
from ..model.capture import unwrapped
from ..model.undisturbed import undisturbed
from ..results.series import Evaluation, Series, SeriesFolder, evaluate
from ..schedules import Moment, Schedule, decided_by_step, log_spaced, within
from ..schedules import every as every_step

Preset = Literal["light", "standard", "full"]
Alarm = Callable[[Evaluation, Evaluation | None], None]
TANGENT_SAMPLES = 16


class Monitor:
    """Measures a network while it trains, without changing how it trains.

    Weights, optimizer, batch-norm statistics and random states are untouched: training with a monitor gives the same bits as
    without. What is found is in :attr:`series` and, with ``out``, on disk as soon as it is found.

    Args:
        model: the network; wrapped in DDP, FSDP or torch.compile too.
        data: the probe set, as for :func:`lazyrich.measure`: its first ``num_samples`` are drawn once and stay. None: the
            training batches themselves, the last that ``step(batch=…)`` was given.
        every: when to measure: a number of steps, or a schedule of :mod:`lazyrich.schedules` (any function of a ``Moment``).
            By default log-spaced, and never more than 1.5 % of the time; on several processes log-spaced.
        preset: by cost: "light" is D_LR with its error, rank and the other references; "standard" adds the curves, neural
            collapse and the comparison measures; "full" adds every layer, S_init and the change of the tangent kernel (the
            latter two not where a series is resumed, for the start is not known then).
        out: a folder for the series; nothing is written without it.
        resume: go on with what ``out`` holds; what it holds beyond the step where training goes on is dropped.
        step: how many steps were done before; where that is known, what ``out`` holds beyond it is dropped at once.
        num_samples: how many samples are measured, over all processes.
        head: as for :func:`lazyrich.measure`.
        alarms: called after every evaluation with it and the one before; see :func:`crosses` and :func:`falls`.

    Raises:
        HeadError, DataError: as :func:`lazyrich.measure`, at the start; ``out`` holds a series and ``resume`` was not asked for.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
        >>> with Monitor(model, torch.randn(64, 4), every=5) as monitor:
        ...     for _ in range(10):
        ...         _ = monitor.step()  # after optimizer.step()
        >>> monitor.series.steps.tolist()
        [0, 5, 10]
        >>> len(set(monitor.series["low_rank"]))  # nothing was trained
        1
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any = None,
        *,
        every: int | Schedule | None = None,
        preset: Preset = "light",
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
        step: int | None = None,
        num_samples: int = 512,
        head: nn.Module | str | None = None,
        alarms: Sequence[Alarm] = (),
    ) -> None:
        if preset not in get_args(Preset):
            raise ValueError(f"preset must be one of {', '.join(get_args(Preset))}, got {preset!r}")
        if num_samples < 2:
            raise ValueError(f"num_samples must be at least 2, got {num_samples}")
        self._began, self._spent = time.monotonic(), 0.0
        self._processes = Processes(True)
        self.model, self.preset, self.head, self.alarms = model, preset, head, tuple(alarms)
        self._num_samples = num_samples
        self._schedule = self._chosen(every)
        self._folder = None if out is None else SeriesFolder(Path(out))
        self._moment = Moment(step or 0)
        self._recent: deque[Any] = deque()
        with undisturbed(model, data, None):
            self._probe = None if data is None else frozen(data, num_samples, (self._processes.rank, self._processes.size))
        self.evaluations: list[Evaluation] = self._opened(resume)
        if step is not None:
            self._rewind(step)
        from_start = preset == "full" and not self.evaluations  # what is resumed has its start behind it
        self._start = copy.deepcopy(unwrapped(model)) if from_start else None
        inputs = self._probe[0][0] if from_start and self._probe and isinstance(self._probe[0], tuple) else None
        self._tangent_inputs = inputs[:TANGENT_SAMPLES] if isinstance(inputs, Tensor) else None
        self._first_kernel: Tensor | None = None
        if not self.evaluations and self._probe is not None:
            self._look()

    @property
    def series(self) -> Series:
        """What was found so far."""
        return Series(self.evaluations)

    @property
    def now(self) -> int:
        """The step that training has come to, as far as the monitor was told."""
        return self._moment.step

    def step(
        self, step: int | None = None, *, loss: Any = None, epoch: int | None = None, batch: Any = None
    ) -> Evaluation | None:
        """To be called after every optimizer step; measures if it is due.

        Args:
            step: how many steps are done; by default one more than at the last call. Say it where training was resumed.
            loss: for schedules that look at it; a number or a 0-d tensor, read only when it is needed.
            epoch: for schedules that look at it.
            batch: the training batch, where the monitor has no data of its own.

        Returns:
            What was found, or None where nothing was due.
        """
        known = self.evaluations[-1].step if self.evaluations else 0
        step = max(self._moment.step, known) + 1 if step is None else step
        self._rewind(step - 1)
        seconds = time.monotonic() - self._began
        loss = loss.detach() if isinstance(loss, Tensor) else loss
        self._moment = replace(self._moment, step=step, loss=loss, epoch=epoch, seconds=seconds, spent=self._spent)
        if self._probe is None:
            self._remember(batch)
        return self._look() if self._due() else None

    def close(self) -> None:
        """Measures once more, unless the last step was measured."""
        if not self.evaluations or self.evaluations[-1].step != self._moment.step:
            self._look()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def __str__(self) -> str:
        if not self.evaluations:
            return "nothing measured yet"
        last = self.evaluations[-1]
        if "low_rank" not in last.values:
            return f"step {last.step:,}: {plain(last.note or '')}"
        error = ""
        if "low_rank_stderr" in last.values:
            error = f" (corrected {last.values['low_rank_corrected']:.4f} ± {last.values['low_rank_stderr']:.4f})"
        spent = f"{self._spent:.1f} s" if self._spent >= 0.1 else f"{1000 * self._spent:.0f} ms"
        return (
            f"step {last.step:,}: D_LR {last.values['low_rank']:.4f}{error}, rank {last.values['output_rank']:.0f}; "
            f"{len(self.evaluations)} evaluations took {spent}"
        )

    def _chosen(self, every: int | Schedule | None) -> Schedule:
        if every is None:
            return within() if self._processes.size == 1 else log_spaced()
        if callable(every):
            return every
        return every_step(every)

    def _due(self) -> bool:
        if self._processes.size == 1 or decided_by_step(self._schedule):
            return bool(self._schedule(self._moment))
        decided = self._processes.gather(bool(self._schedule(self._moment)))  # one answer for all
        return decided[0]

    def _remember(self, batch: Any) -> None:
        if batch is None:
            raise DataError("the monitor has no data: give it a probe set, Monitor(model, data), or step(batch=…) every time")
        self._recent.append(batch)
        wanted = -(-self._num_samples // self._processes.size)
        sizes = [first_dimension(b[0] if isinstance(b, (tuple, list)) else b) for b in self._recent]
        while sum(sizes) - sizes[0] >= wanted:
            self._recent.popleft()
            sizes.pop(0)

    def _look(self) -> Evaluation:
        began = time.monotonic()
        before = self.evaluations[-1] if self.evaluations else None
        found = evaluate(self._moment.step, self._measured)
        told = {"loss": self._moment.loss, "epoch": self._moment.epoch}
        values = {name: float(value) for name, value in told.items() if value is not None}
        found = replace(found, values=found.values | values | {"seconds": began - self._began})
        self.evaluations.append(found)
        if self._folder is not None and self._processes.rank == 0:
            self._folder.add(found)
        cost = time.monotonic() - began
        self._spent += cost
        self._moment = replace(self._moment, cost=cost, spent=self._spent, previous=replace(self._moment, previous=None))
        for alarm in self.alarms:
            alarm(found, before)
        return found

    def _measured(self) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        data = list(self._recent) if self._probe is None else self._probe
        if not data:
            raise DataError("nothing to measure: no step was taken with a batch")
        limit = self._num_samples if self._probe is None else None
        if self.preset == "light":
            gram = collect(self.model, data, head=self.head, num_samples=limit, distributed=True)
            estimate = low_rank_estimate(gram)
            given = {
                "low_rank": estimate.value, "low_rank_corrected": estimate.corrected, "low_rank_stderr": estimate.stderr,
                "isotropic": estimate.isotropic, "output_rank": estimate.rank,
                "balanced": low_rank_measure(gram, reference="balanced"),
                "output_alignment": low_rank_measure(gram, reference="outputs"),
                **{f"low_rank_at_{rtol:g}": value for rtol, value in estimate.band.items()},
            }  # fmt: skip
            return {name: float(value) for name, value in given.items() if value is not None}, {}
        full = self.preset == "full"
        r = measure(self.model, data, head=self.head, num_samples=limit, layers="all" if full else None, start=self._start)
        values = r.numbers()
        if full:
            values |= self._tangent_kernel_change()
        return values, r.curves()

    def _tangent_kernel_change(self) -> dict[str, float]:
        """How far the tangent kernel has come from the start, on a few probe samples; nothing where inputs are no tensor."""
        if self._tangent_inputs is None:
            return {}
        place = next(self.model.parameters()).device
        kernel = tangent_kernel(unwrapped(self.model), self._tangent_inputs.to(place))
        if self._first_kernel is None:
            self._first_kernel = kernel
        outputs = len(kernel) // len(self._tangent_inputs)
        change = tangent_kernel_change(self._first_kernel, kernel, num_outputs=outputs)
        return {"tangent_kernel_change": change.alignment_change, "tangent_kernel_distance": change.relative_distance}

    def _opened(self, resume: bool) -> list[Evaluation]:
        """What the folder holds; it is made this monitor's."""
        if self._folder is None:
            if resume:
                raise ValueError("resume=True needs out, the folder to go on with")
            return []
        held = list(self._folder.read().evaluations)
        if held and not resume:
            raise DataError(f"out={self._folder.path} holds a series already: pass resume=True to continue it, or another out=")
        if self._processes.rank == 0:
            self._folder.mend()
        return held

    def _rewind(self, step: int) -> None:
        """Training goes on after ``step``: what was found later will be found again."""
        if not self.evaluations or self.evaluations[-1].step <= step:
            return
        self.evaluations = [e for e in self.evaluations if e.step <= step]
        if self._folder is not None and self._processes.rank == 0:
            self._folder.rewind(step)


def crosses(measure: str, level: float, call: Callable[[Evaluation], object]) -> Alarm:
    """An alarm: ``call`` is called with the evaluation at which a measure has come to the other side of ``level``.

    >>> alarm = crosses("low_rank", 0.5, lambda found: print("step", found.step))
    >>> alarm(Evaluation(20, {"low_rank": 0.4}), Evaluation(10, {"low_rank": 0.6}))
    step 20
    """

    def alarm(found: Evaluation, before: Evaluation | None) -> None:
        if before is None or measure not in found.values or measure not in before.values:
            return
        if (found.values[measure] > level) != (before.values[measure] > level):
            call(found)

    return alarm


def falls(measure: str, call: Callable[[Evaluation], object]) -> Alarm:
    """An alarm: ``call`` is called with an evaluation at which a measure is lower than at the one before.

    For what should not fall, such as "output_rank".
    """

    def alarm(found: Evaluation, before: Evaluation | None) -> None:
        if before is not None and found.values.get(measure, float("inf")) < before.values.get(measure, float("-inf")):
            call(found)

    return alarm
