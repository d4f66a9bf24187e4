"""Conditions at equal fit, against interpolations by hand; and the tables and the figure made of them."""

from pathlib import Path

import numpy as np
import pytest

from lazyrich.experiments import Digits, Loss, Mlp, Optimizer, Setup
from lazyrich.experiments.experiment import Experiment, Results
from lazyrich.experiments.figures import over_fit
from lazyrich.experiments.fit import comparable, equal_fits, first_index, remarks, value_at
from lazyrich.experiments.recorded import read_table
from lazyrich.experiments.run_folder import Run
from lazyrich.experiments.table import TITLES, fits, table_text
from lazyrich.results.series import Evaluation, Series


def setup(width=8, loss="squared", scale=1.0):
    return Setup(Digits(), Mlp(width=width), Loss(loss, target_scale=scale), Optimizer(), steps=3)


def run(accuracy, loss, d_lr):
    values = [
        dict(zip(("train_accuracy", "train_loss", "low_rank"), of, strict=True)) for of in zip(accuracy, loss, d_lr, strict=True)
    ]
    return Run(Series([Evaluation(step, of) for step, of in enumerate(values)]), Path(), 0.0)


# fast reaches an accuracy of 0.6 half-way between steps 0 and 1, and a loss of 0.8 a quarter of the way; slow ends there
FAST = run([0.2, 1.0, 1.0, 1.0], [1.0, 0.2, 0.1, 0.0], [0.9, 0.5, 0.3, 0.1])
SLOW = run([0.1, 0.2, 0.4, 0.6], [2.0, 1.5, 1.0, 0.8], [0.8, 0.7, 0.6, 0.5])
OTHER = run([0.0, 0.0, 0.0, 0.1], [9.0, 8.0, 7.0, 6.0], [0.7, 0.7, 0.7, 0.7])
SETUPS = {"fast": setup(), "slow": setup(width=16), "other": setup(loss="cross-entropy")}
RESULTS = Results({"fast": [FAST, SLOW], "slow": [SLOW, FAST], "other": [OTHER, OTHER]}, (0, 1))
EXPERIMENT = Experiment("trial", "what?", "the width", lambda preset: SETUPS, claims=(), figures=lambda results, folder: None)


def test_by_hand():
    fits = equal_fits(RESULTS, SETUPS, ("low_rank", "train_accuracy", "train_loss"))
    accuracy, loss = fits["train_accuracy"], fits["train_loss"]
    assert list(accuracy) == list(loss) == ["fast", "slow"]  # the third has another loss, and so nothing to be compared with
    np.testing.assert_allclose(accuracy["fast"]["train_accuracy"], 0.6)
    np.testing.assert_allclose(accuracy["fast"]["low_rank"], [0.7, 0.5])  # the seeds change places
    np.testing.assert_allclose(accuracy["slow"]["low_rank"], [0.5, 0.7])
    np.testing.assert_allclose(loss["fast"]["train_loss"], 0.8)
    np.testing.assert_allclose(loss["fast"]["low_rank"], [0.8, 0.5])


def test_other_targets_are_comparable_by_accuracy_alone():
    setups = {"fast": setup(), "slow": setup(scale=3.0)}
    results = Results({"fast": [FAST], "slow": [SLOW]}, (0,))
    assert list(equal_fits(results, setups, ("low_rank",))) == ["train_accuracy"]
    assert comparable(results, setups) == []
    assert remarks(results, setups) == []


def test_too_few_evaluations_are_not_interpolated():
    short = run([0.0, 0.5, 1.0], [2.0, 1.0, 0.0], [0.9, 0.5, 0.1])
    assert equal_fits(Results({"fast": [FAST], "slow": [short]}, (0,)), SETUPS, ("low_rank",)) == {}


def test_a_level_that_is_never_reached():
    assert np.isnan(first_index(FAST["train_accuracy"], 1.1))
    assert np.isnan(value_at(FAST, "low_rank", float("nan")))


def test_the_rank_correlation_is_over_all_runs_of_three_conditions():
    assert remarks(RESULTS, SETUPS) == []  # of two
    three = Results({**RESULTS.runs, "other": [OTHER, OTHER]}, (0, 1))
    (line,) = remarks(three, SETUPS | {"other": setup()})
    assert line == "Mlp, Digits, squared: rank correlation of the last D_LR with the last training loss 1.00"


def test_the_table_is_read_back(tmp_path):
    text = table_text(EXPERIMENT, "quick", RESULTS)
    (tmp_path / "table.txt").write_text(text + "\n", encoding="utf-8")
    table = read_table(tmp_path / "table.txt")
    assert list(table.block.rows) == ["fast", "slow", "other"]
    assert [block.title for block in table.fits] == list(TITLES.values()) == list(fits(EXPERIMENT, "quick", RESULTS))
    for block in table.fits:
        assert list(block.rows) == ["fast", "slow"]
        assert block.columns == ["training loss", "train", "D_LR"]  # what no run has gets no column
    assert table.fits[1].rows["fast"] == ["0.700 ± 0.141", "60.0 ± 0.0 %", "0.600 ± 0.141"]
    assert table.remarks == remarks(RESULTS, SETUPS)


def test_some_conditions_have_no_table_at_equal_fit():
    some = Results({"fast": [FAST], "slow": [SLOW]}, (0,), complete=False)
    assert fits(EXPERIMENT, "quick", some) == {}
    assert not any(title in table_text(EXPERIMENT, "quick", some) for title in TITLES.values())


def test_the_figure(tmp_path):
    over_fit(RESULTS, tmp_path / "over-fit.png", SETUPS)
    assert (tmp_path / "over-fit.png").read_bytes().startswith(b"\x89PNG")
    over_fit(Results({"other": [OTHER]}, (0,)), tmp_path / "none.png", SETUPS)
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [(0.02, 3.0, ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"]), (1e-3, 90.0, ["0.001", "0.01", "0.1", "1", "10"])],
)
def test_readable_marks(low, high, marks):
    from lazyrich.results.drawing import new_figure, readable_log

    axis = new_figure(3, 3).subplots()
    axis.plot([low, high], [low, high])
    axis.set_yscale("log")
    axis.set_ylim(low, high)
    readable_log(axis.yaxis)
    inside = [value for value in axis.yaxis.get_majorticklocs() if low <= value <= high]
    assert [axis.yaxis.get_major_formatter()(value, 0) for value in inside] == marks
