"""Results in a notebook, as HTML without scripts or files from elsewhere; colours follow the page, light or dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from .._support.text import plain
from .answer import Scale, scales
from .catalogue import entry, ordered

if TYPE_CHECKING:
    from .richness import Richness

_STYLE = "font-family:system-ui,sans-serif;font-size:14px;line-height:1.45;max-width:46em;color:inherit"
_COLOURS = {"rich": "#00724f", "lazy": "#a84300", "intermediate": "#0063a0"}  # dark enough for white letters
_WIDTH = 420  # of a scale, in pixels
_CURVES = {
    "relative_eigenvalues": "eigenvalues", "utilization": "utilization", "quality": "quality",
}  # fmt: skip


def card(r: Richness) -> str:
    """Verdict, scales, curves, evidence, caveats, and all numbers folded away."""
    verdict = r.verdict
    colour = _COLOURS.get(verdict.regime, "#555555")
    badge = f'<b style="background:{colour};color:white;border-radius:4px;padding:1px 8px">{escape(verdict.regime)}</b>'
    parts = [f"<p>{badge} {_text(verdict.sentence)}</p>", *map(_drawn, scales(r)), _curves(r.curves())]
    parts += [_list("Evidence", verdict.evidence), _list("Caveats", verdict.caveats)]
    cells = r.cells()
    rows = [[entry(name).full_label, cells[name]] for name in ordered(cells) if cells[name]]
    parts.append(f"<details><summary>All numbers</summary>{html_table([['measure', 'value'], *rows])}</details>")
    return f'<div style="{_STYLE}">{"".join(parts)}</div>'


def html_table(rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Headings and rows of cells as a table, below a line of text."""
    headings, *body = rows
    head = "".join(f'<th style="text-align:left">{_text(cell)}</th>' for cell in headings)
    lines = ["".join(f'<td style="text-align:left">{_text(cell)}</td>' for cell in row) for row in body]
    above = f'<caption style="text-align:left">{_text(caption)}</caption>' if caption else ""
    return f'<table style="color:inherit">{above}<tr>{head}</tr>{"".join(f"<tr>{line}</tr>" for line in lines)}</table>'


def _text(text: str) -> str:
    return escape(plain(text))


def _list(heading: str, texts: Sequence[str]) -> str:
    items = "".join(f"<li>{_text(text)}</li>" for text in texts)
    return f'<div><b>{heading}</b><ul style="margin:0 0 6px">{items}</ul></div>' if texts else ""


def _drawn(scale: Scale) -> str:
    """A scale from 0 to 1 with a value, its error and its marks."""

    def x(value: float) -> float:
        return 10 + _WIDTH * min(max(value, 0.0), 1.0)

    marks = "".join(
        f'<line x1="{x(mark.value):.1f}" x2="{x(mark.value):.1f}" y1="6" y2="18" stroke="currentColor" stroke-dasharray="2 2"/>'
        f'<text x="{x(mark.value):.1f}" y="30" font-size="10" text-anchor="middle" fill="currentColor">{_text(mark.name)}</text>'
        for mark in scale.marks
    )
    error = scale.error or 0.0
    bar = (
        f'<line x1="{x(scale.value - 2 * error):.1f}" x2="{x(scale.value + 2 * error):.1f}" y1="12" y2="12" stroke="#0072B2" '
        'stroke-width="5" stroke-opacity="0.5"/>'
    )
    text = f"{_text(scale.symbol)} = {scale.number}"
    return (
        '<div style="display:flex;gap:10px;align-items:center;flex-wrap:wrap">'
        f'<span style="width:13em;white-space:nowrap">{text}</span>'
        f'<svg viewBox="0 0 {_WIDTH + 20} 34" style="width:{_WIDTH + 20}px;max-width:100%" role="img" '
        f'aria-label="{text} on a scale from 0 to 1">'
        f'<line x1="10" x2="{10 + _WIDTH}" y1="12" y2="12" stroke="currentColor"/>{marks}{bar}'
        f'<circle cx="{x(scale.value):.1f}" cy="12" r="5" fill="#0072B2"/></svg></div>'
    )


def _curves(curves: Mapping[str, np.ndarray]) -> str:
    """The three curves over the features, each on its own axes from 0 to 1."""
    drawn = "".join(_curve(label, curves[name]) for name, label in _CURVES.items() if name in curves)
    return f'<div style="display:flex;gap:14px;flex-wrap:wrap">{drawn}</div>'


def _curve(label: str, values: np.ndarray) -> str:
    place = np.log(np.arange(len(values)) + 1.0) / max(np.log(len(values)), 1e-9)
    some = np.unique(np.linspace(0, len(values) - 1, 120).round().astype(int)) if len(values) > 120 else np.arange(len(values))
    points = " ".join(f"{4 + 128 * place[k]:.1f},{64 - 60 * min(max(float(values[k]), 0.0), 1.0):.1f}" for k in some)
    text = f"{label}, 1 to {len(values):,} features (log)"
    return (
        f'<figure style="margin:4px 0"><svg width="136" height="68" role="img" aria-label="{text}">'
        '<path d="M4 4V64H132" fill="none" stroke="currentColor" stroke-opacity="0.5"/>'
        f'<polyline points="{points}" fill="none" stroke="#0072B2" stroke-width="1.5"/></svg>'
        f'<figcaption style="font-size:11px">{text}</figcaption></figure>'
    )
