"""Alarms: functions that a monitor calls after each evaluation."""

from __future__ import annotations

from collections.abc import Callable

from ..results.series import Evaluation

Alarm = Callable[[Evaluation, Evaluation | None], None]  # (this evaluation, the one before)


def crosses(measure: str, level: float, call: Callable[[Evaluation], object]) -> Alarm:
    """Make an alarm that calls ``call`` with each evaluation at which a measure has crossed ``level``.

    >>> alarm = crosses("low_rank", 0.5, lambda evaluation: print("step", evaluation.step))
    >>> alarm(Evaluation(20, {"low_rank": 0.4}), Evaluation(10, {"low_rank": 0.6}))
    step 20
    """

    def alarm(evaluation: Evaluation, before: Evaluation | None) -> None:
        if before is None or measure not in evaluation.values or measure not in before.values:
            return
        if (evaluation.values[measure] > level) != (before.values[measure] > level):
            call(evaluation)

    return alarm


def falls(measure: str, call: Callable[[Evaluation], object]) -> Alarm:
    """Make an alarm that calls ``call`` with each evaluation at which a measure is lower than at the one before.

    For a measure that should not fall, such as "output_rank".

    >>> alarm = falls("output_rank", lambda evaluation: print("step", evaluation.step))
    >>> alarm(Evaluation(20, {"output_rank": 8}), Evaluation(10, {"output_rank": 9}))
    step 20
    """

    def alarm(evaluation: Evaluation, before: Evaluation | None) -> None:
        if before is not None and evaluation.values.get(measure, float("inf")) < before.values.get(measure, float("-inf")):
            call(evaluation)

    return alarm
