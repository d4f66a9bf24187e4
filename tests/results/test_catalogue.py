"""The catalogue names every number once, and nothing else keeps a list of names."""

import copy
import re

import numpy as np
import pytest
import torch
from matplotlib.mathtext import MathTextParser

from lazyrich import Monitor, measure
from lazyrich.results.catalogue import CATALOGUE, GROUPS, cells, entry, functions, listed, ordered


@pytest.fixture(scope="module")
def everything():
    """Every name of a number that a result, its layers and a monitor can have."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.Tanh(), torch.nn.Linear(20, 3))
    start = copy.deepcopy(model)
    data = (torch.randn(60, 6), torch.randint(3, (60,)))
    r = measure(model, data, layers="all", nc4=True, start=start)
    monitor = Monitor(model, data, preset="full")
    monitor.step(loss=1.0, epoch=2)
    monitor.close()
    layers = [layer.numbers() for layer in r.layers.values()]
    return r, set().union(r.numbers(), *layers, monitor.series.measures)


class TestEntries:
    def test_every_number_has_one(self, everything):
        _, names = everything
        assert {"nc4", "s_init", "alpha_req", "tangent_kernel_distance", "loss", "epoch", "seconds", "num_rows"} <= names
        assert [name for name in names if entry(name).sentence == entry("of no library").sentence] == []

    def test_the_cells_of_a_result_are_entries(self, everything):
        r, _ = everything
        assert set(r.cells()) <= set(CATALOGUE)
        for layer in r.layers.values():
            assert set(layer.cells()) <= set(CATALOGUE)

    def test_names_symbols_and_labels_are_unique(self):
        for part in ("name", "symbol", "full_label"):
            values = [getattr(of, part) for of in CATALOGUE.values()]
            assert sorted(values) == sorted(set(values))

    def test_what_is_referred_to_exists(self):
        symbols = {of.symbol for of in CATALOGUE.values()}
        for name, of in CATALOGUE.items():
            assert name == of.name
            assert of.group in GROUPS
            assert not of.error or of.error in CATALOGUE
            assert not of.within or of.within in {*CATALOGUE, "layers"}
            assert not of.part_of or of.part_of in symbols
            assert of.sentence[0].isupper()
            assert of.sentence.endswith(".")

    def test_formats_and_formulas_are_valid(self):
        for of in CATALOGUE.values():
            format(0.5, of.format)
            MathTextParser("path").parse(of.title)

    def test_text_is_no_formula(self):
        assert entry("$x").title == r"\$x"


class TestLookup:
    def test_families_and_layers(self):
        assert entry("quality_of_the_first_10").symbol == "quality, first 10"
        assert entry("held_out_quality_of_the_first_53").label == "held-out quality of the first 53"
        assert entry("low_rank of body.0").symbol == "D_LR of body.0"
        assert entry("low_rank of body.0").format == CATALOGUE["low_rank"].format

    def test_order(self):
        groups = [list(GROUPS).index(entry(name).group) for name in ordered(CATALOGUE)]
        assert groups == sorted(groups)
        assert ordered({"num_samples", "unknown", "nc3", "nc1"}) == ["nc1", "nc3", "num_samples", "unknown"]

    def test_errors_and_layers_are_not_listed(self, everything):
        r, _ = everything
        errors = {name for name in CATALOGUE if name.endswith("_stderr")}
        assert set(listed(r.numbers())) == {name for name in r.numbers() if " of " not in name} - errors

    def test_functions(self, monkeypatch):
        with pytest.raises(ValueError, match="extra: 'leading_shore' is not a measure that can be added. There are: none"):
            functions(["leading_shore"])
        mine = entry("mine")
        monkeypatch.setitem(CATALOGUE, "leading_share", type(mine)(*["leading_share"] * 3, "features", "", "", compute=len))
        assert functions(["leading_share"]) == {"leading_share": len}
        with pytest.raises(ValueError, match=re.escape("; did you mean leading_share? There are: leading_share")):
            functions(["leading_shore"])


class TestText:
    def test_values(self):
        low_rank, rank, accuracy = (CATALOGUE[name] for name in ("low_rank", "output_rank", "test_accuracy"))
        assert low_rank.formatted(float("nan")) == "-"
        assert low_rank.formatted(0.25, float("nan")) == "0.2500"
        assert rank.formatted(1234.0) == "1,234"
        assert accuracy.over_seeds([0.5, 0.75]) == "62.5 ± 17.7 %"
        assert accuracy.published(0.1) == "10.0 %"
        assert entry("parameter_norm").over_seeds(np.array([100.0, 104.0])) == "102.0 ± 2.8"
        assert low_rank.over_seeds([float("nan")]) == "-"

    def test_a_value_stands_with_its_error(self):
        assert cells({"balanced_corrected": 0.5, "balanced_stderr": 0.125, "num_outputs": 3}) == {
            "balanced_corrected": "0.5000 ± 0.1250"
        }
