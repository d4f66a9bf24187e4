"""The page itself: the template filled, everything that came from outside escaped, the scripts named by their hash."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.metadata import version
from importlib.resources import files
from itertools import groupby
from typing import Any

import numpy as np

from .._support.extras import needs
from .._support.spread import mean_and_sd
from ..results.catalogue import entry, listed
from ..results.drawing import COLOURS
from .found import Found, Run
from .payload import curves, overview

FEW = 4  # runs up to this stand as columns, more as rows


def page(found: Found, generated: str | None = None) -> str:
    """The whole page as one string.

    Args:
        generated: when, as it shall stand there; None leaves it out, so that equal results give equal pages.

    Raises:
        DataError: a file of curves is damaged.
        MissingExtraError: plotly is not installed.
    """
    plotly = needs("plotly.offline", "report").get_plotlyjs()
    data = overview(found) | {"colours": COLOURS}
    script = _packaged("page.js")
    few = len(found.runs) <= FEW
    parts = {
        "hashes": " ".join(f"'sha256-{_hash(text)}'" for text in (plotly, script)),
        "generator": f"lazyrich {version('lazyrich')}",
        "title": text(found.title),
        "style": _packaged("page.css"),
        "lead": _lead(found),
        "tiles": _tiles(found.runs[0]) if len(found.runs) == 1 else "",
        "notes": _notes(found),
        "table_title": "All numbers" if few else "Runs side by side",
        "table_how": _table_how(found, few),
        "table": _table(found, few),
        "outcome": "" if found.table is None else _outcome(found.table),
        "facts": _facts(found, generated),
        "overview": as_json(data),
        "curves": "\n".join(_curves(k, run, len(found.runs)) for k, run in enumerate(found.runs)),
        "plotly": plotly,
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _packaged("page.html"))


def text(value: str) -> str:
    """Foreign text as HTML text or attribute: no markup, no control characters, no halves of a surrogate pair."""
    plain = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "�", value)
    return html.escape(plain.encode("utf-8", "replace").decode(), quote=True)


def as_json(values: Any) -> str:
    """JSON that cannot end the element it stands in."""
    given = json.dumps(values, allow_nan=False, separators=(",", ":"))  # ASCII, so U+2028 and the like are escaped
    return given.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _packaged(name: str) -> str:
    return (files("lazyrich.report") / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _curves(place: int, run: Run, runs: int) -> str:
    return f'<script type="application/json" id="curves-{place}">{as_json(curves(run, runs))}</script>'


def _any_series(found: Found) -> bool:
    return any(run.result is None for run in found.runs)


def _named(name: str) -> str:
    return f'<span class="name" title="{text(name)}"><bdi>{text(name)}</bdi></span>'


def _lead(found: Found) -> str:
    meaning = (
        "D_LR tells how rich features are: 0 if they hold the learned functions, evenly, and nothing else; larger is lazier."
    )
    if len(found.runs) == 1:
        return f"{meaning} {_described(found.runs[0])}"
    ends = {run.name: value for run in found.runs if (value := _last(run, "low_rank")[0]) is not None}
    if not ends:
        return f"{meaning} None of the {len(found.runs)} runs could be measured."
    low, high = min(ends, key=lambda n: ends[n]), max(ends, key=lambda n: ends[n])
    between = f"the richest is {_named(low)} at {ends[low]:.3f}, the laziest {_named(high)} at {ends[high]:.3f}."
    return f"{meaning} Of {len(found.runs)} runs {between}"


def _described(run: Run) -> str:
    """What was measured, a sentence of HTML."""
    if run.result is not None:
        r = run.result
        head = f" at head {_named(r.head)}" if r.head else ""
        return f"Measured on {r.num_samples:,} samples with {r.num_features:,} features and {r.num_outputs:,} outputs{head}."
    steps = sorted({int(step) for series in run.seeds for step in series.steps})
    end = "At the end:" if _last(run, "low_rank")[0] is not None else "At the end nothing could be measured."
    seeds = f" of each of {len(run.seeds)} seeds" if len(run.seeds) > 1 else ""
    return f"{max(map(len, run.seeds)):,} evaluations{seeds}, from step {steps[0]:,} to {steps[-1]:,}. {end}"


def _last(run: Run, name: str) -> tuple[float | None, float | None]:
    """A measure at the end: mean and spread over seeds, or the value and the standard error that goes with it."""
    given = np.array([series.last(name) for series in run.seeds])
    if len(run.seeds) > 1:
        mean, sd = mean_and_sd(given)
        return _known(mean), _known(sd)
    error = entry(name).error
    return _known(given[0]), _last(run, error)[0] if error else None


def _known(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None


def _tiles(run: Run) -> str:
    """The few numbers to see first."""
    tiles = []
    for name in ("low_rank", "low_rank_corrected", "isotropic", "output_rank", "train_accuracy", "test_accuracy"):
        if cell := _cell(run, name):
            tiles.append(f"<div><dt>{entry(name).full_label}</dt><dd>{cell}</dd></div>")
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def _cell(run: Run, name: str) -> str:
    value, spread = _last(run, name)
    if value is None:
        return ""
    if len(run.seeds) > 1 and spread:  # none where all seeds agree, as on the number of samples
        return entry(name).over_seeds([series.last(name) for series in run.seeds])
    return entry(name).formatted(value, spread or None)


def _table_how(found: Found, few: bool) -> str:
    when = "At the end of training. " if _any_series(found) else ""
    spread = "± is the standard error of a value without sampling bias, or the standard deviation over seeds; - was not measured."
    return when + spread + ("" if few else " A heading sorts by its column.")


def _table(found: Found, few: bool) -> str:
    """Runs as columns where they are few, else as rows whose headings sort."""
    names = listed({n for run in found.runs for s in run.seeds for n in s.measures})
    columns: list[tuple[str, list[str]]] = []
    if any(len(run.seeds) > 1 for run in found.runs):
        columns.append(("seeds", [str(len(run.seeds)) for run in found.runs]))
    if _any_series(found):
        columns.append(("last step", [f"{max(int(s.steps[-1]) for s in run.seeds):,}" for run in found.runs]))
    columns += [(entry(name).full_label, [_cell(run, name) for run in found.runs]) for name in names]
    heads = [f'<th scope="{"col" if few else "row"}">{_named(run.name)}</th>' for run in found.runs]
    if few:
        rows = [f'<th scope="row">{_named(title)}</th>' + "".join(map(_td, cells)) for title, cells in columns]
        top = "<td></td>" + "".join(heads)
    else:
        rows = [head + "".join(_td(cells[k]) for _, cells in columns) for k, head in enumerate(heads)]
        top = '<th scope="col">run</th>' + "".join(f'<th scope="col">{_named(title)}</th>' for title, _ in columns)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table class="{"few" if few else "many"}">\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>'


def _td(cell: str) -> str:
    return f"<td>{cell or '-'}</td>"


def _notes(found: Found) -> str:
    """What a reader of the numbers must know, with the runs that it is about."""
    about: dict[str, list[str]] = {}
    for run in found.runs:
        for note, where in _notes_of(run):
            about.setdefault(note, []).append(" ".join(filter(None, (_named(run.name) * (len(found.runs) > 1), where))))
    rows = []
    for note, places in about.items():
        shown = "; ".join(p for p in places[:6] if p) + (f" and {len(places) - 6} more" if len(places) > 6 else "")
        rows.append(f"<li>{text(note)}{f' <small>({shown})</small>' if shown else ''}</li>")
    return f'<ul class="notes" aria-label="Notes">{"".join(rows)}</ul>' if rows else ""


def _notes_of(run: Run) -> list[tuple[str, str]]:
    """(note, where) for a measurement, or for the stretches of training that could not be measured."""
    if run.result is not None:
        return [(note, "") for note in run.result.notes]
    notes = []
    for number, series in enumerate(run.seeds):
        stretches = groupby(series.evaluations, key=lambda e: e.note)
        for note, stretch in stretches:
            if note:
                steps = [e.step for e in stretch]
                where = f"step {steps[0]:,}" if len(steps) == 1 else f"steps {steps[0]:,} to {steps[-1]:,}"
                notes.append((note, f"{where}, seed {number}" if len(run.seeds) > 1 else where))
    return notes


def _outcome(table: str) -> str:
    return (
        '<section class="wide" id="outcome">\n<h2>What the experiment found</h2>\n'
        "<p>The table that it ended with: what the paper reports beside what was measured, and each claim with its rule.</p>\n"
        f'<div class="scroll" role="region" aria-label="What the experiment found" tabindex="0"><pre>{text(table)}</pre></div>\n'
        "</section>"
    )


def _facts(found: Found, generated: str | None) -> str:
    given = {"report by": f"lazyrich {version('lazyrich')}"} | ({"written": generated} if generated else {}) | found.facts
    return "".join(f"<div><dt>{text(label)}</dt><dd>{text(value)}</dd></div>" for label, value in given.items())
