"""Random networks under `measure`: a right number, or an error by name, and everything left as it was.

Every case draws a network, weights, data and options (`tests/random_networks.py`), measures it, and holds the outcome against
plain hooks of its own and the slow float64 reference (`tests/capture_trial.py`). Cases run in processes of their own, so that a
crash of the interpreter or a call that does not return is a finding too.

    python benchmarks/robustness/fuzz_capture.py 10000           # cases 0 … 9999
    python benchmarks/robustness/fuzz_capture.py 1 4711          # one of them again, with its traceback
"""

from __future__ import annotations

import argparse
import faulthandler
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from capture_trial import Finding, trial  # pyright: ignore[reportMissingImports]

CHUNK = 500
PATIENCE = 40.0  # seconds of the processor: a case that takes longer is ended, with a traceback
STUCK = 900.0  # of the clock: so is one that waits without computing; other work on the machine may hold it up


def run(first: int, count: int, progress: Path | None) -> int:
    """Tries so many cases here; prints each finding, and at the end how many ended how."""
    torch.set_num_threads(1)
    ends: Counter[str] = Counter()
    faulthandler.register(signal.SIGPROF, chain=True)  # the signal itself then ends the process
    for case in range(first, first + count):
        if progress is not None:
            progress.write_text(str(case))
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
        faulthandler.dump_traceback_later(STUCK, exit=True)
        try:
            ends[trial(case)] += 1
        except Finding as finding:
            ends["FINDING"] += 1
            print(finding, flush=True)
            if count == 1:
                raise
    signal.setitimer(signal.ITIMER_PROF, 0)
    faulthandler.cancel_dump_traceback_later()
    print(*(f"\t{count}\t{end}" for end, count in ends.items()), sep="\n")
    return int(ends["FINDING"] > 0)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", type=int)
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here is not None or given.cases == 1:
        return run(given.first, given.cases, given.here)
    ends: Counter[str] = Counter()
    began, failed = time.monotonic(), False
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "case"
        for start in range(given.first, given.first + given.cases, CHUNK):
            count = min(CHUNK, given.first + given.cases - start)
            command = [sys.executable, __file__, str(count), str(start), "--here", str(place)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            failed |= done.returncode != 0
            told = 0
            for line in done.stdout.splitlines():
                if line.startswith("\t"):
                    _, number, end = line.split("\t")
                    ends[end] += int(number)
                    told += int(number)
                else:
                    print(line, flush=True)
            if told != count:  # it ended before its last case
                failed = True
                print(f"case {place.read_text()}: ended by {done.returncode}: {done.stderr[-2000:]}", flush=True)
    for end, number in ends.most_common():
        print(f"{number:>7,}  {end}")
    print(f"{given.cases:,} cases from {given.first:,} in {(time.monotonic() - began) / 60:.1f} min")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
