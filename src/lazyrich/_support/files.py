"""Files that are complete or do not exist."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file through ``write``; a crash or a full disk leaves the old file or the new one, never a part of it.

    Raises:
        OSError: it cannot be written; the message names the file, and nothing of it remains.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):  # where there is no folder, there is no partial file
            partial.unlink()
        if isinstance(error, OSError) or "write" in str(error):  # torch.save wraps the OSError in a RuntimeError
            raise OSError(getattr(error, "errno", None), f"cannot write {path}: {_reason(error)}") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file; a crash or a full disk leaves the old file or the new one."""
    write_whole(path, lambda file: file.write(text.encode()))


def folder_name(name: str) -> str:
    """A folder name: lower-case letters, digits and dots; each run of other characters becomes a dash.

    >>> folder_name("MLP, decay 1e-5")
    'mlp-decay-1e-5'
    """
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key under which 9 comes before 10.

    >>> sorted(["step-10", "step-9", "step"], key=natural)
    ['step', 'step-9', 'step-10']
    """
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
