"""Keep the register and what is written from it.

``python -m lazyrich.experiments.bookkeeping register quick 0-2 100-104`` registers the claims of all experiments with a preset,
the seeds that were used to find the set-ups, and the seeds that will decide. Commit rules and set-ups first.
``… verdicts results/`` enters the verdicts of published tables that the register does not have yet; commit the results first.
``… pages results/ docs/experiments/`` writes the history and the tables of the pages.
``… figures results/`` draws D_LR over the training loss for the published runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from typing import cast, get_args

from .._support.files import write_text
from ..errors import DataError
from ..results.claim_lines import ClaimLine
from . import EXPERIMENTS
from .experiment import Claim, Experiment, Preset
from .figures import over_fit
from .ingredients.seeds import seed_numbers
from .provenance import commit
from .recorded import read_results, read_table
from .register import REGISTER, Judged, Register, Registered, append, read_register, unregistered
from .table import SECOND_HAND, all_remarks, fit_cells, fits, seed_count


def register_claims(preset: Preset, found: str, reported: str) -> int:
    """Register all claims that are not registered with this preset and these seeds; their number."""
    for seeds in (reported, *([found] if found not in ("", "unknown") else [])):
        seed_numbers(seeds)  # raises before anything is written, because the register cannot be changed afterwards
    head, clean = commit(except_for=REGISTER.name)
    if head is None or not clean:
        raise DataError("commit the rules and the set-ups first: the register names the commit that holds them")
    entries = unregistered(EXPERIMENTS.values(), preset, found, reported, head[:12], _today(), read_register())
    append(entries)
    return len(entries)


def enter_verdicts(results: Path) -> int:
    """Enter the verdicts of the tables below a folder that the register does not have; their number."""
    head, _ = commit()
    register, entries = read_register(), []
    for experiment, preset, folder in published(results):
        seeds = read_results(folder, list(experiment.setups(preset))).seeds
        for line in read_table(folder / "table.txt").claims:
            claim = claim_of(experiment, line)
            registered = [
                e for e in register.of(experiment.name, preset, claim) if not register.standing(experiment, preset, claim, seeds)
            ]
            if line.verdict != "exploratory" and registered and not register.verdicts(registered[-1]):
                entries.append(Judged(registered[-1].id, line.verdict, line.holds, line.of, (head or "")[:12], _today()))
    append(entries)
    return len(entries)


def write_pages(results: Path, pages: Path) -> None:
    """Write ``history.md``, and in ``record/`` the tables of each published run and the claims of each experiment."""
    register = read_register()
    write_text(pages / "history.md", history(register))
    for experiment, preset, folder in published(results):
        write_text(pages / "record" / f"{preset}-{experiment.name}.md", numbers(experiment, preset, folder))
    for experiment in EXPERIMENTS.values():
        write_text(pages / "record" / f"claims-{experiment.name}.md", claims(experiment, register, results))


def draw_figures(results: Path) -> None:
    """Draw D_LR over the training loss for each published run with comparable conditions, from its ``results.csv``."""
    for experiment, preset, folder in published(results):
        setups = experiment.setups(preset)
        over_fit(read_results(folder, list(setups)), folder / "over-fit.png", setups)


def published(results: Path) -> list[tuple[Experiment, Preset, Path]]:
    """The folders of results below a folder: experiment, preset, folder."""
    return [
        (experiment, preset, results / preset / name)
        for name, experiment in EXPERIMENTS.items()
        for preset in experiment.presets
        if (results / preset / name / "table.txt").is_file()
    ]


def claim_of(experiment: Experiment, line: ClaimLine) -> Claim:
    """The claim that a line of a table is about."""
    return next(c for c in (*experiment.claims, *experiment.former) if (c.text, c.rule) == (line.text, line.rule))


def numbers(experiment: Experiment, preset: Preset, folder: Path) -> str:
    """The tables of a run as HTML, those at equal fit last. Figures of another data set than that of the run are left out."""
    table, results = read_table(folder / "table.txt"), read_results(folder, list(experiment.setups(preset)))
    block = table.block
    shown = [k for k, column in enumerate(block.columns) if column != "published" or preset in experiment.published_for]
    notes = [f"`{preset}`, {seed_count(results.seeds)}: mean and standard deviation.", *all_remarks(experiment, preset, results)]
    if any(block.columns[k] == "published" for k in shown):
        notes.append(SECOND_HAND)
    cells = [["", *(block.columns[k] for k in shown)]]
    cells += [[label, *(row[k] for k in shown)] for label, row in block.rows.items()]
    parts = [_html(cells), *map(escape, notes)]
    for title, rows in fits(experiment, preset, results).items():
        parts += [f"**{escape(title)}.** Each seed by itself, by interpolation between evaluations.", _html(fit_cells(rows))]
    return "\n\n".join(parts) + "\n"


def _html(cells: Sequence[Sequence[str]]) -> str:
    headings, *rows = cells
    lines = ["<tr>" + "".join(f"<th>{escape(heading)}</th>" for heading in headings) + "</tr>"]
    for label, *row in rows:
        lines.append(f"<tr><td>{escape(label)}</td>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>")
    body = "\n".join(lines)
    return f'<div class="record">\n<table>\n{body}\n</table>\n</div>'


def _cell(text: str) -> str:
    mean, plus_minus, spread = text.partition(" ± ")
    return escape(mean) + (f" <small>± {escape(spread)}</small>" if plus_minus else "")


def claims(experiment: Experiment, register: Register, results: Path) -> str:
    """The claims of an experiment, each with its badge: those that its tables judge, then those that are not yet run."""
    lines = ["<tr><th>verdict</th><th>claim and rule</th><th>seeds</th></tr>"]
    for _, preset, folder in (entry for entry in published(results) if entry[0] is experiment):
        seeds = read_results(folder, list(experiment.setups(preset))).seeds
        for line in read_table(folder / "table.txt").claims:
            claim = claim_of(experiment, line)
            entries = [e for e in register.of(experiment.name, preset, claim) if seed_numbers(e.reported) == seeds]
            exploratory = not entries or bool(entries[-1].exploratory) or line.verdict == "exploratory"
            badges = [line.verdict, *["exploratory"] * (exploratory and line.verdict != "exploratory")]
            lines.append(_claim(badges, claim, f"{preset}: {line.holds} of {line.of} ({seed_count(seeds)})"))
    for claim in experiment.claims:
        entries = [entry for preset in experiment.presets for entry in register.of(experiment.name, preset, claim)]
        waiting = [f"{entry.preset}: {entry.reported}" for entry in entries if not register.verdicts(entry)]
        if waiting:
            lines.append(_claim(["not yet run"], claim, "<br>".join(waiting)))
    body = "\n".join(lines)
    return f'<div class="record claims">\n<table>\n{body}\n</table>\n</div>\n'


def _claim(badges: Sequence[str], claim: Claim, seeds: str) -> str:
    shown = " ".join(f'<span class="verdict {badge.replace(" ", "-")}">{badge}</span>' for badge in badges)
    what = f"{escape(claim.text)}{' (not a claim of the paper)' if claim.beyond else ''}<br><small>{escape(claim.rule)}</small>"
    return f"<tr><td>{shown}</td><td>{what}</td><td>{seeds}</td></tr>"


def history(register: Register) -> str:
    """All entries of the register as a page."""
    lines = [HISTORY]
    for name in EXPERIMENTS:
        lines.append(f"## {name}\n")
        for entry in (entry for entry in register.claims if entry.experiment == name):
            lines += [f"### {entry.id}\n", *_history(entry, register.verdicts(entry))]
    return "\n".join(lines).rstrip() + "\n"


def _history(entry: Registered, verdicts: Sequence[Judged]) -> list[str]:
    lines = [f"**{escape(entry.text)}.** Rule: {escape(entry.rule)}.\n"]
    hashes = f"set-up `{entry.setup or 'not kept'}`, rule `{entry.code or 'not kept'}`"
    lines.append(f"- Fixed on {entry.date} at `{entry.commit}`; {hashes}.")
    seeds = f"Set-up found on {'seeds ' * (entry.found[0].isdigit())}{entry.found}" if entry.found else "Set-up found on no seed"
    standing = f"exploratory, because {entry.exploratory}" if entry.exploratory else "registered before its seeds were run"
    lines.append(f"- {seeds}; reported on seeds {entry.reported}: {standing}.")
    for verdict in verdicts:
        note = f" {escape(verdict.note)}" if verdict.note else ""
        what = f"**{verdict.verdict}**, {verdict.holds} of {verdict.of} seeds" if verdict.of else "no verdict was kept"
        lines.append(f"- {verdict.date}, `{verdict.commit}`: {what}.{note}")
    lines += [] if verdicts else ["- **Not yet run.**"]
    return [*lines, *([f"- {escape(entry.note)}"] if entry.note else []), ""]


HISTORY = """# History of the claims

This page is generated from the register of claims, `claims.toml`, which only grows: a new rule, a new set-up or new seeds are a
new entry, and the old entry stays with its verdicts. A claim is *exploratory* if its set-up or its rule was found on the seeds
that it reports. The entries up to November 25, 2026 were made afterwards, from the commits of the repository that they name. The
hashes of their set-ups were computed from these commits, and those of their rules were not kept.
"""


def _today() -> str:
    return datetime.now(timezone.utc).date().isoformat()


def main(command: str, *arguments: str) -> None:
    """Run one command, as above."""
    if command == "register":
        if arguments[0] not in get_args(Preset):
            raise DataError(f"no preset {arguments[0]!r}; there are: {', '.join(get_args(Preset))}")
        print(register_claims(cast(Preset, arguments[0]), *arguments[1:]), "claims registered")  # noqa: T201
    elif command == "verdicts":
        print(enter_verdicts(Path(*arguments)), "verdicts entered")  # noqa: T201
    elif command == "pages":
        write_pages(*map(Path, arguments))
    elif command == "figures":
        draw_figures(*map(Path, arguments))
    else:
        raise DataError(f"no command {command!r}; there are: register, verdicts, pages, figures")


if __name__ == "__main__":
    main(*sys.argv[1:])
