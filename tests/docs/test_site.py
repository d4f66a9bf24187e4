"""The site as files on disk, in Chromium without a network: the search works, and no page is wider than the screen."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("concepts/references.md", "concepts/measures.md")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two pages of the site with its own settings, without the plugins that run code."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "overrides", folder / "overrides")
    for name in ("stylesheets", "javascripts"):
        shutil.copytree(ROOT / "docs" / name, folder / "docs" / name)
    (folder / "docs/concepts").mkdir()
    (folder / "docs/index.md").write_text("# Start\n\n![a wide picture](demo.png)\n")
    for name in (*PAGES, "demo.png"):
        (folder / "docs" / name).write_bytes((ROOT / "docs" / name).read_bytes())
    pages = "".join(f"  - {name}\n" for name in ("index.md", *PAGES))
    settings = f"INHERIT: {ROOT / 'mkdocs.yml'}\nstrict: false\ndocs_dir: docs\nplugins: [search, offline]\nnav:\n{pages}"
    (folder / "mkdocs.yml").write_text(settings)
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def opened(browser, path, width):
    page = browser.new_context(viewport={"width": width, "height": 900}, offline=True).new_page()
    page.goto(path.as_uri())
    return page


def test_the_search_works_without_a_server(browser, site):
    page = opened(browser, site / "index.html", 1280)
    page.locator(".md-search__input").fill("isotropic")
    page.locator(".md-search-result__link").first.click()
    page.wait_for_url("**/concepts/references.html*")
    assert "isotropic" in page.locator("article").inner_text()
    page.context.close()


@pytest.mark.parametrize("name", ["index", "concepts/references", "concepts/measures"])
def test_on_a_phone_wide_tables_and_figures_scroll_by_themselves(browser, site, name):
    page = opened(browser, site / f"{name}.html", 390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    if name == "index":  # three panels are illegible at 390 pixels
        assert page.locator("article img").evaluate("picture => picture.getBoundingClientRect().width") > 600
    page.context.close()
