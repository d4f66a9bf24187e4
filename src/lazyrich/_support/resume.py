"""A folder for output: is it free, and do the results that it holds belong to the work that wants to continue them?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError


def check_free(out: Path, occupied: bool, resume: bool, content: str) -> None:
    """Refuse a folder that holds results, unless they are to be continued.

    Args:
        out: the folder that the error names.
        occupied: whether it holds results.
        content: what these are, "runs" for example.

    Raises:
        DataError: it holds results and ``resume`` is False.
    """
    if occupied and not resume:
        raise DataError(f"{out} holds {content} already: pass resume=True to continue, or another out=")


def check_same(folder: Path, stored: Mapping[str, Any], ours: Mapping[str, Any], content: str) -> None:
    """Refuse to continue results that were made with other settings.

    Args:
        folder: the folder that the error names.
        stored: their settings, as they were read from JSON.
        ours: the settings of the work that wants to continue them.
        content: what the folder holds where these differ, "a run with another setup" for example.

    Raises:
        DataError: they differ; the message names the entries, and both values of the first.
    """
    plain = json.loads(json.dumps(ours))  # tuples become lists, as in the file
    names = sorted(name for name in {*plain, *stored} if plain.get(name) != stored.get(name))
    if names:
        first = f"{names[0]} is {stored.get(names[0])} there and {plain.get(names[0])} here"
        raise DataError(
            f"{folder} holds {content}: {', '.join(names)} differ ({first}); pass another out=, or delete that folder"
        )
