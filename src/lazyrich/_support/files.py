"""Files that are whole or not there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file through ``write``; a crash or a full disk leaves the old file or the new one, never half of one.

    Raises:
        OSError: it cannot be written; names the file, and what was written of it is gone.
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
        with suppress(OSError):  # where the folder is none, there is nothing to take away
            partial.unlink()
        if isinstance(error, OSError) or "write" in str(error):  # torch.save wraps what the disk says in a RuntimeError
            raise OSError(getattr(error, "errno", None), f"cannot write {path}: {_reason(error)}") from error
        raise


def write_text(path: Path, text: str) -> None:
    """The same for text."""
    write_whole(path, lambda file: file.write(text.encode()))


def folder_name(name: str) -> str:
    """A name as that of a folder: small letters, digits and points, all else a dash."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts 9 before 10.

    >>> sorted(["step-10", "step-9", "step"], key=natural)
    ['step', 'step-9', 'step-10']
    """
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
