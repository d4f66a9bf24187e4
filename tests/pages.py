"""Find the Python blocks of a page, run them in order in one namespace, and compare their output with the text on the page."""

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
NUMBER = re.compile(r"\d[\d,]*\.\d+|\d+(?= of \d)")  # decimals, and ranks: after training they depend on rounding


@dataclass(frozen=True)
class Block:
    """A block of Python.

    Attributes:
        line: number of lines of the page before its first line.
        code: as printed.
        built: whether it runs when the documentation is built.
        expected: the ``text`` block directly below: printed text, warnings, and last the error that it raises; or None.
    """

    line: int
    code: str
    built: bool
    expected: str | None


def python_blocks(page: Path) -> list[Block]:
    """Return all blocks of a page.

    Raises:
        ValueError: a block does not start with "```python" at the start of a line, so that nothing would run it.
    """
    text = page.read_text(encoding="utf-8")
    blocks = [
        Block(text.count("\n", 0, match.start(2)), match[2], match[1] is not None, match[3]) for match in BLOCK.finditer(text)
    ]
    fences = [text.count("\n", 0, match.end()) + 1 for match in ANY_FENCE.finditer(text)]
    unknown = set(fences) - {block.line for block in blocks}
    if unknown:
        raise ValueError(f"{page}, line {min(unknown)}: nothing runs this block; write it as ```python, at the start of a line")
    return blocks


def run(page: Path, names: dict[str, Any]) -> None:
    """Run the blocks of a page that the build of the site does not run, and the doctests of what they define.

    A block that begins with "# name.py" is also written to that file in the current folder, so that later blocks can import it.
    """
    module = types.ModuleType(page.stem.replace("-", "_"))
    vars(module).update(names)
    for block in python_blocks(page):
        if not block.built:
            if file := FILE.match(block.code):
                Path(file[1]).write_text(block.code, encoding="utf-8")
            output = _output(block, page, module)
            if block.expected is not None:
                assert_same_text(output, block.expected)
    assert doctest.testmod(module).failed == 0


def _output(block: Block, page: Path, module: types.ModuleType) -> str:
    printed, error = io.StringIO(), []
    with redirect_stdout(printed), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", RankWarning)
        try:
            exec(compile("\n" * block.line + block.code, page, "exec"), vars(module))  # noqa: S102
        except Exception as raised:
            if block.expected is None:
                raise
            error = [f"{type(raised).__name__}: {raised}"]
    ours = [w for w in warned if issubclass(w.category, RankWarning)]  # other packages' warnings differ by version
    return "\n".join([printed.getvalue(), *(f"{w.category.__name__}: {w.message}" for w in ours), *error])


def assert_same_text(output: str, expected: str) -> None:
    """Assert that the words are the same, whatever the line breaks, and that decimals and ranks differ only by rounding."""
    words = [re.sub("─+", "─", " ".join(text.split())) for text in (output, expected)]
    assert NUMBER.sub("#", words[0]) == NUMBER.sub("#", words[1])
    numbers = [[float(number.replace(",", "")) for number in NUMBER.findall(text)] for text in words]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=0.005)
