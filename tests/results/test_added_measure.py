"""A measure that is added as docs/develop/adding-a-measure.md says is shown everywhere by itself."""

import csv
import re

import numpy as np
import pytest
import torch

from lazyrich import Monitor, load, measure, table
from lazyrich.experiments import Digits, Experiment, Loss, Machine, Mlp, Optimizer, Setup, run_experiment
from lazyrich.report import write_report
from lazyrich.results.catalogue import CATALOGUE
from lazyrich.results.measures import Measure

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning"),
]


def variance_share(gram):
    """The strongest direction's share of the variance, in [1/p, 1]."""
    values = torch.linalg.eigvalsh(gram.block("features", "features", centered=True))
    return float(values[-1] / values.sum())


ENTRY = Measure(
    "variance_share", symbol="s₁", label="strongest direction", group="features", range="0 to 1",
    sentence="Share of the variance of the features that lies in their strongest direction.",
    richer="higher", format=".4f", compute=variance_share,
)  # fmt: skip


@pytest.fixture(autouse=True)
def added(monkeypatch):
    monkeypatch.setitem(CATALOGUE, ENTRY.name, ENTRY)


@pytest.fixture(scope="module")
def network():
    """A network whose features are its inputs: four columns of a Hadamard matrix, of strengths 3, 1, 1, 1."""
    h2 = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    x = torch.kron(torch.kron(h2, h2), h2)[:, 1:5] * torch.tensor([3.0, 1.0, 1.0, 1.0])
    torch.manual_seed(0)
    return torch.nn.Linear(4, 2), x


def row(text, label):
    return next(line for line in text.splitlines() if line.strip().startswith(label)).split()[-1]


def test_it_is_in_the_result_its_table_and_its_file(network, tmp_path):
    r = measure(*network, extra=["variance_share"])
    assert r.extra == {"variance_share": pytest.approx(9 / 12)}
    assert r.numbers()["variance_share"] == r.extra["variance_share"]
    assert row(r.table(), "strongest direction") == "0.7500"
    assert row(table({"one": r, "two": r}), "strongest direction") == "0.7500"
    r.save(tmp_path / "r.json")
    assert load(tmp_path / "r.json").extra == r.extra


def test_it_is_on_the_page(network, tmp_path):
    measure(*network, extra=["variance_share"]).report(tmp_path / "r.html")
    page = re.sub(r"(?s)<script.*?</script>|<[^>]*>", " ", (tmp_path / "r.html").read_text())
    assert re.search(r"strongest direction\s+0\.7500", page)


@pytest.mark.parametrize("preset", ["light", "standard"])
def test_it_is_in_a_series_its_table_and_its_figure(network, preset):
    monitor = Monitor(*network, preset=preset, extra=["variance_share"])
    monitor.step(5)
    monitor.close()
    assert monitor.series["variance_share"] == pytest.approx([9 / 12, 9 / 12])
    headings, _, first, *_ = str(monitor.series).splitlines()
    assert first.split()[headings.replace("± ", "±").split().index("s₁")] == "0.7500"
    axes = {axis.get_title(loc="left"): axis for axis in monitor.series.plot().axes}
    drawn = axes["strongest direction"].lines[0].get_ydata()
    assert drawn[~np.isnan(drawn)] == pytest.approx([9 / 12, 9 / 12])


def test_it_is_in_the_numbers_table_and_page_of_an_experiment(tmp_path):
    setup = Setup(Digits(), Mlp(width=8, depth=2), Loss(), Optimizer(), steps=2, measured=100, extra=("variance_share",))
    experiment = Experiment(
        "small", "is it there?", "nothing", lambda preset: {"only": setup}, (), lambda results, folder: None,
        columns=("variance_share",),
    )  # fmt: skip
    text = run_experiment(experiment, "quick", tmp_path, seeds=1, machine=Machine("cpu"))
    with (tmp_path / "results.csv").open() as file:
        values = {r["step"]: float(r["value"]) for r in csv.DictReader(file) if r["measure"] == "variance_share"}
    assert list(values) == ["0", "2"]
    assert 1 / 8 < values["2"] < 1
    assert f"{values['2']:.3f}" in text
    assert "s₁" in text
    page = re.sub(r"(?s)<script.*?</script>|<[^>]*>", " ", write_report(tmp_path).read_text())
    assert re.search(rf"strongest direction\s+{values['2']:.4f}", page)


def test_it_is_measured_only_on_request(network):
    assert "variance_share" not in measure(*network).numbers()


def test_an_unknown_name(network):
    with pytest.raises(
        ValueError, match="extra: 'variance_shore' is not a measure that can be added; did you mean variance_share"
    ):
        measure(*network, extra=["variance_shore"])
    with pytest.raises(ValueError, match="extra: 'rankme' is not a measure that can be added. There are: variance_share"):
        Monitor(*network, extra=["rankme"])
