"""The Python blocks of a page: found, run in order in one namespace, and held to what the page says that they print."""

from __future__ import annotations

import doctest
import io
import re
import types
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lazyrich import RankWarning

ANY_FENCE = re.compile(r"^[-+*> ]*(?:```+|~~~+) *\{?[ .]*i?py", re.MULTILINE | re.IGNORECASE)
BLOCK = re.compile(r"^```python( exec=[^\n]*)?\n(.*?)^```\n(?:\n?```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")
NUMBER = re.compile(r"\d[\d,]*\.\d+|\d+(?= of \d)")  # decimal fractions, and ranks: after a training they hang on its last places


@dataclass(frozen=True)
class Block:
    """A block of Python.

    Attributes:
        line: how many lines of the page come before its first.
        code: as printed.
        built: whether it runs when the documentation is built.
        says: the ``text`` block right below it: what it prints, warns of and, last, the error that it ends with; or None.
    """

    line: int
    code: str
    built: bool
    says: str | None


def python_blocks(page: Path) -> list[Block]:
    """All of a page.

    Raises:
        ValueError: a block that is written otherwise than "```python" at the start of a line, so that nothing would run it.
    """
    text = page.read_text(encoding="utf-8")
    found = [
        Block(text.count("\n", 0, match.start(2)), match[2], match[1] is not None, match[3]) for match in BLOCK.finditer(text)
    ]
    fences = [text.count("\n", 0, match.end()) + 1 for match in ANY_FENCE.finditer(text)]
    unknown = set(fences) - {block.line for block in found}
    if unknown:
        raise ValueError(f"{page}, line {min(unknown)}: nothing runs this block; write it as ```python, at the start of a line")
    return found


def run(page: Path, given: dict[str, Any]) -> None:
    """Runs the blocks of a page that the build of the documentation does not, and the doctests of what they define.

    What begins with a comment "# name.py" is written to that file of the current folder too, where blocks below may import it.
    """
    module = types.ModuleType(page.stem.replace("-", "_"))
    vars(module).update(given)
    for block in python_blocks(page):
        if not block.built:
            if file := FILE.match(block.code):
                Path(file[1]).write_text(block.code, encoding="utf-8")
            said = _said(block, page, module)
            if block.says is not None:
                assert_same_text(said, block.says)
    assert doctest.testmod(module).failed == 0


def _said(block: Block, page: Path, module: types.ModuleType) -> str:
    printed, error = io.StringIO(), []
    with redirect_stdout(printed), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", RankWarning)
        try:
            exec(compile("\n" * block.line + block.code, page, "exec"), vars(module))  # noqa: S102
        except Exception as raised:
            if block.says is None:
                raise
            error = [f"{type(raised).__name__}: {raised}"]
    ours = [w for w in warned if issubclass(w.category, RankWarning)]  # other packages' warnings differ by version
    return "\n".join([printed.getvalue(), *(f"{w.category.__name__}: {w.message}" for w in ours), *error])


def assert_same_text(said: str, expected: str) -> None:
    """The same words, wherever lines are broken, and fractions and ranks that differ by no more than other machines round."""
    words = [re.sub("─+", "─", " ".join(text.split())) for text in (said, expected)]
    assert NUMBER.sub("#", words[0]) == NUMBER.sub("#", words[1])
    numbers = [[float(number.replace(",", "")) for number in NUMBER.findall(text)] for text in words]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=0.005)
