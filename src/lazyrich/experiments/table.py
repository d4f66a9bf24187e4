"""The final table of an experiment as text: the measures next to the published figures, and each claim with its verdict."""

from __future__ import annotations

from .._support.text import ruled
from ..results.catalogue import entry
from .experiment import Experiment, Preset, Results

COLUMNS = (  # of every experiment, before its own
    "train_accuracy", "test_accuracy", "low_rank", "low_rank_corrected", "balanced", "output_alignment", "output_rank",
)  # fmt: skip


def table_text(experiment: Experiment, preset: Preset, results: Results, seeds: int) -> str:
    """The table, the remarks, and the claims with their verdicts."""
    remarks = experiment.remarks(results)
    return "\n".join(
        [
            f"{experiment.name} ({preset}), {seeds} seeds: {experiment.question}",
            "",
            *_rows(experiment, results),
            *(["", *remarks] if remarks else []),
            *_claims(experiment, results, seeds, "Claims", beyond=False),
            *_claims(experiment, results, seeds, "Beyond the paper", beyond=True),
        ]
    )


def _rows(experiment: Experiment, results: Results) -> list[str]:
    columns = (*COLUMNS, *experiment.columns)
    rows = experiment.table_rows(results)
    published = {measure for row in rows.values() for measure in row.published}
    cells = [["", *(part for measure in columns for part in [entry(measure).symbol, *["published"] * (measure in published)])]]
    for label, row in rows.items():
        line = [label]
        for measure in columns:
            line.append(entry(measure).over_seeds(results.values(row, measure)))
            if measure in published:
                line.append(entry(measure).published(row.published[measure]) if measure in row.published else "")
        cells.append(line)
    return ruled(cells)


def _claims(experiment: Experiment, results: Results, seeds: int, title: str, *, beyond: bool) -> list[str]:
    lines = []
    for claim in experiment.claims:
        if claim.beyond == beyond:
            verdict, count = claim.verdict(results.by_seed)
            lines.append(f"{verdict.upper():>9}  {claim.text} ({count} of {seeds} seeds; rule: {claim.rule})")
    return ["", f"{title}:", *lines] if lines else []
