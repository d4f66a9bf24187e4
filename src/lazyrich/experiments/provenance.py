"""Where numbers come from: the commit of the code, the arrays of the data, the processor."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from .setup import Setup


def commit(except_for: str = "") -> tuple[str | None, bool | None]:
    """The commit that this package was imported from, and whether its files, except for one, are those of the commit.

    Both are None where git is not installed or the package is not part of a repository.
    """
    head = _git("rev-parse", "HEAD")
    if (
        head is None or _git("ls-files", "--error-unmatch", "provenance.py") is None
    ):  # a repository that ignores an installed copy
        return None, None
    files = [str(Path(__file__).parents[1]), *([f":(exclude){except_for}"] if except_for else [])]
    changes = _git("status", "--porcelain", "--", *files)
    return head, None if changes is None else not changes


def _git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run([git, *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def processor() -> str | None:
    """The name of the processor; None where the system does not report it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names[0] if names else platform.processor()) or None


def hashes_of_arrays(setups: Iterable[Setup], root: Path) -> dict[str, str]:
    """Name of each data set that is read -> SHA-256 of its arrays, before a seed chooses from them."""
    hashes: dict[str, str] = {}
    for setup in setups:
        name, arrays = setup.data.arrays(root)
        if arrays and name not in hashes:
            content = hashlib.sha256()
            for array in arrays:
                content.update(f"{array.dtype.str} {array.shape} ".encode())
                content.update(array.tobytes())
            hashes[name] = content.hexdigest()
    return hashes
