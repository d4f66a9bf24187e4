"""The site as files on disk, in Chromium without a network: every page is opened, and the search finds the right page first."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import lazyrich.errors

ROOT = Path(__file__).parents[2]
HOSTS = re.compile(
    r'<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"|url\(["\']?(?:https?:)?//|@import'
)
QUERIES = {
    "install": "start/first-steps",
    "d_lr in five minutes": "concepts/five-minutes",
    "three curves": "concepts/three-curves",
    "utilization": "concepts/three-curves",
    "what lambda adds": "concepts/what-lambda-adds",
    "rich is not better": "concepts/rich-is-not-better",
    "paper": "concepts/reporting",
    "what to report": "concepts/reporting",
    "every layer": "guide/using",
    "many processes": "guide/using",
    "how many samples": "concepts/sensitivity",
    "null distribution": "concepts/sensitivity",
    "find the head": "guide/how-a-network-is-read",
    "compare two networks": "guide/comparing",
    "over seeds": "guide/comparing",
    "jax": "guide/arrays",
    "npy": "guide/arrays",
    "training loop": "guide/own-loop",
    "lightning": "guide/lightning",
    "bert": "guide/transformers",
    "tensorboard": "guide/logging",
    "ray": "guide/sweeps",
    "error bars": "concepts/sensitivity",
    "jackknife": "concepts/d-lr",
    "verdict": "concepts/verdict",
    "which reference": "concepts/references",
    "least effort kernel": "concepts/references",
    "laziness ratio": "concepts/laziness-ratio",
    "tangent kernel": "concepts/measures",
    "rankme": "concepts/measures",
    "dead features": "concepts/limits",
    "grokking": "experiments/grokking",
    "other packages": "neighbours/conformance",
    "add a measure": "develop/adding-a-measure",
    "participation_ratio": "concepts/measures",
    "do i need labels": "guide/faq",
    "regression": "guide/faq",
    "glossary": "concepts/glossary",
    "bibliography": "concepts/bibliography",
}
SEARCH = """async queries => {
  const config = JSON.parse(document.getElementById("__config").textContent);
  await new Promise((done, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: "search/search_index.js", onload: done, onerror: failed });
    document.head.append(script);
  });
  const worker = new Worker(new URL(config.search, location));
  const answer = (type, data) => new Promise(done => {
    worker.onmessage = message => done(message.data);
    worker.postMessage({ type, data });
  });
  const options = { suggest: false };
  await answer(0, { config: __index.config, docs: __index.docs, options });
  const found = {};
  for (const query of queries) found[query] = (await answer(2, query)).data.items.map(page => page[0].location.split(".html")[0]);
  return found;
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site with its own settings, without the plugin that runs code."""
    folder = tmp_path_factory.mktemp("site")
    settings = (ROOT / "mkdocs.yml").read_text().replace("  - markdown-exec", "  #")
    settings = settings.replace("overrides", (ROOT / "overrides").as_posix())
    settings = settings.replace("paths: [src]", f"paths: ['{(ROOT / 'src').as_posix()}']")
    settings = settings.replace("check_paths: true", f"check_paths: true, base_path: ['{ROOT.as_posix()}']")
    (folder / "mkdocs.yml").write_text(f"docs_dir: '{(ROOT / 'docs').as_posix()}'\n{settings}")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_nothing_is_loaded_from_another_host(site):
    for file in (*site.rglob("*.html"), *site.rglob("*.css")):
        assert not (found := HOSTS.search(file.read_text(encoding="utf-8"))), (file, found)


def test_the_menu_is_short(site):
    menu = (site / "index.html").read_text().split('<nav class="md-tabs"')[1].split("</nav>")[0]
    entries = [re.sub(r"<[^>]+>", "", entry).strip() for entry in re.findall(r"<a href=.*?</a>", menu, re.DOTALL)]
    assert entries == ["Start", "Guide", "Concepts", "Experiments", "Neighbours", "Reference", "Develop"]


def test_every_public_name_is_in_the_reference():
    text = "".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
    documented = re.findall(r"^::: (?:\w+\.)*(\w+)", text, re.MULTILINE)
    documented += re.findall(r"\w+", *re.findall(r"members: \[(.*)\]", text))
    names = [*lazyrich.__all__, *lazyrich.functional.__all__]
    errors = {*dir(lazyrich.errors), "functional"}  # both are described as modules
    assert not set(names) - set(documented) - errors
    assert len(documented) == len(set(documented)) + 2  # NeuralCollapse and RichnessCallback: two things of one name


def test_the_picture_of_the_toy_example_is_what_its_script_draws():
    script = runpy.run_path(str(ROOT / "benchmarks/figures/toy.py"))
    for name, theme in script["THEMES"].items():
        drawn = script["drawn"](theme)
        assert (ROOT / f"docs/concepts/toy-{name}.svg").read_text(encoding="utf-8") == drawn
        assert re.findall(r"D_LR = (\S+)<", drawn) == ["0.00", f"{1 / 14:.2f}", f"{9 / 14:.2f}"]


def test_every_picture_has_an_alternative_text(site):
    for file in site.rglob("*.html"):
        article = file.read_text(encoding="utf-8").split("<article", 1)[-1].split("</article>")[0]
        for picture in re.findall(r"<img\b[^>]*>", article):
            assert re.search(r'\balt="[^"]{10,}"', picture), (file, picture)


def test_no_page_is_wider_than_a_phone(browser, site):
    """Wide tables, figures and blocks of code scroll inside their column. Without scripts, which would take most of the time."""
    page = browser.new_context(viewport={"width": 390, "height": 900}, java_script_enabled=False, offline=True).new_page()
    wide = []
    for file in sorted(set(site.rglob("*.html")) - {site / "404.html"}):
        page.goto(file.as_uri())
        if page.evaluate("document.querySelector('.md-content').scrollWidth") > 390:
            wide.append(file.relative_to(site).as_posix())
    assert not wide
    page.context.close()


@pytest.mark.parametrize("name", ["index", "concepts/references"])
def test_a_page_runs_without_a_network(browser, site, name):
    page = browser.new_context(viewport={"width": 390, "height": 900}, offline=True).new_page()
    errors, loaded = [], []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: loaded.append(request.url))
    page.goto((site / f"{name}.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for picture in page.locator("article img:visible").all():  # three panels are illegible at 390 pixels
        assert picture.evaluate("picture => picture.getBoundingClientRect().width") > 600
    page.locator(".md-search__input").fill("isotropic")  # the window of the search works as well
    page.locator(".md-search-result__link").first.wait_for()
    assert not errors
    assert not [url for url in loaded if not url.startswith(("file:", "data:", "blob:", "about:"))]
    page.context.close()


def test_the_search_finds_the_right_page_first(browser, site):
    page = browser.new_context(offline=True).new_page()
    page.goto((site / "index.html").as_uri())
    found = page.evaluate(SEARCH, list(QUERIES))
    first = {query: next(iter(pages), None) for query, pages in found.items()}
    assert first == QUERIES
    page.context.close()
