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
import gc
import importlib
import importlib.util
import json
import math
import random
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from mutant_trials import FIRST, copies, known, tests_of, tried
from mutation import Mutant, mutants_of, shown


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
    parser.add_argument("--again", type=Path, help="found before: tries its survivors again and replaces the file")
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
            known_tests = known(file, trees[0], given.tests or tests_of(file))
            print(f"{file}: {len(todo)} of {len(every)} mutants, {len(known_tests.seconds)} tests", flush=True)
            tried(todo, known_tests, trees)
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
