"""Which checkpoints are meant, and the step of each, from their names."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from .._support.files import natural
from ..errors import CheckpointError
from ..model.checkpoints import is_checkpoint_folder

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_NO_WEIGHTS = re.compile(r"(optimizer|scheduler|scaler|rng_state\w*|training_args)\.(pt|pth|bin)")  # a trainer's other files
_AFTER_STEP = re.compile(r"(?<![a-z])steps?[ =_-]?(\d+)", re.IGNORECASE)
_WHOLE = re.compile(r"(?<!\d)(?<!\d\.)\d+(?!\.?\d)")  # no part of a decimal number


def checkpoint_steps(checkpoints: Paths, steps: Sequence[int] | None = None) -> dict[int, Path]:
    """Step -> checkpoint, in the order of the steps.

    Args:
        checkpoints: files, folders as Transformers saves them, folders of those, or glob patterns.
        steps: one for each; by default their names tell: the number after "step", or else the last whole number.

    Raises:
        CheckpointError: none there, no number in a name, two of the same step, or another number of ``steps``.
    """
    given = [checkpoints] if isinstance(checkpoints, (str, os.PathLike)) else list(checkpoints)
    found = [path for one in given for path in _expanded(os.fspath(one))]
    if not found:
        raise CheckpointError("no checkpoints were given: name files, folders or a glob pattern")
    if steps is None:
        numbers = [_step(path) for path in found]
    elif len(steps) != len(found):
        names = ", ".join(path.name for path in found)
        raise CheckpointError(f"steps: {len(steps)} were given for {len(found)} checkpoints ({names}); give one for each")
    else:
        numbers = [int(step) for step in steps]
    if min(numbers) < 0:
        raise CheckpointError(f"steps: must not be negative, got {min(numbers)}")
    at: dict[int, Path] = {}
    for step, path in zip(numbers, found, strict=True):
        if step in at:
            raise CheckpointError(f"{at[step]} and {path} are both of step {step}: leave one out, or pass steps=")
        at[step] = path
    return dict(sorted(at.items()))


def _expanded(given: str) -> Iterator[Path]:
    """The checkpoints that one path or pattern names, in natural order."""
    path = Path(given).expanduser()
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from _inside(path)
    elif glob.has_magic(given):
        matches = [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - Path.glob takes no absolute one
        matches = [match for match in matches if not _NO_WEIGHTS.fullmatch(match.name)]
        if not matches:
            raise CheckpointError(f"checkpoints: nothing matches {given}")
        for match in sorted(matches, key=lambda path: natural(str(path))):
            yield from [match] if match.is_file() else _inside(match)
    else:
        raise CheckpointError(f"checkpoint {given} does not exist")


def _inside(folder: Path) -> list[Path]:
    """The checkpoint folders in a folder, or itself if it is one, or else the files."""
    entries = sorted(folder.iterdir(), key=lambda path: natural(str(path)))
    folders = [entry for entry in entries if entry.is_dir() and is_checkpoint_folder(entry)]
    if folders or is_checkpoint_folder(folder):
        return folders or [folder]
    files = [e for e in entries if e.is_file() and e.suffix in SUFFIXES and not _NO_WEIGHTS.fullmatch(e.name)]
    if not files:
        raise CheckpointError(f"{folder} holds no checkpoints: {', '.join(SUFFIXES)}, or Transformers' folders")
    return files


def _step(path: Path) -> int:
    name = path.name if path.is_dir() else path.stem
    numbers = _AFTER_STEP.findall(name) or _WHOLE.findall(name)
    if not numbers:
        raise CheckpointError(f"the name of {path} holds no number for its step: leave it out, or pass steps=")
    return int(numbers[-1])
