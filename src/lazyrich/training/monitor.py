"""The measures during training: taken when they are due, on a fixed probe set, and stored at once."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from torch import Tensor, nn

from .. import schedules
from .._support.nested import tensors_in
from .._support.processes import Processes
from .._support.resume import check_free
from .._support.text import plain
from ..errors import DataError, DegenerateError, NonFiniteError
from ..functional import low_rank_estimate, low_rank_measure, tangent_kernel, tangent_kernel_change
from ..functional.influence import known_influences
from ..measurement.kept import KeptStart
from ..measurement.laziness import laziness_of, of_start
from ..measurement.measure import collected, measure, one_pass_of
from ..measurement.probe import Probe, probe_set
from ..model.batches import IGNORED_LABEL, Forward
from ..model.copying import copied_model
from ..model.linear import unwrapped
from ..model.rows import Layout, RowChoice
from ..model.undisturbed import undisturbed
from ..results.catalogue import functions
from ..results.series import Evaluation, Measured, Series, SeriesFolder, evaluate
from ..schedules import Moment, Schedule
from .alarms import Alarm

Preset = Literal["light", "standard", "full"]
TANGENT_SAMPLES = 16


class Monitor:
    """Measure a network while it trains, without changing how it trains.

    Weights, optimizer, batch-norm statistics and random states are unchanged: training with a monitor gives the same bits as
    training without one. Each evaluation is added to :attr:`series` and, with ``out``, written to disk at once.

    Args:
        model: the network; it may be wrapped in DDP, FSDP or torch.compile.
        data: the probe set, as for :func:`lazyrich.measure`; its first ``num_samples`` samples are read once and copied. None:
            the training batches themselves, the last ones that ``step(batch=…)`` received.
        every: when to measure: a number of steps, or a schedule of :mod:`lazyrich.schedules` (any function of a ``Moment``).
            By default at log-spaced steps, within 1.5 % of the time; on several processes at all log-spaced steps.
        preset: what to measure, by cost. "light": D_LR with its error, the rank, the other references and λ. "standard" adds the
            curves, neural collapse and the comparison measures. "full" adds every layer, S_init and the change of the tangent
            kernel; the last two need the network of the start, so a resumed series does not have them. For λ the features of the
            start on the probe set are kept, at most 1 GiB of them, and saved in ``out`` for a resumed series. Without a probe set
            there is no λ.
        out: folder for the series; by default nothing is written.
        resume: continue the series in ``out``. Evaluations after the step at which training resumes are dropped.
        step: number of steps done before. If it is known, evaluations in ``out`` after it are dropped at once.
        num_samples: number of samples to measure, over all processes.
        head, rows, forward, targets, ignore_index, layout, extra: as for :func:`lazyrich.measure`.
        alarms: functions to call after each evaluation with it and the one before; see :func:`crosses` and :func:`falls`.

    Attributes:
        evaluations: the evaluations so far, in the order of their steps.

    Raises:
        HeadError, DataError: as for :func:`lazyrich.measure`, at the start; ``out`` holds a series and ``resume`` is False.

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
        rows: RowChoice = None,
        forward: Forward | None = None,
        targets: Callable[[Any], Tensor] | None = None,
        ignore_index: int = IGNORED_LABEL,
        layout: Layout | None = None,
        extra: Sequence[str] = (),
        alarms: Sequence[Alarm] = (),
    ) -> None:
        if preset not in get_args(Preset):
            raise ValueError(f"preset must be one of {', '.join(get_args(Preset))}, got {preset!r}")
        if num_samples < 2:
            raise ValueError(f"num_samples must be at least 2, got {num_samples}")
        if resume and out is None:
            raise ValueError("resume=True needs out, the folder of the series to continue")
        self._began, self._spent = time.monotonic(), 0.0
        self._processes = Processes(True)
        self.model, self.preset, self.head, self.alarms = model, preset, head, tuple(alarms)
        self._num_samples = num_samples
        self._reading: dict[str, Any] = {
            "head": head, "rows": rows, "forward": forward, "targets": targets, "ignore_index": ignore_index, "layout": layout,
        }  # fmt: skip
        self._extra = functions(extra)
        self._schedule = self._chosen(every)
        self._folder = None if out is None else SeriesFolder(Path(out))
        self._moment = Moment(step or 0)
        self._recent: deque[Any] = deque()
        self._probe = None if data is None else self._drawn(data)
        self.evaluations: list[Evaluation] = [] if self._folder is None else self._resumed(self._folder, resume)
        if step is not None:
            self._rewind(step)
        if self.evaluations:
            self._moment = replace(self._moment, previous=Moment(self.evaluations[-1].step))
        from_start = preset == "full" and not self.evaluations  # the start of a resumed series is not known
        self._note: str | None = None
        self._kept = None if self._probe is None else self._kept_start(self._probe)
        self._start = self._copied(model) if from_start else None
        first = self._probe.batches[0] if from_start and self._probe is not None else None
        inputs = first[0] if isinstance(first, (tuple, list)) else first
        self._tangent_inputs = inputs[:TANGENT_SAMPLES] if isinstance(inputs, Tensor) else None
        self._first_kernel: Tensor | None = None
        if not self.evaluations and self._probe is not None:
            self._evaluate()

    @property
    def series(self) -> Series:
        """The evaluations so far."""
        return Series(self.evaluations, None if self._folder is None else self._folder.path)

    @property
    def now(self) -> int:
        """The last step that the monitor knows of."""
        return self._moment.step

    def step(
        self, step: int | None = None, *, loss: Any = None, epoch: int | None = None, batch: Any = None
    ) -> Evaluation | None:
        """Count one optimizer step, and measure if an evaluation is due. Call it after every optimizer step.

        Args:
            step: number of steps done; by default one more than at the last call. Pass it if training was resumed.
            loss: for schedules that depend on it; a number or a 0-d tensor, which is read only when it is needed.
            epoch: for schedules that depend on it.
            batch: the training batch, if the monitor has no data of its own.

        Returns:
            The evaluation, or None if none was due.
        """
        last = self.evaluations[-1].step if self.evaluations else 0
        step = max(self._moment.step, last) + 1 if step is None else step
        self._rewind(step - 1)
        seconds = time.monotonic() - self._began
        loss = loss.detach() if isinstance(loss, Tensor) else loss
        self._moment = replace(self._moment, step=step, loss=loss, epoch=epoch, seconds=seconds, spent=self._spent)
        if self._probe is None:
            self._remember(batch)
        return self._evaluate() if self._due() else None

    def close(self) -> None:
        """Measure once more, unless the last step was measured."""
        if not self.evaluations or self.evaluations[-1].step != self._moment.step:
            self._evaluate()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.series._repr_html_() if self.evaluations else "nothing measured yet"

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
            return schedules.within() if self._processes.size == 1 else schedules.log_spaced()
        return every if callable(every) else schedules.every(every)

    def _drawn(self, data: Any) -> Probe:
        """The probe set."""
        with undisturbed(self.model, data, None) as device:
            one_pass = one_pass_of(unwrapped(self.model), data, device, self._processes, **self._reading)
            return probe_set(one_pass, self._num_samples)

    def _kept_start(self, probe: Probe) -> KeptStart | None:
        """The features of the start on the probe set, which are saved, or read where a series is resumed; or a note."""
        rank, size = self._processes.rank, self._processes.size
        name = "start-features" if size == 1 else f"start-features-{rank}-of-{size}"
        path = None if self._folder is None else self._folder.path / f"{name}.npz"
        kept, reason = None, ""
        try:
            if path is not None and self.evaluations:
                kept = KeptStart.load(path)
                if kept.probe != probe.batches.digest:
                    kept, reason = None, "the probe set is another than at the start"
            elif not self.evaluations:
                with self._processes.all_or_none(), undisturbed(self.model, probe.batches, None) as device:
                    one_pass = one_pass_of(unwrapped(self.model), probe.batches, device, self._processes, **self._reading)
                    kept = KeptStart.of(replace(one_pass, num_samples=self._limit), probe)
                if path is not None:
                    kept.save(path)
        except FileNotFoundError:
            reason = f"{path} does not exist"
        except Exception as error:  # an optional part never ends the measurement
            kept, reason = None, str(error)
        reasons = [theirs for theirs in self._processes.gather(None if kept is not None else reason) if theirs is not None]
        if reasons:
            self._note = f"the laziness ratio is left out: {plain(reasons[0])}"
        return None if reasons else kept

    def _copied(self, model: nn.Module) -> nn.Module | None:
        """The network at the start; None, with a note, if it cannot be copied."""
        try:
            return copied_model(unwrapped(model))
        except Exception as error:  # an optional part never ends the measurement
            reason = f"S_init is left out, because the model cannot be copied: {type(error).__name__}: {error}"
            self._note = reason if self._note is None else f"{self._note}; {reason}"
            return None

    def _due(self) -> bool:
        due = bool(self._schedule(self._moment))
        if self._processes.size == 1 or schedules.decided_by_step(self._schedule):
            return due
        return self._processes.gather(due)[0]  # losses and clocks differ between processes: the first decides for all

    def _remember(self, batch: Any) -> None:
        """Keep the last batches, as many as hold ``num_samples`` samples."""
        if batch is None:
            raise DataError("the monitor has no data: pass a probe set, Monitor(model, data), or step(batch=…) at every step")
        self._recent.append(batch)
        wanted = -(-self._num_samples // self._processes.size)
        sizes = [_size(batch) for batch in self._recent]
        while sum(sizes) - sizes[0] >= wanted:
            self._recent.popleft()
            sizes.pop(0)

    def _evaluate(self) -> Evaluation:
        """Measure, store the evaluation, count its time, call the alarms."""
        began = time.monotonic()
        before = self.evaluations[-1] if self.evaluations else None
        evaluation = evaluate(self._moment.step, self._measured)
        reported = {"loss": self._moment.loss, "epoch": self._moment.epoch}
        values = {name: float(value) for name, value in reported.items() if value is not None}
        evaluation = replace(
            evaluation,
            values=evaluation.values | values | {"seconds": began - self._began},
            note=evaluation.note or self._note,
        )
        self._note = None
        self.evaluations.append(evaluation)
        if self._folder is not None and self._processes.rank == 0:
            self._folder.add(evaluation)
        cost = time.monotonic() - began
        self._spent += cost
        self._moment = replace(self._moment, cost=cost, spent=self._spent, previous=replace(self._moment, previous=None))
        for alarm in self.alarms:
            alarm(evaluation, before)
        return evaluation

    @property
    def _limit(self) -> int | None:
        return self._num_samples if self._probe is None else self._probe.limit

    def _measured(self) -> Measured:
        data = list(self._recent) if self._probe is None else self._probe.batches
        if not data:
            raise DataError("nothing to measure: no step was taken with a batch")
        try:
            return self._measured_with(data, self._kept if self._start is None else self._start)
        except (DegenerateError, NonFiniteError):
            raise
        except DataError as error:
            if self._kept is None or self._start is not None:
                raise
            measured = self._measured_with(data, None)  # if the cause is another, this raises the same
            self._kept, self._note = None, f"the laziness ratio is left out: {error}"
            return measured

    def _measured_with(self, data: list[Any], start: nn.Module | KeptStart | None) -> Measured:
        if self.preset == "light":
            return self._light(data, start if isinstance(start, KeptStart) else None)
        layers = "all" if self.preset == "full" else None
        r = measure(
            self.model, data, num_samples=self._limit, layers=layers, start=start, extra=tuple(self._extra), **self._reading
        )
        numbers = r.numbers() | (self._tangent_kernel_change() if self.preset == "full" else {})
        return numbers, r.curves(), r.influences

    def _light(self, data: list[Any], start: KeptStart | None) -> Measured:
        gram, beginning = collected(self.model, data, start, num_samples=self._limit, **self._reading)
        estimate, balanced = low_rank_estimate(gram), low_rank_estimate(gram, reference="balanced")
        laziness = laziness_of(
            estimate, balanced.value, None if beginning is None else of_start(beginning.gram, beginning.note)
        )  # fmt: skip
        values = {
            "low_rank": estimate.value, "low_rank_corrected": estimate.corrected, "low_rank_stderr": estimate.stderr,
            "isotropic": estimate.isotropic, "output_rank": estimate.rank, "balanced": balanced.value,
            "balanced_corrected": balanced.corrected, "balanced_stderr": balanced.stderr, **laziness.numbers(),
            "output_alignment": low_rank_measure(gram, reference="outputs"),
            **{f"low_rank_at_{rtol:g}": value for rtol, value in estimate.band.items()},
            **{name: function(gram) for name, function in self._extra.items()},
        }  # fmt: skip
        numbers = {name: float(value) for name, value in values.items() if value is not None}
        return numbers, {}, known_influences(low_rank=estimate, balanced=balanced, laziness=laziness)

    def _tangent_kernel_change(self) -> dict[str, float]:
        """Change of the tangent kernel since the start, on a few probe samples; empty if it cannot be computed."""
        if self._tangent_inputs is None:
            return {}
        device = next(self.model.parameters()).device
        try:
            kernel = tangent_kernel(unwrapped(self.model), self._tangent_inputs.to(device))
        except Exception as error:  # an optional part never ends the measurement
            self._tangent_inputs = None
            self._note = f"the tangent kernel is left out: {type(error).__name__}: {str(error).splitlines()[0]}"
            return {}
        if self._first_kernel is None:
            self._first_kernel = kernel
        outputs = len(kernel) // len(self._tangent_inputs)
        change = tangent_kernel_change(self._first_kernel, kernel, num_outputs=outputs)
        return {"tangent_kernel_change": change.alignment_change, "tangent_kernel_distance": change.relative_distance}

    def _resumed(self, folder: SeriesFolder, resume: bool) -> list[Evaluation]:
        """The evaluations in the folder."""
        evaluations = folder.read().evaluations
        check_free(folder.path, bool(evaluations), resume, "a series")
        if self._processes.rank == 0:
            folder.repair()
        return evaluations

    def _rewind(self, step: int) -> None:
        """Drop the evaluations after ``step``, because training continues from there."""
        if not self.evaluations or self.evaluations[-1].step <= step:
            return
        self.evaluations = [e for e in self.evaluations if e.step <= step]
        if self._folder is not None and self._processes.rank == 0:
            self._folder.rewind(step)


def _size(batch: Any) -> int:
    """About how many samples a batch holds: it decides how many batches are remembered, not what is counted."""
    x = next(tensors_in(batch), None)
    return 64 if x is None or x.ndim == 0 else len(x)
