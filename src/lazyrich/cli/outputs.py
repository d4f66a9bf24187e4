"""What a command is going to write, checked before it starts to work."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from ..errors import DataError


def check_folder(out: Path, files: Iterable[str] = (), *, overwrite: bool = True) -> None:
    """Check that files can be written to a folder, and that they replace nothing unless they may. Nothing is left behind.

    Args:
        out: the folder, which need not exist.
        files: names that will be written.
        overwrite: whether they may replace earlier ones.

    Raises:
        DataError: the folder cannot be written to, or holds one of the files and ``overwrite`` is False.
    """
    if not overwrite and (earlier := [name for name in files if (out / name).exists()]):
        raise DataError(f"{out} holds {', '.join(earlier)} already: pass overwrite=True to replace it, or another out=")
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise DataError(f"out={str(out)!r} cannot be written to: {error.strerror}") from error
    finally:
        for folder in missing:
            if folder.exists():
                folder.rmdir()
