"""What the page holds: what is found in a folder, thinned data, escaped text. The page in a browser: test_report_browser.py."""

import base64
import csv
import hashlib
import html
import json
import re
from datetime import datetime
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from lazyrich import DataError, Evaluation, Monitor, measure, schedules
from lazyrich.cli.main import main
from lazyrich.report import write_report
from lazyrich.report.found import find
from lazyrich.results.series import SeriesFolder

HOSTILE = [
    "<script>alert(1)</script>",
    "a\"b'c&amp;<img src=x onerror=alert(1)>",
    "x" * 200,
    "\u2028\u202e$\\frac{1}{2}$ %{x} {{title}}",
]


def series(folder, steps=(0, 10, 100), offset=0.0, features=8):
    """D_LR of 1 / (1 + step) + offset, and curves whose every value follows from k and the step."""
    k = np.arange(1, features + 1)
    for step in steps:
        d = 1 / (1 + step) + offset
        values = {
            "low_rank": d,
            "low_rank_corrected": d / 2,
            "low_rank_stderr": 0.01,
            "isotropic": 0.8,
            "output_rank": 3.0,
            "nc1": 1.0,
        }
        curves = {
            "relative_eigenvalues": 1.0 / k,
            "utilization": k / features,
            "contributions": np.full(features, 1 / (2 * features)),
        }
        SeriesFolder(folder).add(Evaluation(step, values, curves))
    return folder


@pytest.fixture(scope="module")
def result():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.Tanh(), torch.nn.Linear(20, 3))
    return measure(model, (torch.randn(300, 6), torch.randint(3, (300,))), layers="all", nc4=True)


class Page(HTMLParser):
    """Text by element, scripts apart."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.scripts, self.text, self.tags, self.attributes = [], "", [], {}
        self.cells, self._row, self._in = [], None, []
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._in.append(tag)
        if tag in ("meta", "link", "input", "img"):
            self._in.pop()
        if tag == "script":
            self.scripts.append([dict(attrs), ""])
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data):
        if "script" in self._in:
            self.scripts[-1][1] += data
        elif "style" not in self._in:
            self.text += data
            if "td" in self._in or "th" in self._in:
                self.cells[-1][-1] += data

    def data(self, name):
        return next(json.loads(body) for attributes, body in self.scripts if attributes.get("id") == name)

    def row(self, label):
        return next(row[1:] for row in self.cells if row[0] == label)


def test_a_measurement(result, tmp_path):
    result.save(tmp_path / "richness.json")
    page = Page(write_report(tmp_path))
    assert page.row("D_LR (0 = rich)") == [f"{result.low_rank:.4f}"]
    assert page.row("D_LR, bias-corrected") == [f"{result.low_rank_corrected:.4f} ± {result.low_rank_stderr:.4f}"]
    assert page.row("samples") == ["300"]
    assert "Measured on 300 samples with 20 features and 3 outputs at head 2." in page.text
    (run,) = page.data("overview")["runs"]
    assert run["layers"] == list(result.layers)
    assert run["error"] == pytest.approx([1.96 * layer.low_rank_stderr for layer in result.layers.values()], rel=1e-4)
    curves = page.data("curves-0")
    assert curves["k"] == list(range(1, 21))
    np.testing.assert_allclose(curves["quality"][0], result.spectrum.cumulative_quality, rtol=6e-3)
    np.testing.assert_allclose(curves["relative_eigenvalues"][0], result.spectrum.relative_eigenvalues, rtol=6e-3)
    assert curves["contributions"][0][-1] == pytest.approx(1 - result.low_rank, rel=6e-3)
    result.report(tmp_path / "one.html")
    assert Page(tmp_path / "one.html").data("curves-0") == curves


def test_the_verdict_is_on_top(result, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        result.save(tmp_path / name / "richness.json")
    for path, named in ((tmp_path / "first", False), (tmp_path, True)):
        write_report(path, tmp_path / "page.html")
        source = (tmp_path / "page.html").read_text(encoding="utf-8")
        listed = source[source.index('class="verdicts"') : source.index("</ul>")]
        assert listed.count(f'<b class="{result.verdict.regime}">') == (2 if named else 1)
        assert html.unescape(listed).count(result.verdict.sentence) == (2 if named else 1)
        assert ("second" in listed) == named
        assert html.unescape(listed).count(result.verdict.caveats[0]) == (2 if named else 1)


def test_single_file_and_folder_of_results(result, tmp_path):
    for name in ("b", "a10", "a9", "deep/down"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        result.save(tmp_path / f"{name}.json")
    (tmp_path / "other.json").write_text('{"not": "ours"}')
    assert [run.name for run in find(tmp_path).runs] == ["a9", "a10", "b", "deep/down"]
    assert write_report(tmp_path / "b.json") == tmp_path / "b.html"
    assert [run.name for run in find(tmp_path / "b.json").runs] == ["b"]


def test_a_monitored_run(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.Tanh(), torch.nn.Linear(20, 3))
    data = (torch.randn(200, 6), torch.randint(3, (200,)))
    with Monitor(model, data, every=schedules.every(2), preset="standard", out=tmp_path / "run") as monitor:
        for _ in range(4):
            monitor.step(loss=0.5)
    page = Page(write_report(tmp_path / "run"))
    (run,) = page.data("overview")["runs"]
    assert (run["name"], run["steps"], run["seeds"]) == ("run", [0, 2, 4], 1)
    assert "3 evaluations, from step 0 to 4. At the end:" in page.text
    assert not page.data("overview")["thinned"]
    np.testing.assert_allclose(run["values"]["low_rank"], monitor.series["low_rank"], rtol=1e-4)
    assert run["values"]["loss"] == [None, 0.5, 0.5]


def test_conditions_with_seeds(tmp_path):
    for condition in ("full", "last-layer"):
        for seed, offset in enumerate((0.1, 0.2, 0.6)):
            series(tmp_path / "runs" / condition / f"seed-{seed}", offset=offset)
    (tmp_path / "results.csv").write_text("condition,seed,step,measure,value\nLast layer!,0,0,low_rank,1\nfull,0,0,low_rank,1\n")
    (tmp_path / "table.txt").write_text("SHOWN  <b>it learns</b>\n")
    (tmp_path / "run.json").write_text('{"command": "lazyrich run x", "versions": {"torch": "9"}}')
    page = Page(write_report(tmp_path))
    first, second = page.data("overview")["runs"]
    assert [first["name"], second["name"]] == ["Last layer!", "full"]  # in the order of the experiment, by their own names
    assert first["seeds"] == 3
    np.testing.assert_allclose(first["values"]["low_rank"], 1 / (1 + np.array([0, 10, 100])) + 0.3, rtol=1e-4)
    np.testing.assert_allclose(first["sd"]["low_rank"], np.std([0.1, 0.2, 0.6], ddof=1), rtol=1e-4)
    assert page.row("D_LR (0 = rich)") == ["0.310 ± 0.265"] * 2
    assert page.data("curves-0")["utilization_sd"][0] == [0] * 8
    assert "SHOWN  <b>it learns</b>" in page.text
    assert "lazyrich run x" in page.text
    assert "torch 9" in page.text


def test_results_csv_alone(tmp_path):
    rows = [
        "condition,seed,step,measure,value",
        *(f'"a, b",{seed},{step},low_rank,{seed + step}' for seed in (0, 1) for step in (0, 5)),
    ]
    (tmp_path / "results.csv").write_text("\n".join(rows) + "\n")
    (run,) = find(tmp_path).runs
    assert (run.name, len(run.seeds)) == ("a, b", 2)
    page = Page(write_report(tmp_path))
    assert page.data("overview")["runs"][0]["values"]["low_rank"] == [0.5, 5.5]
    assert page.data("curves-0") == {"k": [], "at": []}


def test_a_folder_of_experiments(result, tmp_path):
    """Each experiment has its runs and its outcome; what belongs to none is there as well."""
    for name in ("deep/a", "b"):
        (tmp_path / name / "inside").mkdir(parents=True)
        for folder in (name, f"{name}/inside"):
            (tmp_path / folder / "results.csv").write_text("condition,seed,step,measure,value\nfull,0,0,low_rank,0.5\n")
    claims = "    SHOWN  yes (3 of 3 seeds; rule: x)\nEXPLORATORY  no (0 of 3 seeds; because y; rule: x)\n"
    (tmp_path / "deep/a/table.txt").write_text(f"a (quick), 3 seeds: is it?\n\n{claims}")
    result.save(tmp_path / "alone.json")
    found = find(tmp_path)
    assert [(run.experiment, run.name) for run in found.runs] == [("", "alone"), ("b", "full"), ("deep/a", "full")]
    assert [experiment.question for experiment in found.experiments] == ["", "is it?"]
    assert [(c.verdict, c.text, c.holds, c.of) for c in found.experiments[1].claims] == [
        ("shown", "yes", 3, 3),
        ("exploratory", "no", 0, 3),
    ]
    page = Page(write_report(tmp_path))
    assert "3 runs of 2 experiments: choose one below." in page.text
    assert [run["slot"] for run in page.data("overview")["runs"]] == [0, 0, 0]
    assert page.row("alone")[0] == result.verdict.regime


def test_seeds_looked_at_elsewhere_stand_apart(tmp_path):
    series(tmp_path / "x/seed-0", (0, 10, 20))
    series(tmp_path / "x/seed-1", (3, 14, 21))
    assert [run.name for run in find(tmp_path).runs] == ["x, seed-0", "x, seed-1"]


def test_a_series_still_growing(tmp_path):
    series(tmp_path / "x/seed-0", (0, 10, 20))
    path = series(tmp_path / "x/seed-1", (0, 10, 20)) / "evaluations.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    series(tmp_path / "begun", ())
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/evaluations.jsonl").write_text("")
    page = Page(write_report(tmp_path))
    (run,) = page.data("overview")["runs"]
    assert run["steps"] == [0, 10, 20]
    assert run["sd"]["low_rank"] == [0, 0, None]  # of the one seed that came so far there is no spread


def test_runs_side_by_side_and_notes(tmp_path):
    for k in range(6):
        series(tmp_path / f"width-{2**k}", offset=0.1 * k)
    SeriesFolder(tmp_path / "width-32").add(Evaluation(200, {}, note="features are <constant>"))
    SeriesFolder(tmp_path / "width-32").add(Evaluation(300, {}, note="features are <constant>"))
    page = Page(write_report(tmp_path))
    assert [run["name"] for run in page.data("overview")["runs"]] == [f"width-{2**k}" for k in range(6)]
    assert "features are <constant> (width-32 steps 200 to 300)" in page.text
    assert "the richest is width-1 at 0.010, the laziest width-16 at 0.410" in page.text
    assert page.row("width-32")[:2] == ["300", "-"]


def test_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr("lazyrich.report.payload.EVALUATIONS", 1)
    monkeypatch.setattr("lazyrich.report.payload.CURVE_SETS", 10)
    series(tmp_path / "long", range(120), features=3000)
    page = Page(write_report(tmp_path / "long"))
    (run,), curves = page.data("overview")["runs"], page.data("curves-0")
    assert (len(run["steps"]), run["steps"][0], run["steps"][-1]) == (20, 0, 119)
    np.testing.assert_allclose(run["values"]["low_rank"], 1 / (1 + np.array(run["steps"])), rtol=1e-4)
    assert (len(curves["at"]), curves["at"][0], curves["at"][-1]) == (10, 0, 19)
    assert (len(curves["k"]) <= 60, curves["k"][0], curves["k"][-1]) == (True, 1, 3000)
    assert page.data("overview")["thinned"]
    np.testing.assert_allclose(curves["utilization"][7], np.array(curves["k"]) / 3000, rtol=6e-3)


def test_foreign_text_is_escaped(tmp_path):
    folder = tmp_path / "<b>title & co"
    folder.mkdir()
    with (folder / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["condition", "seed", "step", "measure", "value"])
        writer.writerows([name, 0, step, "low_rank", 0.5] for name in HOSTILE for step in (0, 1))
    page = Page(write_report(folder))
    assert [run["name"] for run in page.data("overview")["runs"]] == HOSTILE
    assert page.tags.count("script") == 3 + len(HOSTILE)
    assert not {"img", "b"} & set(page.tags)
    assert "<b>title & co" in page.text
    assert page.cells[0][1:] == HOSTILE


def test_it_names_its_scripts_and_nothing_else(tmp_path):
    series(tmp_path)
    page = Page(write_report(tmp_path))
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page.source)[1])
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'" for kind, body in page.scripts if not kind
    }
    assert "default-src 'none'" in policy
    assert set(re.search("script-src ([^;]*)", policy)[1].split()) == hashes
    outside = re.findall(r'(?:src|href)="([^"]*)"', re.sub(r"(?s)<script.*?</script>", "", page.source))
    assert outside == ["data:,"]


def test_equal_results_give_equal_pages(tmp_path):
    series(tmp_path / "run")
    one, two = (write_report(tmp_path / "run", tmp_path / f"{k}.html").read_bytes() for k in range(2))
    assert one == two
    dated = write_report(tmp_path / "run", tmp_path / "dated.html", generated=datetime(2031, 2, 3, 4, 5))
    assert "2031-02-03 04:05" in dated.read_text()


class TestMistakes:
    def test_nothing_there(self, tmp_path, capsys):
        (tmp_path / "notes.txt").write_text("")
        assert main(["report", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert re.search(r"nothing to report in .*: looked for .*evaluations\.jsonl", error)
        assert main(["report", str(tmp_path / "none")]) == 1
        assert "none does not exist" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["richness.json", "mine.json"])
    def test_a_result_cut_off(self, result, tmp_path, name):
        result.save(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:500])
        with pytest.raises(DataError, match=f"{name} is not JSON"):
            write_report(tmp_path)

    def test_damaged_series_curves_and_tables(self, tmp_path):
        curves = series(tmp_path / "a") / "curves/step-00000010.npz"
        curves.write_bytes(b"")
        with pytest.raises(DataError, match=r"step-00000010\.npz is damaged"):
            write_report(tmp_path)
        (tmp_path / "a/evaluations.jsonl").write_text("{}\n")
        with pytest.raises(DataError, match=r"evaluations\.jsonl is damaged"):
            write_report(tmp_path)
        (tmp_path / "b").mkdir()
        (tmp_path / "b/results.csv").write_text("condition,seed\na,b\n")
        with pytest.raises(DataError, match=r"results\.csv is damaged"):
            write_report(tmp_path / "b")
        assert not list(tmp_path.rglob("*.html"))

    def test_it_cannot_be_written(self, tmp_path):
        series(tmp_path / "run")
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="cannot write"):
            write_report(tmp_path / "run", tmp_path / "file/report.html")


def test_the_command_says_where(tmp_path, capsys):
    series(tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out == f"Report: {tmp_path / 'page.html'}\n"
    assert (tmp_path / "page.html").is_file()
