"""Which mistakes in the source the tests would notice: one mistake at a time, in a copy of the repository.

A mutant is the source with one thing changed: an operator, a comparison, a number, a condition turned round, a keyword left
out, a bound of a slice left out, a call, a `raise` or a returned value deleted, ... What is printed for people to read, in
f-strings and in errors, stays. Tests that run the changed line are tried, fast ones first, until one fails: the mutant is killed.
One that takes ten times as long as the unchanged source is killed too.

    python benchmarks/robustness/mutants.py functional/low_rank.py functional/span.py --out found.json
    python benchmarks/robustness/mutants.py gram/gram.py --share 0.25          # a random quarter
    python benchmarks/robustness/mutants.py --again found.json            # only those that survived, after a test was added
    python benchmarks/robustness/mutants.py --again found.json --tests tests/functional/test_inputs.py   # by these tests alone
    python benchmarks/robustness/mutants.py --show found.json             # the tables once more

torch is imported once; every mutant is a process forked off (Linux, macOS).
"""

from __future__ import annotations

import argparse
import ast
import compileall
import gc
import importlib
import importlib.util
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import coverage
import hypothesis
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = Path("src/lazyrich")
FIRST = ("torch.func", "torch.distributed", "torch.testing", "torchmetrics", "scipy.sparse.linalg", "hypothesis.strategies")
TESTS = {  # which tests may notice a mistake in a file, besides its own and its doctest
    "gram/gram.py": ["functional/test_large_p", "test_metrics", "functional/test_low_rank", "functional/test_spectrum"],
    "gram/accumulator.py": ["gram/test_gram", "gram/test_pair"],
    "gram/state.py": ["gram/test_gram"],
    "gram/moments.py": ["gram/test_gram", "functional/test_low_rank"],
    "gram/retained_rows.py": ["gram/test_gram", "functional/test_low_rank"],
    "gram/checks.py": ["gram/test_gram", "test_hostile"],
    "functional/span.py": ["functional/test_low_rank", "functional/test_references", "functional/test_spectrum"],
    "functional/inputs.py": ["functional/test_low_rank", "functional/test_neural_collapse", "functional/test_kernel_alignment"],
    "functional/eigen.py": ["functional/test_large_p", "functional/test_spectrum", "functional/test_effective_rank"],
    "functional/jackknife.py": ["functional/test_low_rank", "functional/test_references"],
    "functional/held_out.py": ["functional/test_spectrum"],
    "functional/low_rank.py": ["functional/test_references", "functional/test_sketch"],
    "functional/effective_rank.py": ["functional/test_large_p"],
    "functional/neural_collapse.py": ["measurement/test_measure"],
    "functional/spectral_exponent.py": ["functional/test_large_p"],
    "functional/spectrum.py": ["functional/test_large_p"],
}
OTHER = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.RShift: ast.LShift,
    ast.LShift: ast.RShift, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
OTHERS = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
PAIRS = (
    ("min", "max"), ("amin", "amax"), ("argmin", "argmax"), ("any", "all"), ("clamp_min", "clamp_max"), ("triu", "tril"),
    ("minimum", "maximum"), ("sum", "mean"), ("sqrt", "square"), ("log", "exp"), ("floor", "ceil"),
)  # fmt: skip
NAMES = dict(PAIRS) | {b: a for a, b in PAIRS}


@dataclass
class Mutant:
    """One change, and what became of it."""

    file: str
    place: str  # the function
    line: int
    lines: list[int]  # those whose tests are tried
    before: str
    after: str
    number: int  # of the same change in the same function
    source: str = field(repr=False)
    end: str = "not tried"  # killed, timeout, survived, "no test"

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        return self.file, self.place, self.before, self.after, self.number


# --- what may be changed ---------------------------------------------------------------------------------------------


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that may stand in a node's place."""

    def like(**other: Any) -> ast.AST:
        return type(node)(**{**dict(ast.iter_fields(node)), **other})

    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op):
            if type(op) in OTHER:
                yield like(op=OTHER[type(op)]())
            if isinstance(node, ast.AugAssign):
                yield ast.Assign(targets=[node.target], value=node.value)
        case ast.Compare():
            for i, op in enumerate(node.ops):
                for other in OTHERS[type(op)]:
                    yield like(ops=[*node.ops[:i], other(), *node.ops[i + 1 :]])
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.Constant(value=bool(held)):
            yield ast.Constant(not held)
        case ast.Constant(value=int(held)):
            yield ast.Constant(held + 1)
        case ast.Constant(value=float(held)):
            yield ast.Constant(2 * held if held else 1.0)
        case ast.Constant(value=str(held)):
            yield ast.Constant("XX" + held)
        case ast.Call():
            for i, given in enumerate(node.keywords):
                if given.arg is not None:
                    yield like(keywords=node.keywords[:i] + node.keywords[i + 1 :])
        case ast.Attribute(attr=name) if name in NAMES:
            yield like(attr=NAMES[name])
        case ast.Name(id=name) if name in NAMES:
            yield like(id=NAMES[name])
        case ast.If() | ast.IfExp() | ast.While():
            yield like(test=ast.UnaryOp(ast.Not(), node.test))
        case ast.comprehension() if node.ifs:
            yield like(ifs=[])
        case ast.Slice():
            for bound in ("lower", "upper"):
                if getattr(node, bound) is not None:
                    yield like(**{bound: None})
        case ast.Expr() | ast.Raise():
            yield ast.Pass()
        case ast.Return(value=value) if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Assign() if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield like(value=ast.Constant(None))
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()


def left_alone(node: ast.AST, parent: ast.AST, name: str) -> bool:
    """Text for people, annotations and decorators, which no test should pin down or which mean nothing at run time."""
    if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)) or name in ("annotation", "returns", "decorator_list"):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring
    if isinstance(parent, ast.Raise):
        return True
    if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Call, ast.Subscript)):  # a TypeVar, a Literal
        called = node.value.func if isinstance(node.value, ast.Call) else node.value.value
        return isinstance(called, ast.Name) and called.id in ("TypeVar", "Literal")
    return False


def mutants_of(file: str) -> list[Mutant]:
    """All mutants of a file, in the order of its lines."""
    tree = ast.parse((ROOT / PACKAGE / file).read_text(encoding="utf-8"))
    found: list[Mutant] = []
    counts: dict[tuple[str, str, str], int] = {}

    def visit(node: ast.AST, place: str, statement: ast.stmt | None) -> None:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            place = f"{place}.{node.name}".lstrip(".")
        if isinstance(node, ast.stmt):
            statement = node
        for name, value in ast.iter_fields(node):
            listed = value if isinstance(value, list) else [value]
            for i, child in enumerate(listed):
                if not isinstance(child, ast.AST) or left_alone(child, node, name):
                    continue
                for other in changed(child):
                    add(node, name, i if isinstance(value, list) else None, child, other, place, statement)
                visit(child, place, statement)

    def add(
        parent: ast.AST, name: str, i: int | None, old: ast.AST, new: ast.AST, place: str, statement: ast.stmt | None
    ) -> None:
        held = getattr(parent, name)
        setattr(parent, name, new) if i is None else held.__setitem__(i, new)
        after, source = ast.unparse(ast.fix_missing_locations(new)), ast.unparse(ast.fix_missing_locations(tree))
        setattr(parent, name, old) if i is None else held.__setitem__(i, old)
        before = ast.unparse(old)
        if isinstance(old, (ast.If, ast.While)):
            before, after = (text.partition(":\n")[0] for text in (before, after))
        within = old if isinstance(old, ast.stmt) else statement
        if within is None:
            return
        body = getattr(within, "body", None)  # of a statement that holds others, what stands before them
        last = max(within.lineno, body[0].lineno - 1) if body else within.end_lineno or within.lineno
        count = counts.get((place, before, after), 0)
        counts[place, before, after] = count + 1
        line = getattr(old, "lineno", within.lineno)
        found.append(Mutant(file, place, line, list(range(within.lineno, last + 1)), before, after, count, source))

    visit(tree, "", None)
    return sorted(found, key=lambda m: m.line)


# --- running tests ---------------------------------------------------------------------------------------------------


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
    """What the unchanged source told about its tests."""

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
    data, told = tree / "lines", tree / "told.json"
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
        told.write_text(json.dumps([plugin.seconds, plugin.shared, contexts]), encoding="utf-8")
        return code

    _, status = os.waitpid(fork(job), 0)
    if status != 0:
        raise SystemExit(f"{log.read_text(encoding='utf-8')[-4000:]}\n{file}: its tests do not pass on the unchanged source")
    seconds, shared, contexts = json.loads(told.read_text(encoding="utf-8"))
    lines = {int(line): set(names) for line, names in contexts.items()}
    for together in shared.values():
        for names in lines.values():
            if names & set(together):
                names |= set(together)
    return Known(tests, seconds, {line: sorted(names) for line, names in lines.items()})


def start(mutant: Mutant, told: Known, tree: Path) -> tuple[int, int]:
    """A process that tries one mutant, and how many ticks it may take."""
    order = told.order(mutant.lines)
    target = tree / PACKAGE / mutant.file
    target.write_text(mutant.source, encoding="utf-8")
    patience = int(20 + 10 * sum(told.seconds.get(name, 0.0) for name in order))
    needed = {name.partition("::")[0] for name in order}
    files = [test for test in told.tests if test in needed]  # the source last: a doctest binds its module anew in the package

    def job() -> int:
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        return run_in(tree, files, Chosen(order), patience)

    return fork(job), 20 * 3 * patience


def tried(todo: list[Mutant], told: Known, trees: list[Path]) -> None:
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
            if not told.order(mutant.lines):
                mutant.end = "no test"
                continue
            tree = free.pop()
            pid, patience = start(mutant, told, tree)
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


# --- telling ---------------------------------------------------------------------------------------------------------


def shown(mutant: Mutant) -> str:
    one_line = [" ".join(text.split()) for text in (mutant.before, mutant.after)]
    return f"{mutant.file}:{mutant.line} {mutant.place}: `{one_line[0]}` → `{one_line[1]}`"


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z, share = 1.96, hits / n
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (share + z**2 / (2 * n) - half) / (1 + z**2 / n), (share + z**2 / (2 * n) + half) / (1 + z**2 / n)


def table(found: list[Mutant], totals: dict[str, int]) -> None:
    print("\n| file | mutants | tried | killed | of these by time | survived | share killed |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    files = list(dict.fromkeys(m.file for m in found))
    for file in [*files, "all"]:
        those = [m for m in found if file in (m.file, "all")]
        total = totals[file] if file in totals else sum(totals.values())
        late = sum(m.end == "timeout" for m in those)
        killed = late + sum(m.end == "killed" for m in those)
        low, high = wilson(killed, len(those))
        sampled = "" if len(those) == total else f" ({low:.3f} … {high:.3f})"
        print(
            f"| {file} | {total:,} | {len(those):,} | {killed:,} | {late:,} | {len(those) - killed:,} "
            f"| {killed / len(those):.3f}{sampled} |"
        )
    print()
    for mutant in found:
        if mutant.end in ("survived", "no test"):
            print(f"- {shown(mutant)}" + (" (no test runs it)" if mutant.end == "no test" else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="under src/lazyrich")
    parser.add_argument("--share", type=float, default=1.0, help="of the mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--tests", nargs="+", help="in place of those of each file")
    parser.add_argument("--out", type=Path, help="where to keep what was found (JSON)")
    parser.add_argument("--again", type=Path, help="found before: tries its survivors again and writes it anew")
    parser.add_argument("--show", type=Path, help="found before: prints its tables")
    given = parser.parse_args()
    out = given.again or given.show or given.out
    old = json.loads(out.read_text(encoding="utf-8")) if out and out.exists() else {"totals": {}, "mutants": []}
    ends = {(m["file"], m["place"], m["before"], m["after"], m["number"]): m["end"] for m in old["mutants"]}
    totals: dict[str, int] = dict(old["totals"])
    found = [Mutant(**m, source="") for m in old["mutants"]]
    if given.show:
        table(found, totals)
        return
    survivors = {key for key, end in ends.items() if end in ("survived", "no test")}
    files = given.files or list(dict.fromkeys(key[0] for key in survivors))
    for name in FIRST:
        importlib.import_module(name)
    gc.freeze()
    with tempfile.TemporaryDirectory() as folder:
        trees = copies(Path(folder), given.jobs)
        for file in files:
            every = mutants_of(file)
            if given.again:
                todo = [m for m in every if m.key in survivors]
            else:
                draw = random.Random(f"{given.seed} {file}")  # noqa: S311
                count = math.ceil(given.share * len(every))
                todo = sorted(draw.sample(every, count), key=lambda m: m.line)
            if not todo:
                continue
            began = time.monotonic()
            told = known(file, trees[0], given.tests or tests_of(file))
            print(f"{file}: {len(todo)} of {len(every)} mutants, {len(told.seconds)} tests", flush=True)
            tried(todo, told, trees)
            for mutant in todo:
                if mutant.end == "no test" and ends.get(mutant.key) == "survived":
                    mutant.end = "survived"  # others run it
            print(f"{file}: {time.monotonic() - began:.0f} s", flush=True)
            totals[file] = len(every)
            again = {m.key for m in todo}
            kept = {m.key for m in every}
            before = [m for m in found if m.key not in again and (m.file != file or (given.again and m.key in kept))]
            found = [*before, *todo]
            found.sort(key=lambda m: (list(totals).index(m.file), m.line))
            if out:
                listed = [{k: v for k, v in asdict(m).items() if k != "source"} for m in found]
                out.write_text(json.dumps({"totals": totals, "mutants": listed}, indent=0), encoding="utf-8")
    table(found, totals)


if __name__ == "__main__":
    main()
