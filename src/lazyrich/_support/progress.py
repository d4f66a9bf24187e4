"""Progress: off by default in the library, on by default on the command line; a bar, or a few lines where that is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from .extras import needs
from .text import plain


class Bar(Protocol):
    """What work reports its progress to."""

    def update(self, n: int = 1) -> Any:
        """Count ``n`` more units as done."""
        ...

    def text(self, text: str) -> None:
        """Show what is being done."""
        ...

    def note(self, text: str) -> None:
        """Show an intermediate result."""
        ...


class _Silent:
    def update(self, n: int = 1) -> None:
        return None

    def text(self, text: str) -> None:
        return None

    def note(self, text: str) -> None:
        return None


class _Shown:
    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def update(self, n: int = 1) -> None:
        self.bar.update(n)

    def text(self, text: str) -> None:
        self.bar.set_description(plain(text))

    def note(self, text: str) -> None:
        self.bar.set_postfix_str(plain(text))


class _Lines:
    """A line for every ten per cent, or for every tenfold count where the total is unknown: a log file keeps every line."""

    def __init__(self, total: int | None, text: str, unit: str, done: int) -> None:
        self.total, self.label, self.unit, self.done = total, text, unit, done
        self.latest = ""
        self.next = self._next()

    def update(self, n: int = 1) -> None:
        self.done += n
        if self.done >= self.next:
            share = "" if not self.total else f" of {self.total} ({self.done / self.total:.0%})"
            line = f"{self.label}: {self.done}{share}{self.unit}{f', {self.latest}' if self.latest else ''}"
            sys.stderr.write(f"{plain(line)}\n")
            sys.stderr.flush()
            self.next = self._next()

    def text(self, text: str) -> None:
        self.label = text

    def note(self, text: str) -> None:
        self.latest = text

    def _next(self) -> float:
        if not self.total:
            return 10 ** len(str(self.done))
        return (self.done * 10 // self.total + 1) * self.total / 10


@contextmanager
def progress_bar(show: bool, *, total: int | None, text: str, unit: str, done: int = 0) -> Iterator[Bar]:
    """Progress on standard error, or nothing. The units in ``done`` were done before, so they do not count towards the speed."""
    if not show:
        yield _Silent()
    elif not sys.stderr.isatty():
        yield _Lines(total, text, unit, done)
    else:
        tqdm = needs("tqdm", "cli")
        with tqdm.tqdm(total=total, initial=done, desc=plain(text), unit=unit, leave=False, dynamic_ncols=True) as bar:
            yield _Shown(bar)
