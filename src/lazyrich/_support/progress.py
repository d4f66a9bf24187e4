"""The progress bar: off by default in the library, on by default on the command line."""

from __future__ import annotations

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


@contextmanager
def progress_bar(show: bool, *, total: int | None, text: str, unit: str, done: int = 0) -> Iterator[Bar]:
    """A bar on standard error, or nothing. The units in ``done`` were done before, so they do not count towards the speed."""
    if not show:
        yield _Silent()
        return
    tqdm = needs("tqdm", "cli")
    with tqdm.tqdm(total=total, initial=done, desc=plain(text), unit=unit, leave=False, dynamic_ncols=True) as bar:
        yield _Shown(bar)
