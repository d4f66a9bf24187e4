"""The picture of a series shows what the series holds."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_rgb

from lazyrich import DataError, Evaluation, Series
from lazyrich.results.series import SeriesFolder


def evaluation(step, low_rank, **more):
    curves = {"relative_eigenvalues": np.array([1, 0.5, 0.0]), "utilization": np.array([0.2, 0.6, 1.0]) * (1 - low_rank)}
    values = {"low_rank": low_rank, "low_rank_corrected": low_rank - 0.02, "low_rank_stderr": 0.01, "output_rank": 3.0, **more}
    return Evaluation(step, values, curves)


SERIES = Series(
    [evaluation(0, 0.8, test_accuracy=0.1), evaluation(10, 0.5, test_accuracy=0.6), Evaluation(20, {}, note="dead"),
     evaluation(100, 0.1, test_accuracy=0.9)]
)  # fmt: skip


def line(axis, label):
    return next(found for found in axis.lines if found.get_label() == label)


def test_numbers_over_steps():
    richness, rank, accuracy = SERIES.plot().subfigs[0].axes
    plugin = line(richness, "plug-in")
    assert measured(plugin) == [(0, 0.8), (10, 0.5), (100, 0.1)]
    heights = np.concatenate([path.vertices for band in richness.collections for path in band.get_paths()])
    for step, middle in ((0, 0.78), (100, 0.08)):
        around = heights[heights[:, 0] == step, 1]
        assert (around.min(), around.max()) == pytest.approx((middle - 0.0196, middle + 0.0196))
    assert measured(rank.lines[0]) == [(0, 3), (10, 3), (100, 3)]
    assert measured(accuracy.lines[0]) == [(0, 0.1), (10, 0.6), (100, 0.9)]
    assert (accuracy.get_title(loc="left"), accuracy.get_xlabel(), accuracy.get_ylabel()) == (
        "accuracy", "optimizer step", "share of the samples",
    )  # fmt: skip


def dotted(axis):
    return [found.get_xydata().tolist() for found in axis.lines if found.get_linestyle() == ":"]


def test_where_nothing_was_measured_the_line_is_dotted_and_has_no_band():
    axis = SERIES.plot().subfigs[0].axes[1]  # 10 to 100 with step 20 between them, at which nothing could be measured
    assert dotted(axis) == [[[10, 3], [100, 3]]]
    late = Series([evaluation(step, 0.5) for step in (0, 100, 200, 300, 1000)]).plot().subfigs[0].axes[0]
    assert dotted(late) == [[[300, 0.48], [1000, 0.48]], [[300, 0.5], [1000, 0.5]]]
    assert {float(x) for band in late.collections for path in band.get_paths() for x in path.vertices[:, 0]} == {
        0, 100, 200, 300, 1000,
    }  # fmt: skip
    assert dotted(Series([evaluation(step, 0.5) for step in (0, 100, 200, 300)]).plot().subfigs[0].axes[0]) == []


def test_steps_on_a_logarithmic_axis_have_readable_marks():
    figure = Series([evaluation(step, 0.5) for step in (0, 1, 3, 10, 30, 100, 300, 1000)]).plot()
    axis = figure.subfigs[0].axes[0]
    assert axis.get_xscale() == "symlog"
    figure.draw_without_rendering()
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "1", "10", "100", "1,000"]
    assert dotted(axis) == []


def test_the_last_curve_is_legible_and_styles_differ_besides_colours():
    utilization = Series([evaluation(step, 0.5) for step in range(6)]).plot().subfigs[1].axes[2]
    for found in utilization.lines:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in found.get_color()[:3]]
        luminance = np.dot(linear, [0.2126, 0.7152, 0.0722])
        assert 1.05 / (luminance + 0.05) > 2  # contrast with white, as WCAG defines it
    assert all(a._dash_pattern != b._dash_pattern for a, b in pairwise(utilization.lines))


def test_in_axes_of_ones_own():
    figure, (first, second) = pyplot.subplots(1, 2)
    assert SERIES.plot(ax=first) is SERIES.plot(ax=second, measure="output_rank") is figure
    pyplot.close(figure)
    assert measured(line(first, "plug-in")) == [(0, 0.8), (10, 0.5), (100, 0.1)]
    assert measured(second.lines[0]) == [(0, 3), (10, 3), (100, 3)]
    with pytest.raises(DataError, match="no NC1 to draw"):
        SERIES.plot(ax=first, measure="nc1")


def test_a_dark_style():
    figure = SERIES.plot(style="dark_background")
    assert to_rgb(figure.get_facecolor()) == (0, 0, 0)
    richness, *_ = figure.subfigs[0].axes
    assert to_rgb(richness._left_title.get_color()) == (1, 1, 1)
    assert sum(figure.subfigs[1].axes[2].lines[0].get_color()[:3]) > 0.9  # the darkest curve is no purple like black


def measured(line):
    """The points of a line, without those that interrupt it."""
    return [tuple(point) for point in line.get_xydata().tolist() if not np.isnan(point).any()]


def test_curves_dark_to_bright():
    strength, quality, utilization = SERIES.plot().subfigs[1].axes
    assert [found.get_label() for found in utilization.lines] == ["step 0:  0.800", "step 10:  0.500", "step 100:  0.100"]
    assert utilization.lines[2].get_ydata().tolist() == pytest.approx([0.18, 0.54, 0.9])
    assert strength.lines[0].get_ydata().tolist() == [1, 0.5]  # a zero has no place on a logarithmic axis
    brightness = [sum(found.get_color()[:3]) for found in utilization.lines]
    assert brightness == sorted(brightness)
    assert not quality.lines


def test_a_folder_is_drawn_as_what_was_put_into_it(tmp_path):
    folder = SeriesFolder(tmp_path / "run")
    for found in SERIES.evaluations:
        folder.add(found)
    folder.read().plot(tmp_path / "s.svg")
    assert (tmp_path / "s.svg").read_text().count("<path") > 50
    assert len(folder.read().plot(moments=2).subfigs[1].axes[2].lines) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("steps", [[0], [7], [500, 1000]])
def test_little_is_enough(steps):
    figure = Series([Evaluation(step, {"low_rank": 0.5, "output_rank": 1.0}) for step in steps]).plot()
    assert len(figure.axes) == 2
    assert figure.axes[0].get_xscale() == "linear"


def test_the_loss_where_no_accuracy_is_known():
    series = Series([evaluation(0, 0.8), evaluation(1, 0.7, loss=2.0), evaluation(2, 0.6, loss=1.0)])
    assert series.plot().subfigs[0].axes[2].lines[0].get_xydata().tolist() == [[1, 2], [2, 1]]


def test_the_laziness_ratio_has_a_panel_where_it_is_known():
    series = Series([evaluation(0, 0.8, laziness=1.0), evaluation(1, 0.7), evaluation(2, 0.6, laziness=0.5)])
    panel = series.plot().subfigs[0].axes[1]
    assert measured(panel.lines[0]) == [(0, 1), (2, 0.5)]
    assert panel.get_ylim()[0] == 0


def test_the_laziness_ratio_has_its_error():
    series = Series([evaluation(k, 0.8, laziness=1.0, laziness_corrected=0.9, laziness_stderr=0.1) for k in (0, 1, 2)])
    panel = series.plot().subfigs[0].axes[1]
    ends = panel.collections[0].get_paths()[0].vertices[:, 1]
    assert (ends.min(), ends.max()) == pytest.approx((0.9 - 0.196, 0.9 + 0.196))
    assert [line.get_ydata().tolist() for line in panel.lines] == [[0.9] * 3, [1.0] * 3]


def test_nothing_to_draw():
    with pytest.raises(DataError, match="no D_LR to draw: features are constant"):
        Series([Evaluation(0, {}, note="features are constant")]).plot()
    with pytest.raises(DataError, match="no D_LR to draw: it is empty"):
        Series([]).plot()
