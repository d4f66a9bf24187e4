"""Errors of the library, of the user's code, of PyTorch and of the system as one sentence in the words of the command line."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path

from .._support.text import plain
from .words import in_options

OURS = Path(__file__).parents[1]
INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
OF_TORCH = (  # what PyTorch says, and what that means for a model and its data
    (
        r"mat1 and mat2 shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x(\d+)\)",
        r"a batch of --data does not fit MODEL: it gives \2 inputs to a linear layer that takes \3",
    ),
    (
        r"Given groups=.* to have (\d+) channels, but got (\d+) channels instead",
        r"a batch of --data does not fit MODEL: it gives \2 channels to a convolution that takes \1",
    ),
    (r".*out of memory", r"the memory of the device is too small: use smaller batches in --data, or another --device"),
)


class UsageError(Exception):
    """Arguments that can be parsed one by one and do not fit together."""


def sentence(error: BaseException, command: Callable[..., object] | None) -> str | None:
    """What an error means to the user of a command, safe to print; None for an error that only a bug in lazyrich explains."""
    message = _message(error)
    if message is None:
        return None
    message = plain(" ".join(message.split()))
    return message if command is None else in_options(message, command)


def located(error: BaseException) -> str:
    """An error in one line: its kind, its message, and the last line of the user's own code that it came through."""
    where = _users_line(error) or traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {_first_line(error)} ({where.filename}, line {where.lineno})"


def _message(error: BaseException) -> str | None:
    if type(error).__module__.startswith("lazyrich") or isinstance(error, KeyboardInterrupt):
        return str(error)
    if (worker := _in_a_worker(str(error))) is not None:
        return worker
    if _users_line(error) is not None:
        return f"your code raised {located(error)}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, RuntimeError):
        return _of_torch(_first_line(error))
    known = isinstance(error, (ImportError, OSError, MemoryError))
    return str(error) if known or (isinstance(error, (LookupError, TypeError, ValueError)) and _raised_here(error)) else None


def _in_a_worker(message: str) -> str | None:
    """What a worker process of a DataLoader sent: its message holds the traceback as text."""
    if not re.match(r"Caught \w+ in DataLoader worker process", message.strip("'\"")):
        return None
    lines = [(file, line) for file, line in re.findall(r'File "(.+?)", line (\d+)', message) if not _is_installed(file)]
    file, line = lines[-1] if lines else ("a worker process of the DataLoader", "unknown")
    return f"your code raised {message.strip().splitlines()[-1]} ({file}, line {line})"


def _of_torch(message: str) -> str:
    for form, words in OF_TORCH:
        if found := re.match(form, message):
            return f"{found.expand(words)} (PyTorch: {message})"
    return message


def _users_line(error: BaseException) -> traceback.FrameSummary | None:
    """The last line in the traceback, after lazyrich called it, of code that belongs to no installed package."""
    frames = traceback.extract_tb(error.__traceback__)
    last_of_ours = max((k for k, frame in enumerate(frames) if _is_ours(frame)), default=-1)
    return next((frame for frame in reversed(frames[last_of_ours + 1 :]) if not _is_installed(frame.filename)), None)


def _raised_here(error: BaseException) -> bool:
    return _is_ours(traceback.extract_tb(error.__traceback__)[-1])


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return Path(frame.filename).is_relative_to(OURS)


def _is_installed(filename: str) -> bool:
    inside = {"site-packages", "dist-packages"} & {*Path(filename).parts}
    return bool(inside) or filename.startswith((*INSTALLED, "<"))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")
