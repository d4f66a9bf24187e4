"""What notebooks show of series, monitors and null distributions: the table that is printed."""

import pytest
import torch
from torch import nn

from lazyrich import Evaluation, Monitor, Series, null_distribution
from lazyrich.results.notebook import html_table

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def test_a_table_escapes_its_cells():
    page = html_table([["a", "b"], ["<i>", "\x1b[31m"]], "x & y")
    assert '<td style="text-align:left">&lt;i&gt;</td>' in page
    assert "\\x1b[31m" in page
    assert "x &amp; y</caption>" in page
    assert page.count("<tr>") == 2


def test_a_series():
    page = Series([Evaluation(0, {"low_rank": 0.5}), Evaluation(10, {"low_rank": 0.25})])._repr_html_()
    assert page.count("<tr>") == 3
    assert "0.2500" in page


def test_a_monitor_and_null_distributions():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3)), torch.randn(60, 5)
    with Monitor(model, x, every=1) as monitor:
        page = monitor._repr_html_()
    assert page == monitor.series._repr_html_()
    found = null_distribution(model, x, draws=2)
    assert found._repr_html_().count("<tr>") == 1 + sum(
        null is not None for null in (found.untrained_features, found.untrained_networks, found.isotropic)
    )
    assert "among 2 draws each</caption>" in found._repr_html_()
