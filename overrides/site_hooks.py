"""What the build of the documentation adds: the version, formulas as MathML, and which pages the search leaves out."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)
NOT_FOR_READERS = re.compile("results/|develop/changelog|experiments/history")  # records for developers
LOW = {  # weights in the search of pages that have every word, or that point to explanations
    "reference/": 0.2,
    "experiments/": 0.5,
    "develop/": 0.5,
    "concepts/gallery": 0.5,
    "concepts/glossary": 0.5,
    "guide/faq": 0.7,
}


def on_config(config: Any) -> None:
    """Write the version of the library at the foot of every page, and link to the repository only where it is known."""
    if not config.repo_url:
        config.repo_url = config.edit_uri = None
    version = re.findall(r'^version = "(.+)"', PROJECT.read_text(encoding="utf-8"), re.MULTILINE)[0]
    config.copyright = f"lazyrich {version} · Apache-2.0"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> None:
    """Leave the records out of the search, and rank explanations before lists, so that it finds the pages for readers first."""
    boosts = [boost for folder, boost in LOW.items() if page.file.src_uri.startswith(folder)]
    page.meta.setdefault(
        "search", {"exclude": bool(NOT_FOR_READERS.match(page.file.src_uri)), "boost": boosts[0] if boosts else 1}
    )
    if page.file.src_uri.startswith("results/") and page.edit_url:  # docs/results is a symbolic link
        page.edit_url = page.edit_url.replace("/docs/results/", "/results/")


def on_page_content(content: str, **_: Any) -> str:
    """Replace each formula by MathML, which browsers show without a script and without a font of ours."""
    return FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    latex = html.unescape(match[2]).strip()[2:-2]  # without \( \) or \[ \]
    formula = convert(latex, display="inline" if match[1] == "span" else "block")
    return formula if match[1] == "span" else f'<div class="formula">{formula}</div>'
