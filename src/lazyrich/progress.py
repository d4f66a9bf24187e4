"""The one progress object: off by default in the library, on in the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ._extras import needs


class Bar(Protocol):
    """What a step of work reports to."""

    def update(self, n: int = 1) -> Any:
        """Counts ``n`` more done."""
        ...


class _Silent:
    def update(self, n: int = 1) -> None:
        return None


@contextmanager
def progress_bar(show: bool, *, total: int | None, text: str, unit: str) -> Iterator[Bar]:
    """A bar on standard error, or nothing."""
    if not show:
        yield _Silent()
        return
    tqdm = needs("tqdm", "cli")
    with tqdm.tqdm(total=total, desc=text, unit=unit, leave=False, dynamic_ncols=True) as bar:
        yield bar
