"""The page in Chromium, the network cut off: it loads, the slider moves the curves, hostile names do no harm."""

import csv
import re
from contextlib import contextmanager

import numpy as np
import pytest

from lazyrich import Evaluation
from lazyrich._support.files import folder_name
from lazyrich.report import write_report
from lazyrich.results.drawing import COLOURS
from lazyrich.results.series import SeriesFolder

HOSTILE = [
    "<script>window.harmed = 1</script>",
    "<img src=x onerror='window.harmed = 1'>",
    '"><svg onload="window.harmed = 1">\' </script>',
    "x" * 200,
    "<b>bold</b> &lt;i&gt; <a href='javascript:window.harmed=1'>%{x}</a> <br> $\\sqrt{2}$",
]
STEPS = (0, 1, 10, 100, 1000)


@contextmanager
def opening(browser):
    """Open pages; at the end, no page may have reported an error or asked for the network."""
    wrong, asked, contexts = [], [], []

    def open_page(path, width=1280, height=900, wait=".main-svg", **options):
        context = browser.new_context(viewport={"width": width, "height": height}, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        if wait:
            page.wait_for_selector(wait, state="attached")
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("window.harmed") is None
        context.close()
    assert wrong == []
    assert [url for url in asked if not re.match("file:|data:|blob:", url)] == []


@pytest.fixture
def opened(browser):
    with opening(browser) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def shared(browser, tmp_path_factory):
    """The page of five runs, for tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("five")
    for k in range(5):
        run(folder / f"scale {k}, {'even' if k % 2 == 0 else 'odd'}", 1 - k / 10, layers=("a", "b"))
    with opening(browser) as open_page:
        page = open_page(write_report(folder))
        everything_drawn(page)
        yield page


def run(folder, factor=1.0, layers=()):
    """D_LR of factor / (1 + place); at place j, k / 64 to the power 1 / (1 + j) is utilized."""
    k = np.arange(1, 65)
    for place, step in enumerate(STEPS):
        d = factor / (1 + place)
        values = {"low_rank": d, "low_rank_corrected": d, "low_rank_stderr": 0.02, "isotropic": 0.9, "output_rank": 4.0}
        values |= {"nc1": d, "train_accuracy": 0.5, "balanced": d / 2, "laziness": d} | {
            f"low_rank of {name}": d for name in layers
        }
        curves = {"relative_eigenvalues": 1.0 / k, "utilization": (k / 64) ** (1 / (1 + place)), "quality": k / 64}
        SeriesFolder(folder).add(Evaluation(step, values, curves | {"contributions": np.full(64, (1 - d) / 64)}))
    return folder


def everything_drawn(page):
    for section in page.query_selector_all("[data-panel]:not([hidden])"):
        section.scroll_into_view_if_needed()
        section.wait_for_selector(".main-svg", state="attached")


def lines(page, panel):
    """(x, y) of the lines that a panel shows, bands left out."""
    plot = page.locator(f"[data-panel={panel}] .plot")
    plot.scroll_into_view_if_needed()
    for _ in range(4):  # frames, in which panels come into view and are drawn again
        page.evaluate("new Promise(requestAnimationFrame)")
    return plot.evaluate("plot => plot.data.filter(trace => trace.fill !== 'toself').map(trace => [trace.x, trace.y])")


def test_the_slider_moves_the_curves(opened, tmp_path):
    page = opened(write_report(run(tmp_path / "run", layers=("a", "b"))))
    everything_drawn(page)
    assert page.get_by_label("Step").get_attribute("aria-valuetext") == "step 1,000, D_LR 0.2"
    (x, first), (_, now) = lines(page, "utilization")
    np.testing.assert_allclose(first, np.array(x) / 64, rtol=6e-3)
    np.testing.assert_allclose(now, (np.array(x) / 64) ** (1 / 5), rtol=6e-3)
    page.get_by_label("Step").focus()
    for place, key in ((3, "ArrowLeft"), (2, "ArrowDown"), (4, "End"), (1, "Home"), (1, "ArrowRight")):
        page.keyboard.press(key)
        if key == "Home":
            continue
        *_, (_, now) = lines(page, "utilization")
        np.testing.assert_allclose(now, (np.array(x) / 64) ** (1 / (1 + place)), rtol=6e-3)
        assert f"step {STEPS[place]:,}, D_LR {1 / (1 + place):.4g}" == page.get_by_label("Step").get_attribute("aria-valuetext")
    assert lines(page, "layers")[0][1] == [0.5, 0.5]


def test_what_is_not_there_is_said(opened, tmp_path):
    folder = tmp_path / "run"
    SeriesFolder(folder).add(Evaluation(0, {"low_rank": 0.5, "isotropic": 0.9}))
    SeriesFolder(folder).add(Evaluation(5, {}, note="features are constant"))
    page = opened(write_report(folder))
    shown = [section.get_attribute("data-panel") for section in page.query_selector_all("[data-panel]:not([hidden])")]
    assert shown == ["scale"]
    absent = page.locator("#absent").inner_text()
    assert "There are no curves" in absent
    assert "no collapse measures" in absent
    assert "features are constant (step 5)" in page.locator(".notes").inner_text()


@pytest.fixture
def hostile(tmp_path):
    """Runs whose names no folder could have: of several seeds, by results.csv, in the order of their folders."""
    folder = tmp_path / "<img src=x onerror='window.harmed=1'>"
    lines = ["condition,seed,step,measure,value"]
    for name in HOSTILE:
        for seed in range(3):
            run(folder / "runs" / folder_name(name) / f"seed-{seed}", 0.8 + 0.1 * seed, layers=(HOSTILE[0], HOSTILE[4]))
        quoted = name.replace('"', '""')
        lines.append(f'"{quoted}",0,0,low_rank,1')
    (folder / "results.csv").write_text("\n".join(lines) + "\n")
    return write_report(folder)


def test_hostile_names_do_no_harm(opened, hostile):
    page = opened(hostile)
    everything_drawn(page)
    assert page.title().startswith("<img src=x onerror='window.harmed=1'>: rich")
    assert page.locator("h1").inner_text() == "<img src=x onerror='window.harmed=1'>"
    assert page.locator("#legend .name").all_inner_texts() == HOSTILE
    assert page.locator("tbody th .name").all_inner_texts() == HOSTILE
    ticks = page.locator("[data-panel=scale] .ytick text").evaluate_all("texts => texts.map(t => t.textContent)")
    assert len(ticks) == len(HOSTILE)
    for name in HOSTILE:  # each is there as it is, but for what was taken from its middle
        assert any(name.startswith(tick.partition("…")[0]) and name.endswith(tick.partition("…")[2]) for tick in ticks), ticks
    assert page.locator(".plot a, .plot image, .plot script, .plot tspan[style*=bold]").count() == 0
    for panel in ("scale", "time", "utilization", "layers"):
        plot = page.locator(f"[data-panel={panel}] .plot")
        script = "plot => plot.data.findIndex(trace => trace.text && trace.text[0].includes('&lt;script'))"
        plot.evaluate(f"plot => Plotly.Fx.hover(plot, [{{curveNumber: ({script})(plot), pointNumber: 0}}])")
        assert "<script>window.harmed = 1" in plot.locator(".hoverlayer").text_content()
        assert plot.locator(".hoverlayer :is(a, script, image)").count() == 0
    page.locator("#filter").fill("<b>bold")
    assert page.locator("#legend .name").all_inner_texts() == [HOSTILE[4]]
    page.locator("#columns").evaluate("columns => { columns.open = true }")
    page.locator("thead button").first.click()
    for details in page.locator("[data-panel]:not([hidden]) details").all():
        details.evaluate("details => { details.open = true }")
    page.locator("[data-panel=time] table").wait_for(state="attached")
    assert page.locator("[data-panel=time] tbody th").first.inner_text() == HOSTILE[4]


def test_at_phone_width_nothing_sticks_out(opened, hostile):
    page = opened(hostile, 390, 844, has_touch=True, is_mobile=True, color_scheme="dark")
    everything_drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    edges = page.locator(".plot .main-svg").evaluate_all("plots => plots.map(plot => plot.getBoundingClientRect().right)")
    assert max(edges) <= 390


def test_many_runs(opened, tmp_path):
    for k in range(26):
        run(tmp_path / f"run-{k}", 1 - k / 40)
    page = opened(write_report(tmp_path))
    others, first = lines(page, "time")[:2]
    assert len([y for y in others[1] if y is not None]) == 2 * len(STEPS)  # those without looks of their own
    np.testing.assert_allclose(first[1], 1 / np.arange(1, 6), rtol=1e-4)
    assert page.locator("#count").inner_text() == "24 of 26 runs drawn"
    page.locator("#filter").fill("RUN 7")
    assert page.locator("#count").inner_text() == "2 of 26 runs drawn, 2 match"
    assert page.locator("#legend .name").all_inner_texts() == ["run-7", "run-17"]
    np.testing.assert_allclose(lines(page, "time")[1][1], (1 - 7 / 40) / np.arange(1, 6), rtol=1e-4)
    assert page.locator("#numbers tbody th:visible").all_inner_texts() == ["run-7", "run-17"]
    page.locator("#filter").fill("")
    page.get_by_role("button", name="D_LR (0 = rich)", exact=True).click()
    assert page.locator("#numbers tbody th").all_inner_texts() == [f"run-{k}" for k in reversed(range(26))]
    page.get_by_role("button", name="D_LR (0 = rich)", exact=True).click()
    assert page.locator("#numbers tbody th").all_inner_texts() == [f"run-{k}" for k in range(26)]


def test_columns_can_be_chosen(shared):
    heads = shared.locator("#numbers thead th:visible")
    before = heads.all_inner_texts()
    assert "balanced reference" not in before
    assert "D_LR (0 = rich)" in before
    shared.locator("#columns summary").click()
    box = shared.locator("#columns label", has_text=re.compile("^balanced reference$")).locator("input")
    box.check()
    place = [*heads.all_inner_texts()].index("balanced reference")
    row = shared.locator("#numbers tbody tr").first.locator("th:visible, td:visible")
    assert row.nth(place).inner_text() == "0.1000"
    box.uncheck()
    assert heads.all_inner_texts() == before


def test_axes_have_readable_numbers(shared):
    """A mark of a log axis shows its value; plotly would write 2 and 5 below 20 and 50."""
    script = """plot => ["xaxis", "yaxis"].map(name => plot._fullLayout[name]).filter(axis => axis.type === "log")
        .map(axis => axis._vals.filter(v => v.x >= axis.range[0] && v.x <= axis.range[1]).map(v => [v.x, v.text]))"""
    counts = {}
    for panel in ("relative_eigenvalues", "nc1", "time", "utilization"):
        axes = shared.locator(f"[data-panel={panel}] .plot").evaluate(script)
        counts[panel] = len(axes)
        for marks in axes:
            assert len(marks) >= 3
            for place, text in marks[1 if panel in ("nc1", "time") and marks[0][1] == "0" else 0 :]:
                assert float(text.replace(",", "").replace("\u2212", "-")) == pytest.approx(10**place, rel=1e-3)
    assert counts == {"relative_eigenvalues": 2, "nc1": 2, "time": 1, "utilization": 1}
    titles = [shared.locator(f"[data-panel=time] .{axis}title").text_content() for axis in "xy"]
    assert titles == ["optimizer step", "D_LR"]


def test_a_run_has_one_colour_everywhere(shared):
    def colours():
        """Name of each run that is drawn -> its colours in the charts, the legend and the table."""
        script = "plot => plot.data.filter(t => t.name).map(t => [t.name, t.line && t.line.dash ? t.line.color : t.marker.color])"
        found = {}
        for panel in ("time", "laziness", "utilization", "layers", "nc1", "scatter"):
            lines(shared, panel)
            for name, colour in shared.locator(f"[data-panel={panel}] .plot").evaluate(script):
                found.setdefault(name, set()).add(colour)
        for name, colours in found.items():
            for place in ("#legend li", "#numbers tbody tr"):
                stroke = shared.locator(place, has_text=name).locator("svg line").get_attribute("stroke")
                colours.add(stroke)
        return found

    names = shared.locator("#legend .name").all_inner_texts()
    expected = {name: {colour} for name, colour in zip(names, COLOURS, strict=False)}
    assert colours() == expected
    shared.get_by_label(names[0]).uncheck()
    shared.get_by_label(names[2]).uncheck()
    assert colours() == {name: expected[name] for name in names if name not in (names[0], names[2])}
    shared.locator("#all").click()
    assert colours() == expected


def test_each_chart_has_a_table(shared):
    for section in shared.locator("[data-panel]:not([hidden])").all():
        assert section.locator("summary").inner_text() == "Data table"
        assert section.locator(".plot").get_attribute("aria-label").endswith("; the numbers are in the data table below")
    assert shared.locator("[data-panel] table").count() == 0  # until somebody asks for it
    panel = shared.locator("[data-panel=time]")
    panel.locator("summary").click()
    heads = ["run", "step", "D_LR (0 = rich)", "lower", "upper", "structureless features"]
    assert panel.locator("caption").inner_text() == "D_LR over training"
    assert panel.locator("thead th[scope=col]").all_inner_texts() == heads
    assert panel.locator("tbody th[scope=row]").count() == 5 * len(STEPS)
    assert panel.locator("tbody tr").nth(6).inner_text().split("\t") == ["scale 1, odd", "1", "0.45", "0.4108", "0.4892", "0.9"]
    panel.locator("summary").click()


@pytest.mark.parametrize("kind", ["CSV", "SVG", "PNG"])
def test_a_chart_can_be_saved(shared, kind):
    with shared.expect_download() as started:
        shared.locator("[data-panel=laziness] .save button", has_text=kind).click()
    assert started.value.suggested_filename.endswith(f"-laziness.{kind.lower()}")
    content = started.value.path().read_bytes()
    if kind == "CSV":
        head, *rows = csv.reader(content.decode().splitlines())
        assert head == ["run", "step", "λ, laziness ratio (0 = rich)"]
        assert rows[5 + 2] == ["scale 1, odd", "10", "0.3"]
    elif kind == "SVG":
        assert content.startswith(b"<svg")
        assert b"over training" in content
        assert all(f"scale {k}, ".encode() in content for k in range(5))
    else:
        assert content.startswith(b"\x89PNG")


def test_two_measures_against_each_other(shared):
    shared.locator("#x").select_option("balanced")
    lines(shared, "scatter")
    points = shared.locator("[data-panel=scatter] .plot").evaluate(
        "plot => plot.data.filter(t => t.mode === 'markers').map(t => [t.x[0], t.y[0]])"
    )
    np.testing.assert_allclose(points, [[d / 2, d] for d in (1 - np.arange(5) / 10) / 5], rtol=1e-4)


def test_texts_speak_of_what_is_drawn(shared):
    marks = shared.locator("[data-panel=scale] .marks").inner_text()
    assert marks.startswith("| structureless features")
    assert "plug-in" in marks
    assert "seeds" not in marks
    assert "seeds" not in shared.locator("[data-panel=time] .marks").inner_text()


def test_a_gap_is_dotted(opened, tmp_path):
    for step in (0, 10, 20, 30, 100):
        values = {"low_rank": 0.5 - step / 1000} if step != 10 else {}
        SeriesFolder(tmp_path / "run").add(Evaluation(step, values, note=None if values else "dead"))
    page = opened(write_report(tmp_path / "run"))
    line, gaps = lines(page, "time")
    assert line == [[0, None, 20, 30, None, 100], [0.5, None, 0.48, 0.47, None, 0.4]]
    assert gaps[0] == [0, 20, None, 30, 100, None]
    assert page.locator("[data-panel=time] .marks").inner_text() == "Dotted: nothing was measured there."


def test_an_index_of_experiments(opened, tmp_path):
    for name, value in (("first", 0.5), ("second", 0.25)):
        (tmp_path / name).mkdir()
        lines_of = [f"{condition},{seed},{step},low_rank,{value}" for condition in "ab" for seed in (0, 1) for step in (0, 5)]
        (tmp_path / name / "results.csv").write_text("\n".join(["condition,seed,step,measure,value", *lines_of]))
        table = (
            f"{name} (quick), 2 seeds: is it {value}?\n\nClaims:\n    NOT SHOWN  it is rich (1 of 2 seeds; rule: D_LR < 0.1)\n"
        )
        (tmp_path / name / "table.txt").write_text(table)
    page = opened(write_report(tmp_path))
    rows = page.locator("#experiments tbody tr").all_inner_texts()
    assert [cell.strip() for cell in rows[1].split("\t")] == ["second", "is it 0.25?", "not shown 1"]
    assert page.locator("#experiments details div").nth(1).text_content() == "not shown it is rich (1 of 2 seeds)"
    assert page.locator(".outcome:visible h2").all_inner_texts() == ["Outcome of first"]
    page.locator("#experiments a", has_text="second").click()
    assert page.locator("#experiment").input_value() == "second"
    assert page.locator(".outcome:visible h2").all_inner_texts() == ["Outcome of second"]
    assert page.locator("#legend .name").all_inner_texts() == ["a", "b"]
    assert lines(page, "time")[0] == [[0, None, 5], [0.25, None, 0.25]]
    assert page.locator("#numbers tbody tr:visible").count() == 2
    assert page.locator("#legend svg line").first.get_attribute("stroke") == COLOURS[0]


def test_it_prints_every_panel(opened, tmp_path):
    page = opened(write_report(run(tmp_path / "run")), color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    drawn = page.locator("[data-panel]:not([hidden]) .main-svg:first-child").count()
    assert drawn == page.locator("[data-panel]:not([hidden])").count() > 8
    page.emulate_media(media="print")
    assert page.locator("main").evaluate("main => getComputedStyle(main).display") == "block"  # no page ends within a grid
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(page.pdf()) > 20_000


def test_without_scripts_the_numbers_stand(opened, tmp_path):
    page = opened(write_report(run(tmp_path / "run")), wait=None, java_script_enabled=False)
    assert page.get_by_role("row", name="D_LR, bias-corrected").inner_text().split("\t")[-1] == "0.2000 ± 0.0200"
    assert page.locator("section:visible").count() == 1
