"""Files of schema version 3 and series of that time are read: they have the numbers under their old names."""

import json
from pathlib import Path

import pytest

import lazyrich
from lazyrich import DataError
from lazyrich.report.found import find
from lazyrich.results.names import RENAMED, current_name
from lazyrich.results.series import SeriesFolder

HERE = Path(__file__).parent / "version-3"


def test_a_result():
    old = json.loads((HERE / "richness.json").read_text())
    r = lazyrich.load(HERE / "richness.json")
    assert r.comparison is not None
    for before, now in RENAMED.items():
        if before in old["comparison"]:
            assert getattr(r.comparison, now) == old["comparison"][before]
    assert (r.low_rank, r.extra, list(r.layers)) == (old["low_rank"], {}, ["0", "2"])
    assert {name: layer.low_rank for name, layer in r.layers.items()} == {
        name: layer["low_rank"] for name, layer in old["layers"].items()
    }


def test_it_is_written_with_the_names_of_today(tmp_path):
    r = lazyrich.load(HERE / "richness.json")
    r.save(tmp_path / "r.json")
    values = json.loads((tmp_path / "r.json").read_text())
    assert values["schema_version"] == 4
    assert not set(RENAMED) & set(values["comparison"])
    assert lazyrich.load(tmp_path / "r.json").to_dict() == r.to_dict()


def test_older_files_are_refused(tmp_path):
    old = json.loads((HERE / "richness.json").read_text()) | {"schema_version": 2}
    (tmp_path / "r.json").write_text(json.dumps(old))
    with pytest.raises(DataError, match="schema version 2, this release reads 3 and 4: read it with the release that wrote it"):
        lazyrich.load(tmp_path / "r.json")


def test_a_series():
    lines = [json.loads(line)["values"] for line in (HERE / "series/evaluations.jsonl").read_text().splitlines()]
    series = SeriesFolder(HERE / "series").read()
    assert "D_LR of 0" in lines[0]
    assert series["low_rank of 0"].tolist() == [values["D_LR of 0"] for values in lines]
    assert set(series.measures) == set(map(current_name, lines[0])) | {"loss", "epoch"}


def test_a_table_of_an_experiment(tmp_path):
    (tmp_path / "results.csv").write_text("condition,seed,step,measure,value\na,0,0,D_LR of fc,0.5\na,0,0,spectral_exponent,2\n")
    (run,) = find(tmp_path).runs
    assert list(run.seeds[0].values) == ["low_rank of fc", "alpha_req"]
