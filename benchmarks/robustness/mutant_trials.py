"""Trying mutants: the tests that run a changed line, in forked processes over copies of the repository."""

from __future__ import annotations

import compileall
import importlib
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import hypothesis
import pytest
from mutation import PACKAGE, ROOT, Mutant, shown

FIRST = ("torch.func", "torch.distributed", "torch.testing", "torchmetrics", "scipy.sparse.linalg", "hypothesis.strategies")
TESTS = {  # which tests may notice a mistake in a file, apart from its own and its doctest
    "gram/gram.py": ["functional/test_large_p", "test_metrics", "functional/test_low_rank", "functional/test_spectrum"],
    "gram/accumulator.py": ["gram/test_gram", "gram/test_pair"],
    "gram/state.py": ["gram/test_gram"],
    "gram/moments.py": ["gram/test_gram", "functional/test_low_rank"],
    "gram/retained_rows.py": ["gram/test_gram", "functional/test_retained_design", "functional/test_low_rank"],
    "gram/checks.py": ["gram/test_gram", "test_hostile"],
    "functional/span.py": ["functional/test_low_rank", "functional/test_references", "functional/test_spectrum"],
    "functional/inputs.py": ["functional/test_low_rank", "functional/test_neural_collapse", "functional/test_kernel_alignment"],
    "functional/eigen.py": ["functional/test_large_p", "functional/test_spectrum", "functional/test_effective_rank"],
    "functional/jackknife.py": ["functional/test_low_rank", "functional/test_references", "functional/test_retained_design"],
    "functional/influence.py": ["functional/test_laziness", "functional/test_low_rank", "measurement/test_compare"],
    "functional/held_out.py": ["functional/test_spectrum"],
    "functional/low_rank.py": ["functional/test_references", "functional/test_sketch"],
    "functional/effective_rank.py": ["functional/test_large_p"],
    "functional/neural_collapse.py": ["measurement/test_measure"],
    "functional/spectral_exponent.py": ["functional/test_large_p"],
    "functional/spectrum.py": ["functional/test_large_p"],
}


class Chosen:
    """Runs some tests alone, in this order; without such a list all, and writes down what each takes and which lines it runs."""

    def __init__(self, order: list[str] | None = None, traced: coverage.Coverage | None = None) -> None:
        self.order, self.traced = order, traced
        self.seconds: dict[str, float] = {}
        self.shared: dict[str, list[str]] = {}

    def pytest_configure(self) -> None:  # after the profile of conftest.py; a failure needs no smaller example
        hypothesis.settings.register_profile(
            "mutants", hypothesis.settings.default, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
        )
        hypothesis.settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.order is not None:
            place = {name: i for i, name in enumerate(self.order)}
            items[:] = sorted((item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid])

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if self.traced is None:
            os._exit(int(exitstatus))  # nothing to tidy up

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        if self.traced is None:
            return (yield)
        self.traced.switch_context(item.nodeid)
        began = time.perf_counter()
        result = yield
        self.seconds[item.nodeid] = time.perf_counter() - began
        self.traced.switch_context("")
        known = getattr(item, "_fixtureinfo", None)
        for name, defined in (known.name2fixturedefs if known else {}).items():
            if defined[-1].scope != "function" and defined[-1].baseid:  # filled once, by the first test that asks for it
                self.shared.setdefault(f"{defined[-1].baseid} {name}", []).append(item.nodeid)
        return result


def tests_of(file: str) -> list[str]:
    """The file's own tests and its conformance tests, if they exist; those of TESTS; last the source with its doctest."""
    room, name = Path(file).parent, f"test_{Path(file).name}"
    own = [test for test in (Path("tests", room, name), PACKAGE / "conformance" / name) if (ROOT / test).exists()]
    others = [Path("tests", f"{test}.py") for test in TESTS.get(file, [])]
    return [str(test) for test in dict.fromkeys([*own, *others, PACKAGE / file])]


def run_in(tree: Path, tests: list[str], plugin: Chosen, seconds: int, log: str = os.devnull) -> int:
    """pytest in this process, which is one of its own, in a copy of the repository."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    quiet = os.open(log, os.O_RDWR | os.O_CREAT)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree / "src")
    sys.path.insert(0, str(tree / "src"))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # it would take most of the time
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], plugins=[plugin]))


def fork(job: Any) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            code = job()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(code)
    return pid


@dataclass
class Known:
    """What a run of the unchanged source has shown of its tests."""

    tests: list[str]
    seconds: dict[str, float]
    lines: dict[int, list[str]]

    def order(self, lines: list[int]) -> list[str]:
        """The tests of these lines, fast ones first; lines that run at import are everybody's."""
        at = [set(self.lines[line]) for line in lines if line in self.lines]
        chosen = set().union(*at)
        if "" in chosen or not chosen:
            chosen = set().union(*self.lines.values()) if any(line in self.lines for line in lines) else set()
        return sorted(chosen - {""}, key=lambda name: self.seconds.get(name, 0.0))


def known(file: str, tree: Path, tests: list[str]) -> Known:
    data, found = tree / "lines", tree / "tests.json"
    log = tree / "log.txt"
    target = str(tree / PACKAGE / file)

    def job() -> int:
        data.unlink(missing_ok=True)
        traced = coverage.Coverage(data_file=str(data), include=[target], config_file=False)
        traced.start()
        plugin = Chosen(traced=traced)
        code = run_in(tree, tests, plugin, 3600, str(log))
        traced.stop()
        contexts = traced.get_data().contexts_by_lineno(target)
        found.write_text(json.dumps([plugin.seconds, plugin.shared, contexts]), encoding="utf-8")
        return code

    _, status = os.waitpid(fork(job), 0)
    if status != 0:
        raise SystemExit(f"{log.read_text(encoding='utf-8')[-4000:]}\n{file}: its tests do not pass on the unchanged source")
    seconds, shared, contexts = json.loads(found.read_text(encoding="utf-8"))
    lines = {int(line): set(names) for line, names in contexts.items()}
    for together in shared.values():
        for names in lines.values():
            if names & set(together):
                names |= set(together)
    return Known(tests, seconds, {line: sorted(names) for line, names in lines.items()})


def start(mutant: Mutant, known_tests: Known, tree: Path) -> tuple[int, int]:
    """A process that tries one mutant, and how many ticks it may take."""
    order = known_tests.order(mutant.lines)
    target = tree / PACKAGE / mutant.file
    target.write_text(mutant.source, encoding="utf-8")
    patience = int(20 + 10 * sum(known_tests.seconds.get(name, 0.0) for name in order))
    needed = {name.partition("::")[0] for name in order}
    files = [test for test in known_tests.tests if test in needed]  # the source last: a doctest imports it again

    def job() -> int:
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        return run_in(tree, files, Chosen(order), patience)

    return fork(job), 20 * 3 * patience


def tried(todo: list[Mutant], known_tests: Known, trees: list[Path]) -> None:
    """Tries mutants of one file, as many at a time as there are copies of the repository."""
    file = todo[0].file
    original = (ROOT / PACKAGE / file).read_text(encoding="utf-8")
    for tree in trees:
        Path(importlib.util.cache_from_source(str(tree / PACKAGE / file))).unlink(missing_ok=True)
    waiting = list(reversed(todo))
    running: dict[int, tuple[Mutant, Path, int]] = {}
    free = list(trees)
    ticks = done = 0
    while waiting or running:
        while waiting and free:
            mutant = waiting.pop()
            if not known_tests.order(mutant.lines):
                mutant.end = "no test"
                continue
            tree = free.pop()
            pid, patience = start(mutant, known_tests, tree)
            running[pid] = mutant, tree, ticks + patience
        for pid, (mutant, tree, limit) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                if ticks > limit:  # ticks, not a clock: whoever pauses this process pauses them too
                    os.kill(pid, signal.SIGKILL)
                continue
            code = os.waitstatus_to_exitcode(status)
            late = code in (-signal.SIGXCPU, -signal.SIGKILL)
            mutant.end = "survived" if code in (0, 5) else "timeout" if late else "killed"
            del running[pid]
            free.append(tree)
            done += 1
            if mutant.end == "survived":
                print(f"{done}/{len(todo)} survived: {shown(mutant)}", flush=True)
        time.sleep(0.05)
        ticks += 1
    for tree in trees:
        (tree / PACKAGE / file).write_text(original, encoding="utf-8")


def copies(folder: Path, count: int) -> list[Path]:
    """Copies of what the tests need."""
    first = folder / "0"
    ignored = shutil.ignore_patterns("__pycache__", "runs")
    for name in ("src", "tests", "docs", "examples", "benchmarks", "results"):
        shutil.copytree(ROOT / name, first / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, first / path.name)
    compileall.compile_dir(first / "src", quiet=1)
    for i in range(1, count):
        shutil.copytree(first, folder / str(i))
    return [folder / str(i) for i in range(count)]
