"""What the benchmarks of speed share: calls that take turns, their extra memory, a report with the machine it is from."""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

LEAST_REPETITIONS = 5
_PAUSE = 0.1  # seconds before each call, in which the threads of another library stop spinning


def in_turns(calls: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, float]:
    """Median seconds of each call. One is made beforehand; then all take turns, and every round begins with another."""
    if repetitions < LEAST_REPETITIONS:
        raise SystemExit(f"at least {LEAST_REPETITIONS} repetitions, got {repetitions}")
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for call in calls.values():
        call()
    for k in range(repetitions):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            time.sleep(_PAUSE)
            began = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def extra_memory(call: Callable[[], Any]) -> int | None:
    """Bytes that the process grew by at the worst moment of the call; None where the system does not tell, as Linux does."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not serve the call
        Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
        before = _status("VmRSS")
        call()
        return _status("VmHWM") - before
    except (OSError, AttributeError):
        return None


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def installed(package: str) -> str | None:
    """Version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class Report:
    """Lines that are printed as they come and kept for a file."""

    def __init__(self, title: str) -> None:
        self.lines: list[str] = []
        self.say(f"# {title}\n")

    def say(self, line: str = "") -> None:
        print(line, flush=True)
        self.lines.append(line)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        self.say(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
        for row in rows:
            self.say(f"| {' | '.join(row)} |")
        self.say()

    def machine(self, packages: Sequence[str]) -> None:
        """The processor and the versions."""
        found = {name: installed(name) for name in packages}
        listed = ", ".join(f"{name} {number}" for name, number in found.items() if number)
        self.say(f"{processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}; {listed}.\n")

    def save(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(self.lines).rstrip() + "\n", encoding="utf-8")
            print(f"written to {path}", file=sys.stderr)


def processor() -> str:
    """Its name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def threads(count: int) -> Any:
    """All numerical libraries on so many threads, for a ``with`` statement."""
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(count)
    return threadpool_limits(count)
