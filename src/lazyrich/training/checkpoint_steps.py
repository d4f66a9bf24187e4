"""The checkpoints that paths and patterns name, and the step of each, from its name."""

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
_NO_WEIGHTS = re.compile(r"(optimizer|scheduler|scaler|rng_state\w*|training_args)\.(pt|pth|bin)")  # other files of a trainer
_AFTER_STEP = re.compile(r"(?<![a-z])steps?[ =_-]?(\d+)", re.IGNORECASE)
_WHOLE = re.compile(r"(?<!\d)(?<!\d\.)\d+(?!\.?\d)")  # not a part of a decimal number


def checkpoint_steps(checkpoints: Paths, steps: Sequence[int] | None = None) -> dict[int, Path]:
    """Step -> checkpoint, in the order of the steps.

    Args:
        checkpoints: files, folders as Transformers saves them, folders of those, or glob patterns.
        steps: one for each checkpoint; by default the number after "step" in its name, or else the last whole number in it.

    Raises:
        CheckpointError: no checkpoints, a name without a number, two checkpoints of one step, or too few or too many ``steps``.
    """
    patterns = [checkpoints] if isinstance(checkpoints, (str, os.PathLike)) else list(checkpoints)
    paths = [path for pattern in patterns for path in _expanded(os.fspath(pattern))]
    if not paths:
        raise CheckpointError("no checkpoints were given: name files, folders or a glob pattern")
    if steps is None:
        numbers = [_step(path) for path in paths]
    elif len(steps) != len(paths):
        names = ", ".join(path.name for path in paths)
        raise CheckpointError(f"steps: {len(steps)} were given for {len(paths)} checkpoints ({names}); give one for each")
    else:
        numbers = [int(step) for step in steps]
    if min(numbers) < 0:
        raise CheckpointError(f"steps: must not be negative, got {min(numbers)}")
    by_step: dict[int, Path] = {}
    for step, path in zip(numbers, paths, strict=True):
        if step in by_step:
            raise CheckpointError(f"{by_step[step]} and {path} are both of step {step}: leave one out, or pass steps=")
        by_step[step] = path
    return dict(sorted(by_step.items()))


def _expanded(pattern: str) -> Iterator[Path]:
    """The checkpoints that one path or glob pattern names, in natural order."""
    path = Path(pattern).expanduser()
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from _inside(path)
    elif glob.has_magic(pattern):
        matches = [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - Path.glob takes no absolute pattern
        matches = [match for match in matches if not _NO_WEIGHTS.fullmatch(match.name)]
        if not matches:
            raise CheckpointError(f"checkpoints: nothing matches {pattern}")
        for match in sorted(matches, key=lambda path: natural(str(path))):
            yield from [match] if match.is_file() else _inside(match)
    else:
        raise CheckpointError(f"checkpoint {pattern} does not exist")


def _inside(folder: Path) -> list[Path]:
    """The checkpoint folders in a folder; else the folder itself, if it is one; else the checkpoint files in it."""
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
