"""The page in Chromium, the network cut off: it loads, the slider moves the curves, hostile names do no harm."""

import re

import numpy as np
import pytest

from lazyrich import Evaluation
from lazyrich._support.files import folder_name
from lazyrich.report import write_report
from lazyrich.results.series import SeriesFolder

HOSTILE = [
    "<script>window.harmed = 1</script>",
    "<img src=x onerror='window.harmed = 1'>",
    '"><svg onload="window.harmed = 1">\' </script>',
    "x" * 200,
    "<b>bold</b> &lt;i&gt; <a href='javascript:window.harmed=1'>%{x}</a> <br> $\\sqrt{2}$",
]
STEPS = (0, 1, 10, 100, 1000)


@pytest.fixture
def opened(browser):
    """Open a page; at the end, no page may have reported an error or asked for the network."""
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
    assert [url for url in asked if not re.match("file:|data:", url)] == []


def run(folder, factor=1.0, layers=()):
    """D_LR of factor / (1 + place); at place j, k / 64 to the power 1 / (1 + j) is utilized."""
    k = np.arange(1, 65)
    for place, step in enumerate(STEPS):
        d = factor / (1 + place)
        values = {"low_rank": d, "low_rank_corrected": d, "low_rank_stderr": 0.02, "isotropic": 0.9, "output_rank": 4.0}
        values |= {"nc1": d, "train_accuracy": 0.5, "balanced": d / 2} | {f"low_rank of {name}": d for name in layers}
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
    assert page.locator("#show option").evaluate_all("options => options.map(o => o.title)") == ["all 5 runs", *HOSTILE]
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
    for name in range(-1, len(HOSTILE)):
        page.locator("#show").select_option(str(name))
    page.locator("#compare").select_option("0")
    page.locator("thead button").first.click()
    assert page.locator("#legend .name").all_inner_texts() == [HOSTILE[4], HOSTILE[0]]


def test_at_phone_width_nothing_sticks_out(opened, hostile):
    page = opened(hostile, 390, 844, has_touch=True, is_mobile=True, color_scheme="dark")
    everything_drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    edges = page.locator(".plot .main-svg").evaluate_all("plots => plots.map(plot => plot.getBoundingClientRect().right)")
    assert max(edges) <= 390


def test_many_runs(opened, tmp_path):
    for k in range(20):
        run(tmp_path / f"run-{k}", 1 - k / 40)
    page = opened(write_report(tmp_path))
    others, chosen = lines(page, "time")[:2]
    assert len([y for y in others[1] if y is not None]) == 19 * len(STEPS)
    np.testing.assert_allclose(chosen[1], 1 / np.arange(1, 6), rtol=1e-4)
    page.locator("#show").select_option("7")
    np.testing.assert_allclose(lines(page, "time")[1][1], (1 - 7 / 40) / np.arange(1, 6), rtol=1e-4)
    page.get_by_role("button", name="D_LR (0 = rich)", exact=True).click()
    assert page.locator("tbody th").all_inner_texts() == [f"run-{k}" for k in reversed(range(20))]
    page.get_by_role("button", name="D_LR (0 = rich)", exact=True).click()
    assert page.locator("tbody th").all_inner_texts() == [f"run-{k}" for k in range(20)]


def test_it_prints_every_panel(opened, tmp_path):
    page = opened(write_report(run(tmp_path / "run")), color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    drawn = page.locator("[data-panel]:not([hidden]) .main-svg:first-child").count()
    assert drawn == page.locator("[data-panel]:not([hidden])").count() > 8
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(page.pdf()) > 20_000


def test_without_scripts_the_numbers_stand(opened, tmp_path):
    page = opened(write_report(run(tmp_path / "run")), wait=None, java_script_enabled=False)
    assert page.get_by_role("row", name="D_LR, bias-corrected").inner_text().split("\t")[-1] == "0.2000 ± 0.0200"
    assert page.locator("section:visible").count() == 1
