"""When to measure. A schedule is any function of a ``Moment``; these are the usual ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Moment:
    """The state of training, and the time that measuring has taken.

    Attributes:
        step: number of optimizer steps done.
        epoch: as the caller counts them, or None.
        loss: as the caller passed it, a number or a 0-d tensor, or None.
        seconds: time since the monitor was created.
        spent: seconds of that time that went into measuring.
        cost: seconds that the last evaluation took.
        previous: the moment of the last evaluation, None before the first.
    """

    step: int
    epoch: int | None = None
    loss: Any = None
    seconds: float = 0.0
    spent: float = 0.0
    cost: float = 0.0
    previous: Moment | None = None


Schedule = Callable[[Moment], bool]
BY_STEP = "_by_step"  # marks a schedule that depends on steps and epochs only: all processes decide alike


def _by_step(schedule: Schedule) -> Schedule:
    setattr(schedule, BY_STEP, True)
    return schedule


def _last(moment: Moment) -> int:
    """The step of the last evaluation; before the first one, 0 is still to come at step 0 and is past afterwards."""
    if moment.previous is not None and moment.previous.step <= moment.step:
        return moment.previous.step
    if moment.previous is not None:  # training has gone back to an earlier checkpoint: what is due is this very step
        return moment.step - 1
    return -1 if moment.step == 0 else 0


def every(steps: int) -> Schedule:
    """At step 0, and then as soon as a multiple of ``steps`` was reached or passed since the last evaluation.

    A trainer with two optimizers counts by twos, and passes every second multiple of an odd number:

    >>> every(5)(Moment(6, previous=Moment(0))), every(5)(Moment(8, previous=Moment(6)))
    (True, False)
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"every: steps must be an integer of at least 1, got {steps!r}")
    return _by_step(lambda moment: moment.step // steps * steps > _last(moment))


def at(*steps: int) -> Schedule:
    """At these steps, or at the first step after one of them that was passed.

    >>> at(5, 15)(Moment(6, previous=Moment(4))), at(5, 15)(Moment(8, previous=Moment(6)))
    (True, False)
    """
    return _by_step(lambda moment: any(_last(moment) < step <= moment.step for step in steps))


def log_spaced(per_decade: int = 8) -> Schedule:
    """At step 0, at step 1, and then a constant factor apart: ``per_decade`` evaluations in each factor of ten.

    Two in each factor of ten are at 1, 3, 10, 32, 100; a step that was passed is due at the next one:

    >>> log_spaced(2)(Moment(12, previous=Moment(9))), log_spaced(2)(Moment(31, previous=Moment(12)))
    (True, False)
    """
    if per_decade < 1:
        raise ValueError(f"log_spaced: per_decade must be at least 1, got {per_decade!r}")
    return _by_step(lambda moment: _log_spaced_up_to(moment.step, per_decade) > _last(moment))


def _log_spaced_up_to(step: int, per_decade: int) -> int:
    """The last log-spaced step that is not after ``step``."""
    if step == 0:
        return 0
    index = math.floor(math.log10(step) * per_decade) + 1
    return max(s for k in (index - 2, index - 1, index) if (s := round(10 ** (k / per_decade))) <= step)


def epochs(count: int = 1) -> Schedule:
    """Every ``count`` epochs: at the first step whose epoch is at least ``count`` after that of the last evaluation."""

    def due(moment: Moment) -> bool:
        if moment.epoch is None:
            raise ValueError("epochs: the schedule needs the epoch; call monitor.step(epoch=…)")
        before = -count if moment.previous is None else moment.previous.epoch or 0
        return moment.epoch >= before + count

    return _by_step(due)


def loss_falls(factor: float = 0.5) -> Schedule:
    """Whenever the loss is at most ``factor`` times the loss at the last evaluation.

    >>> loss_falls()(Moment(9, loss=0.4, previous=Moment(3, loss=1.0)))
    True
    """
    if not 0 < factor < 1:
        raise ValueError(f"loss_falls: factor must be between 0 and 1, got {factor!r}")

    def due(moment: Moment) -> bool:
        if moment.loss is None:
            raise ValueError("loss_falls: the schedule needs the loss; call monitor.step(loss=…)")
        before = None if moment.previous is None else moment.previous.loss
        return before is None or float(moment.loss) <= factor * float(before)

    return due


def within(share: float = 0.015, per_decade: int = 8) -> Schedule:
    """At log-spaced steps, but an evaluation waits until measuring stays within ``share`` of the time.

    That share counts the evaluation itself and one more: a monitor always measures when it is closed. The steps therefore
    depend on the speed of the machine; the measures do not.
    """
    if not 0 < share <= 1:
        raise ValueError(f"within: share must be between 0 and 1, got {share!r}")

    def due(moment: Moment) -> bool:
        if moment.previous is None:
            return True
        if moment.step == 0 or _log_spaced_up_to(moment.step, per_decade) <= moment.previous.step:
            return False
        return moment.spent + 2 * moment.cost <= share * moment.seconds

    return due


def any_of(*schedules: Schedule) -> Schedule:
    """Whenever one of the schedules is due."""
    together: Schedule = lambda moment: any(schedule(moment) for schedule in schedules)  # noqa: E731
    return _by_step(together) if all(decided_by_step(s) for s in schedules) else together


def decided_by_step(schedule: Schedule) -> bool:
    """Whether all processes of a group decide alike without asking one another."""
    return bool(getattr(schedule, BY_STEP, False))
