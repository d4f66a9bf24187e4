"""The final table of an experiment as text: the measures next to the published figures, and each claim with its verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._support.text import ruled
from ..results.catalogue import entry
from . import fit
from .experiment import Experiment, Preset, Results
from .ingredients.seeds import typed_seeds
from .register import Register, read_register

COLUMNS = (  # of every experiment, before its own
    "train_accuracy", "test_accuracy", "low_rank", "low_rank_corrected", "laziness", "balanced", "output_alignment",
    "output_rank",
)  # fmt: skip

AT_EQUAL_FIT = ("train_loss", "train_accuracy", "test_accuracy", "low_rank", "laziness", "balanced", "output_alignment")

TITLES = {
    "train_loss": "At equal training loss: where each first has the highest of their last ones",
    "train_accuracy": "At equal training accuracy: where each first has the lowest of their last ones",
}

SECOND_HAND = "Published figures are second-hand: they are from a published summary of the paper, not from its tables."


def table_text(experiment: Experiment, preset: Preset, results: Results, register: Register | None = None) -> str:
    """The table, the remarks, and the claims with their verdicts.

    A claim that was not registered before the run, for this set-up, this rule and these seeds, is exploratory: the table says
    why and how many seeds support it, and gives no verdict.

    Args:
        register: by default that of the library.
    """
    register = register or read_register()
    remarks = all_remarks(experiment, preset, results)
    shown = preset in experiment.published_for and any(row.published for row in experiment.table_rows(results).values())
    seeds = seed_count(results.seeds)
    return "\n".join(
        [
            f"{experiment.name} ({preset}), {seeds}: {experiment.question}",
            "",
            *_rows(experiment, results, shown),
            *_equal_fits(experiment, preset, results),
            *(["", SECOND_HAND] if shown else []),
            *(["", *remarks] if remarks else []),
            *_claims(experiment, preset, results, register, "Claims", beyond=False),
            *_claims(experiment, preset, results, register, "Beyond the paper", beyond=True),
        ]
    )


def _rows(experiment: Experiment, results: Results, with_published: bool) -> list[str]:
    rows = experiment.table_rows(results)
    columns = [
        measure
        for measure in dict.fromkeys((*COLUMNS, *experiment.columns))
        if not all(np.isnan(results.values(row, measure)).all() for row in rows.values())  # runs of before lack newer measures
    ]
    published = {measure for row in rows.values() for measure in row.published if with_published}
    cells = [["", *(part for measure in columns for part in [entry(measure).symbol, *["published"] * (measure in published)])]]
    for label, row in rows.items():
        line = [label]
        for measure in columns:
            line.append(entry(measure).over_seeds(results.values(row, measure)))
            if measure in published:
                line.append(entry(measure).published(row.published[measure]) if measure in row.published else "")
        cells.append(line)
    return ruled(cells)


def fits(experiment: Experiment, preset: Preset, results: Results) -> dict[str, fit.Rows]:
    """The tables at equal fit, by their titles; none where some conditions were not run."""
    found = fit.equal_fits(results, experiment.setups(preset), AT_EQUAL_FIT) if results.complete else {}
    return {TITLES[measure]: rows for measure, rows in found.items()}


def all_remarks(experiment: Experiment, preset: Preset, results: Results) -> list[str]:
    """The lines below the tables; none where some conditions were not run."""
    return [*fit.remarks(results, experiment.setups(preset)), *experiment.remarks(results)] if results.complete else []


def fit_cells(rows: fit.Rows) -> list[list[str]]:
    """The headings and the cells of a table at equal fit; a measure that no run has gets no column."""
    columns = [measure for measure in AT_EQUAL_FIT if not all(np.isnan(of[measure]).all() for of in rows.values())]
    cells = [["", *(entry(measure).symbol for measure in columns)]]
    return cells + [[name, *(entry(measure).over_seeds(of[measure]) for measure in columns)] for name, of in rows.items()]


def _equal_fits(experiment: Experiment, preset: Preset, results: Results) -> list[str]:
    lines = []
    for title, rows in fits(experiment, preset, results).items():
        lines += ["", f"{title}:", *ruled(fit_cells(rows))]
    return lines


def seed_count(seeds: Sequence[int]) -> str:
    """The number of seeds, and which they are where they are not 0 to N - 1.

    >>> seed_count((0, 1, 2)), seed_count((100, 101)), seed_count((7,))
    ('3 seeds', '2 seeds (100-101)', '1 seed (7)')
    """
    named = typed_seeds(seeds)
    which = "" if isinstance(named, int) else f" ({named if len(seeds) > 1 else seeds[0]})"
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)}{which}"


def _claims(
    experiment: Experiment, preset: Preset, results: Results, register: Register, title: str, *, beyond: bool
) -> list[str]:
    lines = []
    for claim in experiment.claims:
        judged = bool(results.complete or claim.conditions) and results.runs.keys() >= set(claim.conditions)
        if claim.beyond == beyond and judged:
            verdict, count = claim.verdict(results.by_seed)
            why = register.standing(experiment, preset, claim, results.seeds)
            label, reason = ("exploratory", f"because {why}; ") if why else (verdict, "")
            of = f"{count} of {len(results.seeds)} seeds"
            lines.append(f"{label.upper():>11}  {claim.text} ({of}; {reason}rule: {claim.rule})")
    return ["", f"{title}:", *lines] if lines else []
