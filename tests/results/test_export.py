"""Results and series in pandas, CSV and LaTeX: the numbers that they hold, to the last bit."""

import csv
import io

import pandas as pd
import pytest
import torch

import lazyrich
from lazyrich import Evaluation, Series
from lazyrich.results.catalogue import LOGGED, entry

SERIES = Series(
    [Evaluation(0, {"low_rank": 0.1 + 0.2, "nc1": 3.0}), Evaluation(1000, {"low_rank": 0.25, "low_rank of a_b": 1 / 3})]
)


@pytest.fixture(scope="module")
def result():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, 6, generator=generator)
    return lazyrich.measure_arrays(features, features[:, :2] + torch.randn(64, 2, generator=generator))


def test_a_result_as_a_frame(result):
    frame = result.to_frame()
    assert frame.index.name == "measure"
    assert frame["value"].to_dict() == result.numbers()
    assert frame["stderr"]["low_rank_corrected"] == result.low_rank_stderr
    assert pd.isna(frame["stderr"]["low_rank"])
    assert frame["label"]["low_rank"] == entry("low_rank").full_label


def test_a_series_as_a_frame():
    frame = SERIES.to_frame()
    assert frame.index.tolist() == [0, 1000]
    assert sorted(frame.columns) == ["low_rank", "low_rank of a_b", "nc1"]
    assert frame["low_rank"].tolist() == SERIES["low_rank"].tolist()
    assert pd.isna(frame["nc1"][1000])
    assert len(Series([]).to_frame()) == 0


def test_csv(result, tmp_path):
    rows = {row["measure"]: row for row in csv.DictReader(io.StringIO(result.to_csv(tmp_path / "r.csv")))}
    assert {name: float(row["value"]) for name, row in rows.items()} == result.numbers()
    assert rows["low_rank"]["stderr"] == ""
    assert (tmp_path / "r.csv").read_bytes().decode() == result.to_csv()
    assert SERIES.to_csv() == f"step,low_rank,low_rank of a_b,nc1\n0,{0.1 + 0.2},,3.0\n1000,0.25,{1 / 3},\n"
    assert Series([]).to_csv() == ""


def test_latex(result):
    lines = result.to_latex().splitlines()
    assert lines[:3] == [r"\begin{tabular}{lr}", r"\toprule", r"measure & value \\"]
    error = rf"{result.low_rank_corrected:.4f} $\pm$ {result.low_rank_stderr:.4f} \\"
    assert any(line.endswith(error) for line in lines)
    assert any(line.startswith(r"$D_\mathrm{LR}$ (0 = rich) & ") for line in lines)
    assert result.to_latex().isascii()
    table = SERIES.to_latex().splitlines()
    assert table[0] == r"\begin{tabular}{lrr}"
    assert table[-3] == r"1,000 & 0.2500 & - \\"
    assert table[-1] == r"\end{tabular}"


def test_special_characters_in_latex():
    name = "low_rank of a_b%&"
    layers = lazyrich.Series([Evaluation(0, {name: 1.0})])
    layers._table = lambda: [["x"], [entry(name).label]]
    assert r"of a\_b\%\& \\" in layers.to_latex()


def test_the_numbers_to_log(result):
    logged = result.logged()
    assert list(logged) == [name for name in LOGGED if name in logged]
    assert {"low_rank", "low_rank_corrected", "low_rank_stderr", "output_rank"} <= set(logged)
    assert logged.items() <= result.numbers().items()
    assert len(LOGGED) == 8


def test_membership():
    assert "low_rank" in SERIES
    assert "lowrank" not in SERIES
