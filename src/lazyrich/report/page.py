"""The page as one string: numbers are prepared here, the template in assets/ holds the sentences, Jinja2 escapes foreign text."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.resources import files
from itertools import groupby
from typing import Any

import numpy as np

from .._support.extras import needs
from .._support.spread import mean_and_sd
from ..results.catalogue import entry, listed
from ..results.drawing import COLOURS
from .found import Found
from .payload import curves, overview
from .runs import Run, Seed

FEW = 4  # runs up to this are columns of the table, more are rows
SCRIPTS = ("data.js", "plots.js", "export.js", "controls.js")
TILES = ("low_rank", "low_rank_corrected", "isotropic", "laziness", "output_rank", "train_accuracy", "test_accuracy")
MAIN = (*TILES, "laziness_corrected", "nc1", "loss")  # columns of the table of all runs that a reader need not choose


def page(found: Found, generated: str | None = None) -> str:
    """Render the page.

    Args:
        found: what it shows.
        generated: when the page was generated, as text; None leaves it out, so that equal results give equal pages.

    Raises:
        DataError: a file of curves is damaged.
        MissingExtraError: plotly or Jinja2 is not installed.
    """
    plotly = needs("plotly.offline", "report").get_plotlyjs()
    template = _template()
    runs = found.runs
    script = '"use strict";\n(() => {\n' + "\n".join(map(_asset, SCRIPTS)) + "})();\n"
    measures = listed({name for run in runs for name in run.measures})
    return template.render(
        title=found.title,
        version=version("lazyrich"),
        generated=generated,
        experiments=found.experiments,
        index=[experiment for experiment in found.experiments if experiment.name],
        style=_asset("page.css"),
        scripts=[plotly, script],
        hashes=[_hash(plotly), _hash(script)],
        overview=overview(runs) | {"colours": COLOURS},
        curves=[curves(run, len(runs)) for run in runs],
        runs=runs,
        few=len(runs) <= FEW and not any(run.experiment for run in runs),
        ends=_ends(runs),
        regimes=_regimes(runs),
        described=_described(runs[0]) if len(runs) == 1 else None,
        tiles=[(entry(name).full_label, cell) for name in TILES if (cell := _cell(runs[0], name))] if len(runs) == 1 else [],
        notes=_notes(runs),
        table=_table(runs, measures),
        collapse=[entry(name) for name in measures if entry(name).group == "collapse"],
    )


def printable(value: Any) -> Any:
    r"""A value of the template without what HTML forbids: control characters and halves of surrogate pairs; markup is unchanged.

    >>> printable("a\x1b[31m"), printable(3)
    ('a�[31m', 3)
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "�", value).encode("utf-8", "replace").decode()


def _template() -> Any:
    jinja2 = needs("jinja2", "report")
    environment = jinja2.Environment(
        autoescape=True, finalize=printable, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.from_string(_asset("page.html"))


def _asset(name: str) -> str:
    return (files("lazyrich.report") / "assets" / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _ends(runs: Sequence[Run]) -> list[tuple[float, str]]:
    """D_LR at the end and the name of each run that has it, the richest first."""
    ends = [(_last(run, "low_rank")[0], run.name) for run in runs]
    return sorted((value, name) for value, name in ends if value is not None)


def _regimes(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Each verdict and the names of the runs that have it, the most frequent first."""
    regimes: dict[str, list[str]] = {}
    for run in runs:
        if run.verdict is not None:
            regimes.setdefault(run.verdict.regime, []).append(run.name)
    return sorted(regimes.items(), key=lambda item: -len(item[1]))


def _described(run: Run) -> dict[str, Any]:
    """What was measured, in numbers."""
    if run.measured:
        return {name: int(run.last(name)[0]) for name in ("num_samples", "num_features", "num_outputs")}
    return {
        "evaluations": max(len(seed.steps) for seed in run.seeds),
        "first": int(min(seed.steps[0] for seed in run.seeds)),
        "last": int(max(seed.steps[-1] for seed in run.seeds)),
    }


def _last(run: Run, name: str) -> tuple[float | None, float | None]:
    """A number at the end with its spread: mean and standard deviation over seeds, or the value and its standard error."""
    values = run.last(name)
    if len(values) > 1:
        mean, sd = mean_and_sd(values)
        return _finite(mean), _finite(sd)
    error = entry(name).error
    return _finite(values[0]), _finite(run.last(error)[0]) if error else None


def _finite(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None


def _cell(run: Run, name: str) -> str:
    """A number at the end as text, "" where it was not measured."""
    value, spread = _last(run, name)
    if value is None:
        return ""
    if len(run.seeds) > 1 and spread:  # no spread where all seeds agree, as on the number of samples
        return entry(name).over_seeds(run.last(name))
    return entry(name).formatted(value, spread or None)


def _table(runs: Sequence[Run], measures: list[str]) -> list[tuple[str, bool, list[str]]]:
    """(label, whether it is a main column, a cell for each run) of everything that the table shows."""
    lines: list[tuple[str, bool, list[str]]] = []
    if any(run.verdict for run in runs):
        lines.append(("verdict", True, [run.verdict.regime if run.verdict else "" for run in runs]))
    if any(len(run.seeds) > 1 for run in runs):
        lines.append(("seeds", True, [str(len(run.seeds)) for run in runs]))
    if not all(run.measured for run in runs):
        lines.append(("last step", True, [f"{max(int(seed.steps[-1]) for seed in run.seeds):,}" for run in runs]))
    return lines + [(entry(name).full_label, name in MAIN, [_cell(run, name) for run in runs]) for name in measures]


def _notes(runs: Sequence[Run]) -> dict[str, list[tuple[str, str]]]:
    """Note -> (run, steps) of everything that it is about; "" where that is clear."""
    notes: dict[str, list[tuple[str, str]]] = {}
    for run in runs:
        name = run.name if len(runs) > 1 else ""
        for note in run.notes:
            notes.setdefault(note, []).append((name, ""))
        for number, seed in enumerate(run.seeds):
            for note, steps in _intervals(seed):
                where = f"{steps}, seed {number}" if len(run.seeds) > 1 else steps
                notes.setdefault(note, []).append((name, where))
    return notes


def _intervals(seed: Seed) -> Iterator[tuple[str, str]]:
    """Note and steps of each interval of training that could not be measured."""
    for note, interval in groupby(seed.steps.tolist(), key=seed.notes.get):
        steps = list(interval)
        if note:
            yield note, f"step {steps[0]:,}" if len(steps) == 1 else f"steps {steps[0]:,} to {steps[-1]:,}"
