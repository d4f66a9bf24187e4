import numpy as np
import pytest
import torch
from matplotlib import pyplot, rcParams

from lazyrich import measure
from lazyrich.results.drawing import FAINT
from lazyrich.results.richness import plot


@pytest.fixture(scope="module")
def results():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.Tanh(), torch.nn.Linear(20, 3))
    x, y = torch.randn(400, 6), torch.randint(3, (400,))
    return {"one": measure(model, (x, y)), "two": measure(model, x[:200])}


def test_draws_what_the_results_hold(results):
    figure = plot(results)
    scale, strength, quality, utilization = (axis for sub in figure.subfigs for axis in sub.axes)
    text = " ".join(t.get_text() for t in scale.texts)
    for name, r in results.items():
        assert f"{name}   $D_{{LR}}$ = {r.low_rank:.3f}" in text
        assert f"{r.low_rank_corrected:.3f} ± {r.low_rank_stderr:.3f}" in text
        marked = [float(x) for line in scale.lines for x in line.get_xdata()]
        assert r.low_rank in marked
        assert r.isotropic in marked
    r = results["one"]
    first = strength.lines[0]
    np.testing.assert_allclose(first.get_ydata(), r.spectrum.relative_eigenvalues[: r.spectrum.rank])
    np.testing.assert_allclose(quality.lines[0].get_ydata(), r.spectrum.cumulative_quality)
    assert [line.get_label() for line in quality.lines if not line.get_label().startswith("_")] == ["one"]  # no targets in two
    np.testing.assert_allclose(utilization.lines[1].get_ydata(), results["two"].spectrum.cumulative_utilization)
    ranks = [line.get_xdata()[0] for line in strength.lines if line.get_color() == FAINT]
    assert ranks == [r.output_rank]


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_writes_files(results, tmp_path, ending):
    results["one"].plot(tmp_path / f"r.{ending}")
    assert (tmp_path / f"r.{ending}").stat().st_size > 5000


def test_says_when_there_were_no_targets(results):
    figure = results["two"].plot()
    assert "no targets given" in [t.get_text() for t in figure.subfigs[1].axes[1].texts]


def test_touches_no_global_state(results, tmp_path):
    before, figures = dict(rcParams), pyplot.get_fignums()
    results["one"].plot(tmp_path / "r.png")
    assert dict(rcParams) == before
    assert pyplot.get_fignums() == figures


def test_in_axes_of_ones_own(results):
    figure, axis = pyplot.subplots()
    assert results["one"].plot(ax=axis) is figure
    pyplot.close(figure)
    assert results["one"].low_rank in [float(x) for line in axis.lines for x in line.get_xdata()]


def test_hostile_names_are_text(results, tmp_path):
    figure = plot({r"$\frac{$ <script>": results["one"], "$": results["two"]}, tmp_path / "r.png")
    shown = [t.get_text() for t in figure.subfigs[0].axes[0].texts]
    assert shown[0].startswith(r"\$\frac{\$ <script>")


@pytest.mark.parametrize("count", [0, 7])
def test_too_few_or_too_many(results, count):
    with pytest.raises(ValueError, match=f"1 to 6 results, got {count}"):
        plot({str(k): results["one"] for k in range(count)})


def test_names_of_layers_are_text():
    torch.manual_seed(0)
    model = torch.nn.Sequential()
    model.add_module("$a$", torch.nn.Linear(6, 20))
    model.add_module("b", torch.nn.Linear(20, 3))
    axis = measure(model, torch.randn(60, 6), layers="all").plot_layers().axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == [r"\$a\$", "b"]
