"""The verdict: its rule at every threshold, networks whose regime is known, and the text and the page that show it."""

import copy
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import lazyrich
from lazyrich import measure, measure_arrays
from lazyrich.results.verdict import FAR_BELOW, LAZY, RICH, RICH_BY_REDRAWS, SMALL

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def data(n=300):
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
    return x, x[:, :3].argmax(1)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))


def trained(layers="all", steps=150):
    """The network and its start."""
    model, (x, y) = network(), data()
    start = copy.deepcopy(model)
    optimizer = torch.optim.Adam((model if layers == "all" else model[-1]).parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        (10 * nn.functional.mse_loss(model(x), nn.functional.one_hot(y).float())).backward()
        optimizer.step()
    return model, start


@pytest.fixture(scope="module")
def lazy():
    model, start = trained("last")
    return measure(model, data(), start=start)


def with_ratio(r, ratio, error=0.01, balanced=None, **values):
    """The same result with another λ, known to this error."""
    interval = None if error is None else (ratio - 2 * error, ratio + 2 * error)
    corrected = None if error is None else ratio
    changed = {"laziness": ratio, "laziness_corrected": corrected, "laziness_interval": interval, "laziness_stderr": error}
    return replace(r, **changed, laziness_balanced=ratio if balanced is None else balanced, **values)


def judged(r, ratio, error=0.01, **values):
    return with_ratio(r, ratio, error, **values).verdict


class TestNetworks:
    def test_the_last_layer_alone(self, lazy):
        assert lazy.laziness == pytest.approx(1, abs=1e-9)
        assert lazy.verdict.regime == "lazy"
        assert lazy.verdict.sentence.startswith("The features are nearly those of the start: λ = 1.000")

    def test_a_linear_network_from_small_weights(self):
        """The limit of small weights is the least kernel: two layers on nearly white inputs, all targets equally strong."""
        x = torch.randn(400, 12, generator=torch.Generator().manual_seed(0)).double()
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 20, bias=False), nn.Linear(20, 4, bias=False)).double()
        for layer in model:
            layer.weight.data *= 1e-2
        start = copy.deepcopy(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        for _ in range(600):
            optimizer.zero_grad()
            (model(x) - x[:, :4]).square().sum(1).mean().backward()
            optimizer.step()
        verdict = measure(model, x, start=start).verdict
        assert verdict.regime == "rich", verdict

    def test_untrained(self):
        model = network()
        assert measure(model, data(), start=copy.deepcopy(model)).verdict.regime == "untrained"

    def test_other_features_that_are_no_richer(self):
        """Features and those of the start see different inputs, and the outputs as much of the ones as of the others."""
        x = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
        weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
        now, start = torch.relu(x[:, :4] @ weight), torch.relu(x[:, 4:] @ weight)
        outputs = (now + start) @ torch.randn(64, 3, generator=torch.Generator().manual_seed(2))
        r = measure_arrays(now, outputs, start_features=start)
        assert r.laziness_interval[0] > LAZY
        assert r.verdict.regime == "mixed"
        assert "have changed" in r.verdict.sentence

    def test_no_room(self):
        """Features of the start that are the outputs: nothing can be richer."""
        x = torch.linalg.qr(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).double()).Q
        r = measure_arrays(x, x, start_features=x)
        assert r.laziness is None
        assert r.verdict.regime == "no room"
        assert any("no room" in caveat for caveat in r.verdict.caveats)

    def test_without_a_start_the_argument_is_named(self):
        model, _ = trained()
        verdict = measure(model, data()).verdict
        assert verdict.regime == "undecided"
        assert any("start=" in caveat and "null=4" in caveat for caveat in verdict.caveats)
        x, _ = data()
        of_arrays = measure_arrays(model[:2](x).detach(), model(x).detach()).verdict
        assert any("start_features=" in caveat for caveat in of_arrays.caveats)

    def test_redraws_never_show_lazy(self):
        model, _ = trained("last")
        r = measure(model, data(), null=3)
        assert r.laziness_source == "redraws"
        assert r.verdict.regime == "undecided"
        assert any("pass start=" in caveat for caveat in r.verdict.caveats)

    def test_the_same_after_a_file(self, lazy, tmp_path):
        lazy.save(tmp_path / "r.json")
        assert lazyrich.load(tmp_path / "r.json").verdict == lazy.verdict


class TestRule:
    @pytest.mark.parametrize(
        ("ratio", "error", "regime"),
        [
            (RICH - 0.03, 0.01, "rich"),
            (RICH - 0.03, 0.02, "intermediate"),
            (0.65, 0.01, "intermediate"),
            (LAZY + 0.03, 0.02, "intermediate"),
            (LAZY + 0.03, 0.01, "lazy"),
            (1.2, 0.05, "lazy"),
            (0.65, 0.1, "undecided"),
            (RICH - 0.11, None, "rich"),
            (RICH - 0.09, None, "intermediate"),
            (LAZY + 0.11, None, "lazy"),
        ],
    )
    def test_of_the_start(self, lazy, ratio, error, regime):
        verdict = judged(lazy, ratio, error)
        assert verdict.regime == regime
        assert (error is None) == any("λ has no error" in caveat for caveat in verdict.caveats)

    @pytest.mark.parametrize(
        ("ratio", "balanced", "regime"),
        [(0.9, 0.3, "mixed"), (0.65, 0.3, "mixed"), (0.3, 0.7, "mixed"), (0.3, 0.55, "rich"), (0.65, 0.45, "intermediate")],
    )
    def test_references_that_disagree(self, lazy, ratio, balanced, regime):
        assert judged(lazy, ratio, balanced=balanced).regime == regime

    def test_features_that_changed_and_are_no_richer(self, lazy):
        assert judged(lazy, 1.0, comparison=replace(lazy.comparison, s_init=0.5)).regime == "mixed"
        assert judged(lazy, 1.0, comparison=replace(lazy.comparison, s_init=0.9)).regime == "lazy"

    def test_too_few_samples(self, lazy):
        note = "no error, because one row has 95 % of the squared influences: look at that row, or measure more"
        assert judged(lazy, 0.1, None, notes=(note,)).regime == "undecided"

    @pytest.mark.parametrize(("ratio", "spread", "regime"), [(RICH_BY_REDRAWS - 0.03, 0.01, "rich"), (0.29, 0.01, "undecided")])
    def test_of_redraws(self, lazy, ratio, spread, regime):
        assert judged(lazy, ratio, spread, laziness_source="redraws").regime == regime

    def test_with_neither(self, lazy):
        bare = {"laziness": None, "laziness_source": None, "comparison": None, "balanced": 0.01, "low_rank_interval": None}
        assert replace(lazy, **bare, low_rank=SMALL - 0.01, isotropic=0.8).verdict.regime == "rich"
        assert replace(lazy, **bare, low_rank=SMALL + 0.01, isotropic=0.8).verdict.regime == "undecided"
        assert replace(lazy, **bare, low_rank=0.02, isotropic=0.02 / FAR_BELOW - 0.01).verdict.regime == "undecided"
        assert replace(lazy, **bare | {"balanced": 0.2}, low_rank=0.02, isotropic=0.8).verdict.regime == "undecided"
        assert replace(lazy, **bare, low_rank=0.02, isotropic=None).verdict.regime == "undecided"


class TestText:
    def test_fourteen_lines_of_eighty_columns(self, lazy):
        many = tuple(f"note {k} of many, which is long enough for a line of its own and for some more words" for k in range(20))
        of_long_name = replace(lazy, notes=many, evidence=replace(lazy.evidence, head="layer." * 30))
        for r in (lazy, of_long_name, replace(lazy, laziness=None, laziness_source=None, isotropic=None)):
            lines = str(r).splitlines()
            assert len(lines) <= 14
            assert max(map(len, lines)) <= 80
            assert lines[-1].endswith("all numbers: print(r.table())")
        assert str(of_long_name).splitlines()[-1].startswith("more caveats")

    def test_the_scale(self, lazy):
        lines = str(with_ratio(lazy, 0.25, 0.05)).splitlines()
        line = next(line for line in lines if line.startswith("λ "))
        scale = line[line.index("0", 20) + 1 : line.rindex("1  <")]
        assert scale.index("●") == round(0.25 * (len(scale) - 1))
        assert [k for k, sign in enumerate(scale) if sign == "┊"] == [round(t * (len(scale) - 1)) for t in (RICH, LAZY)]
        assert set(scale[scale.index("●") - 3 : scale.index("●")]) == {"━"}

    def test_the_table_has_every_number_below_its_question(self, lazy):
        text = lazy.table()
        assert text.splitlines()[0] == "How rich are the features?"
        assert f"{lazy.low_rank:.4f}" in text
        assert "at rtol t: output directions" in text

    def test_repr(self, lazy):
        assert repr(lazy).startswith("<Richness lazy: D_LR ")
        assert len(repr(lazy)) < 80

    def test_the_page_of_a_notebook(self, lazy):
        page = replace(lazy, notes=("<script>alert(1)</script>",))._repr_html_()

        class Tags(HTMLParser):
            open_tags, seen = [], []

            def handle_starttag(self, tag, attrs):
                self.seen.append(tag)
                self.open_tags.append(tag)

            def handle_startendtag(self, tag, attrs):
                self.seen.append(tag)

            def handle_endtag(self, tag):
                assert self.open_tags.pop() == tag

        tags = Tags()
        tags.feed(page)
        tags.close()
        assert tags.open_tags == []
        assert "script" not in tags.seen
        assert tags.seen.count("svg") == 5  # two scales and three curves
        assert "http" not in page
        assert ">lazy</b>" in page
