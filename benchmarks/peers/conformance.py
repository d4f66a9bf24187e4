"""The conformance suite on this library and on other packages: the table of docs/neighbours/conformance.md.

The other packages are no dependencies: install them in an environment of their own and run this with its Python.

    python benchmarks/peers/conformance.py
"""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
PEERS = ("repsim", "ckatorch", "torch_cka", "pytorch_cka", "cka_pytorch", "reptrix", "weightwatcher")
TOPICS = {
    "test_kernel_alignment": {"kernel_alignment": "CKA", "debiased_kernel_alignment": "debiased CKA"},
    "test_effective_ranks": {"rankme": "RankMe", "stable_rank": "stable rank"},
    "test_spectral_exponent": {"alpha_req": "α-ReQ"},
}
FUNCTIONS = [function for functions in TOPICS.values() for function in functions]
Outcome = dict[str, list[str]]  # row -> of each of its cases "passed", "skipped" or how it failed


def run(implementation: str) -> Outcome:
    """Outcomes by row."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-q", "-W", "ignore", f"--junitxml={report}", "--implementation", implementation]
        subprocess.run([sys.executable, "-m", "lazyrich.conformance", *options], cwd=ROOT, capture_output=True, check=False)  # noqa: S603
        cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 - written by the line above
    rows: Outcome = defaultdict(list)
    for case in cases:
        file = case.get("classname", "").rpartition(".")[2]
        test, _, parameters = case.get("name", "").partition("[")
        functions = list(TOPICS.get(file, {"": ""}))
        named = [name for name in FUNCTIONS if name in parameters.rstrip("]").split("-")]
        rows[f"{file}.{test}.{named[0] if named else functions[0]}"].append(outcome(case, parameters.rstrip("]")))
    return rows


def outcome(case: ElementTree.Element, parameters: str) -> str:
    if case.find("skipped") is not None:
        return "skipped"
    failure = case.find("failure")
    if failure is None:
        return "passed"
    message = failure.get("message", "").splitlines()[0].removeprefix("AssertionError: ")[:110]
    message = "gives a number" if message.startswith("assert False") else message
    return f"[{parameters}] {message}" if parameters else message


def applying(outcomes: list[str]) -> list[str]:
    return [o for o in outcomes if o != "skipped"]


def failures(outcomes: list[str]) -> list[str]:
    return [o for o in applying(outcomes) if o != "passed"]


def cell(outcomes: list[str]) -> str:
    if not applying(outcomes):
        return "–"
    failed = len(failures(outcomes))
    return f"**{failed} of {len(applying(outcomes))} fail**" if failed else "passes"


def what(file: str, test: str) -> str:
    module = importlib.import_module(f"lazyrich.conformance.{file}")
    return (inspect.getdoc(getattr(module, test)) or "").splitlines()[0].rstrip(".")


def main() -> None:
    names = {"lazyrich": "lazyrich.functional,lazyrich.metrics"} | {p: f"benchmarks.peers.on_{p}" for p in PEERS}
    found = {name: run(implementation) for name, implementation in names.items()}
    columns = {p: f"{p.replace('_', '-')} {version(p.replace('_', '-'))}" for p in names}
    print(f"| | | {' | '.join(columns.values())} |")
    print("| --- | --- |" + " --- |" * len(columns))
    for row in found["lazyrich"]:
        file, test, function = row.split(".")
        if any(applying(found[p][row]) for p in PEERS):
            cells = (cell(rows[row]) for rows in found.values())
            print(f"| {TOPICS[file][function]}: `{test[5:]}` | {what(file, test)} | " + " | ".join(cells) + " |")
    every = {name: [o for outcomes in rows.values() for o in outcomes] for name, rows in found.items()}
    totals = (f"{every[name].count('passed')} of {len(applying(every[name]))}" for name in names)
    print("| **pass** | all cases of what the package has | " + " | ".join(totals) + " |")
    print(
        f"\nPython {sys.version.split()[0]}, " + ", ".join(f"{p} {version(p)}" for p in ("torch", "numpy", "scikit-learn")) + "."
    )
    print("\nThe first failure of each cell:\n")
    for name in names:
        for row, outcomes in found[name].items():
            file, test, function = row.split(".")
            for failure in failures(outcomes)[:1]:
                print(f"- {name.replace('_', '-')}, {TOPICS[file][function]} `{test[5:]}`: `{failure}`")


if __name__ == "__main__":
    main()
