"""Evaluations over training: kept line by line, read back whole, whatever cut them off."""

import json

import numpy as np
import pytest

from lazyrich import DataError, Evaluation, Series
from lazyrich.results.series import SeriesFolder


def evaluation(step, **values):
    return Evaluation(step, values, {"quality": np.arange(3) / 7 + step})


@pytest.fixture
def folder(tmp_path):
    folder = SeriesFolder(tmp_path / "run")
    for step in (0, 5, 10):
        folder.add(evaluation(step, low_rank=1 / (step + 3), rank=step))
    return folder


class TestSeries:
    def test_reads(self):
        s = Series([Evaluation(0, {"a": 1.0}), Evaluation(5, {"a": 3.0, "b": 7.0}), Evaluation(9, {}, note="dead")])
        assert s.steps.tolist() == [0, 5, 9]
        assert (s["a"][:2].tolist(), s.first("a", 2), s.first("a", 9), s.measures, len(s)) == ([1, 3], 1, -1, ["a", "b"], 3)
        assert np.isnan(s["a"][2])
        assert np.isnan(s["b"][0])
        assert np.isnan(s["c"]).all()
        assert s.curves(0) == {}
        assert s.notes == {9: "dead"}

    def test_empty(self):
        s = Series([])
        assert (len(s), s.measures, s["a"].tolist()) == (0, [], [])


class TestFolder:
    def test_what_is_written_is_read(self, folder):
        s = folder.read()
        assert s.steps.tolist() == [0, 5, 10]
        assert s["low_rank"].tolist() == [1 / 3, 1 / 8, 1 / 13]  # to the last bit
        np.testing.assert_array_equal(s.curves(1)["quality"], np.float32([5, 5 + 1 / 7, 5 + 2 / 7]))

    def test_no_numbers_and_a_note(self, folder):
        folder.add(Evaluation(12, {"low_rank": float("nan"), "loss": 2.0}, note="features are constant"))
        s = folder.read()
        assert np.isnan(s.last("low_rank"))
        assert s.last("loss") == 2
        assert s.notes == {12: "features are constant"}

    @pytest.mark.parametrize("cut", range(1, 40, 3))
    def test_a_line_cut_off_is_no_evaluation(self, folder, cut):
        path = folder.path / "evaluations.jsonl"
        path.write_bytes(path.read_bytes()[:-cut])
        assert folder.read().steps.tolist() == [0, 5]
        folder.rewind(100)
        folder.add(evaluation(10, low_rank=0.5))
        assert folder.read().steps.tolist() == [0, 5, 10]
        assert folder.read().last("low_rank") == 0.5

    def test_rewind(self, folder):
        folder.rewind(7)
        assert folder.read().steps.tolist() == [0, 5]
        folder.rewind(-1)
        assert len(folder.read()) == 0
        SeriesFolder(folder.path / "none").rewind(3)  # nothing there, nothing to do

    @pytest.mark.parametrize(
        "line",
        [
            "no json", "{}", "[1]",
            '{"step": "x", "values": {}}', '{"step": 1, "values": 3}', '{"step": 1, "values": {"a": "b"}}',
            '{"step": 1, "values": {"a": [1]}}', '{"step": 1e999, "values": {}}', "[" * 100_000,
        ],
    )  # fmt: skip
    def test_damage_is_named(self, folder, line):
        path = folder.path / "evaluations.jsonl"
        path.write_text(path.read_text() + line + "\n")
        with pytest.raises(DataError, match=r"evaluations\.jsonl is damaged .*: delete .* to start over"):
            folder.read()

    def test_bytes_that_are_no_text(self, folder):
        (folder.path / "evaluations.jsonl").write_bytes(b"\xff\xfe\n")
        with pytest.raises(DataError, match="is damaged"):
            folder.read()

    def test_damaged_curves_are_named_when_read(self, folder):
        path = folder.path / "curves/step-00000005.npz"
        path.write_bytes(path.read_bytes()[:50])
        s = folder.read()
        assert s.curves(0)
        with pytest.raises(DataError, match=r"step-00000005\.npz is damaged"):
            s.curves(1)

    def test_a_pickle_is_not_opened(self, folder):
        path = folder.path / "curves/step-00000005.npz"
        np.savez(path, quality=np.array([print], dtype=object))
        with pytest.raises(DataError, match="is damaged"):
            folder.read().curves(1)

    def test_it_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="cannot write .*file"):
            SeriesFolder(tmp_path / "file").add(Evaluation(0, {"a": 1.0}))

    def test_lines_are_plain_json(self, folder):
        lines = (folder.path / "evaluations.jsonl").read_text().splitlines()
        assert json.loads(lines[1]) == {"step": 5, "values": {"low_rank": 0.125, "rank": 5}}
