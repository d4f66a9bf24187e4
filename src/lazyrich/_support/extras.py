"""Optional dependencies."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from ..errors import MissingExtraError


def needs(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        MissingExtraError: it is not installed; the message names the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module, extra) from error


def wants(module: str, extra: str) -> None:
    """Check for an optional dependency without importing it.

    Raises:
        MissingExtraError: it is not installed; the message names the extra that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise _missing(module, extra)


def _missing(module: str, extra: str) -> MissingExtraError:
    name = module.partition(".")[0]
    return MissingExtraError(f'this needs {name}, which is not installed: pip install "lazyrich[{extra}]"')
