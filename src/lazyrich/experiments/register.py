"""The register of claims: what was claimed, when its rule and its set-up were fixed, on which seeds, and every verdict.

``claims.toml`` only grows. A claim is registered before its seeds are run; a new rule, a new set-up or new seeds are a new entry.
Every entry is sealed with those before it, so that an entry that is changed or removed breaks the seals that follow.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from .._support.extras import needs
from ..errors import DataError
from .experiment import Claim, Experiment, Preset
from .ingredients.seeds import seed_numbers, seed_text
from .setup import Setup

REGISTER = Path(__file__).with_name("claims.toml")
NOT_CODE = {"ctx", "kind", "type_comment", "annotation", "returns", "lineno", "col_offset", "end_lineno", "end_col_offset"}


@dataclass(frozen=True)
class Registered:
    """A claim with the set-up and the seeds that it is about.

    Attributes:
        id: short name, which its verdicts refer to.
        setup: hash of the set-ups of the conditions that the rule reads; empty where it was not kept.
        code: hash of the function that judges; empty where it was not kept.
        commit: at which rule and set-up were fixed.
        found: seeds that were used to find the set-up or the rule; "unknown" where nobody wrote them down.
        reported: seeds that decide.
    """

    id: str
    experiment: str
    preset: str
    text: str
    rule: str
    setup: str
    code: str
    commit: str
    date: str
    found: str
    reported: str
    note: str = ""

    @property
    def exploratory(self) -> str:
        """Why the claim is only exploratory; empty if none of its seeds was used to find it."""
        if self.found == "unknown":
            return "nobody wrote down which seeds were used to find the set-up"
        shared = set(seed_numbers(self.found)) & set(seed_numbers(self.reported)) if self.found else set()
        return f"seeds {seed_text(sorted(shared))} were used to find the set-up" if shared else ""


@dataclass(frozen=True)
class Judged:
    """A verdict.

    Attributes:
        claim: id of the claim.
        holds: number of seeds that support it, of ``of``.
        commit: that holds the results.
    """

    claim: str
    verdict: str
    holds: int
    of: int
    commit: str
    date: str
    note: str = ""


Entry = Registered | Judged


@dataclass(frozen=True)
class Register:
    """The entries in the order in which they were made."""

    entries: tuple[Entry, ...]

    @property
    def claims(self) -> list[Registered]:
        """The claims."""
        return [entry for entry in self.entries if isinstance(entry, Registered)]

    def verdicts(self, claim: Registered) -> list[Judged]:
        """The verdicts on a claim, in their order."""
        return [entry for entry in self.entries if isinstance(entry, Judged) and entry.claim == claim.id]

    def of(self, experiment: str, preset: str, claim: Claim) -> list[Registered]:
        """The entries of a claim, by its text and its rule."""
        key = (experiment, preset, claim.text, claim.rule)
        return [entry for entry in self.claims if (entry.experiment, entry.preset, entry.text, entry.rule) == key]

    def judged(self, experiment: str, preset: str, claim: Claim, seeds: Sequence[int]) -> list[Judged]:
        """The verdicts on a claim that were reported on these seeds, in their order."""
        entries = [e for e in self.of(experiment, preset, claim) if set(seed_numbers(e.reported)) == set(seeds)]
        verdicts = [verdict for entry in entries for verdict in self.verdicts(entry)]
        return sorted(verdicts, key=self.entries.index)

    def standing(self, experiment: Experiment, preset: Preset, claim: Claim, seeds: Sequence[int]) -> str:
        """Why a run with these seeds is only exploratory for a claim; empty if the claim was registered for it."""
        entries = self.of(experiment.name, preset, claim)
        if not entries:
            return "the claim is not registered"
        here = setup_hash(experiment.setups(preset), claim.conditions)
        entries = [entry for entry in entries if entry.setup == here]
        if not entries:
            return "the set-up is not the registered one"
        entries = [entry for entry in entries if entry.code == code_hash(claim.holds)]
        if not entries:
            return "the rule is not the registered one"
        of_seeds = [entry for entry in entries if set(seed_numbers(entry.reported)) == set(seeds)]
        if not of_seeds:
            return f"the registered seeds are {' and '.join(dict.fromkeys(entry.reported for entry in entries))}"
        return min((entry.exploratory for entry in of_seeds), key=len)


def read_register(path: Path = REGISTER) -> Register:
    """The entries of a register.

    Raises:
        DataError: an entry does not match its seal, because it or an earlier one was changed or removed; a verdict is on an
            unknown claim; two claims have one id.
    """
    seal = ""
    entries: list[Entry] = []
    ids: set[str] = set()
    for number, values in enumerate(_tables(path), start=1):
        stated = values.pop("seal")
        seal = _seal(seal, values)
        if stated != seal:
            raise DataError(f"{path}: entry {number} does not match its seal: it, or an entry before it, was changed or removed")
        if "claim" in values:
            entry = Judged(**values)
            if entry.claim not in ids:
                raise DataError(f"{path}: entry {number} is a verdict on {entry.claim!r}, which is no claim before it")
        else:
            entry = Registered(**values)
            if entry.id in ids:
                raise DataError(f"{path}: entry {number} registers {entry.id!r} again: give it another id")
            ids.add(entry.id)
        entries.append(entry)
    return Register(tuple(entries))


def _tables(path: Path) -> list[dict[str, Any]]:
    tomllib = importlib.import_module("tomllib") if sys.version_info >= (3, 11) else needs("tomli", "experiments")
    return tomllib.loads(path.read_text(encoding="utf-8")).get("entry", [])


def append(entries: Iterable[Entry], path: Path = REGISTER) -> None:
    """Add entries at the end of a register."""
    text = path.read_text(encoding="utf-8")
    before = _tables(path)
    seal = before[-1]["seal"] if before else ""
    for entry in entries:
        values = {name: value for name, value in asdict(entry).items() if value != "" or name in ("setup", "code", "found")}
        seal = _seal(seal, values)
        lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in {**values, "seal": seal}.items()]
        text += "\n[[entry]]\n" + "\n".join(lines) + "\n"
    path.write_text(text, encoding="utf-8")


def _seal(before: str, values: Mapping[str, Any]) -> str:
    content = json.dumps([before, values], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def setup_hash(setups: Mapping[str, Setup], conditions: Sequence[str] = ()) -> str:
    """A hash of the set-ups of some conditions, or of all.

    What is only measured more does not count, nor a field that is off (0, False, None, empty), so that a field that is added to
    the code later, and is off, does not change the hash.
    """
    chosen = {name: _plain(setup.to_dict()) for name, setup in setups.items() if name in conditions or not conditions}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def _plain(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _plain(value) for name, value in values.items() if value and name not in ("extra", "held_out")}
    return [_plain(value) for value in values] if isinstance(values, (tuple, list)) else values


def code_hash(function: Callable[..., Any]) -> str:
    """A hash of a function and of the functions and constants of the experiments that it uses; comments and types do not count.

    >>> code_hash(seed_text) == code_hash(seed_text) != code_hash(seed_numbers)
    True
    """
    parts: dict[str, Any] = {}
    _collect(function, parts)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _collect(function: Any, parts: dict[str, Any]) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    parts[function.__name__] = _syntax(tree)
    for node in ast.walk(tree):
        name = node.id if isinstance(node, ast.Name) else ""
        value = function.__globals__.get(name)
        if isinstance(value, FunctionType) and value.__module__.startswith(__name__.rpartition(".")[0]) and name not in parts:
            _collect(value, parts)
        elif isinstance(value, (str, int, float, tuple, dict)) and not name.startswith("__"):
            parts[name] = repr(value)


def _syntax(node: Any) -> Any:
    """A syntax tree as plain values, the same in every version of Python: without positions, types and docstrings."""
    if isinstance(node, list):
        return [_syntax(item) for item in node if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: _syntax(value) for name, value in ast.iter_fields(node) if name not in NOT_CODE and value not in (None, [])}
    return [type(node).__name__, fields]


def unregistered(
    experiments: Iterable[Experiment], preset: Preset, found: str, reported: str, commit: str, date: str, register: Register
) -> list[Registered]:
    """New entries for the claims of experiments that are not registered with this rule, this set-up and these seeds."""
    entries: list[Registered] = []
    taken = {entry.id for entry in register.claims}
    for experiment in (experiment for experiment in experiments if preset in experiment.presets):
        setups = experiment.setups(preset)
        for claim in (claim for claim in experiment.claims if setups.keys() >= set(claim.conditions)):
            setup, code = setup_hash(setups, claim.conditions), code_hash(claim.holds)
            known = {(entry.setup, entry.code, entry.reported) for entry in register.of(experiment.name, preset, claim)}
            if (setup, code, reported) in known:
                continue
            stem = f"{experiment.name}-{preset}"
            number = next(n for n in range(1, 1000) if f"{stem}-{n}" not in taken)
            taken.add(f"{stem}-{number}")
            entries.append(
                Registered(
                    f"{stem}-{number}",
                    experiment.name,
                    preset,
                    claim.text,
                    claim.rule,
                    setup,
                    code,
                    commit,
                    date,
                    found,
                    reported,
                )
            )
    return entries
