"""Optional dependencies."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from ..errors import MissingExtraError


def needs(module: str, extra: str) -> ModuleType:
    """Imports an optional dependency, or says which extra brings it.

    Raises:
        MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module, extra) from error


def wants(module: str, extra: str) -> None:
    """Says which extra brings an optional dependency, where that is missing, but does not import it.

    Raises:
        MissingExtraError: the module is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise _missing(module, extra)


def _missing(module: str, extra: str) -> MissingExtraError:
    name = module.partition(".")[0]
    return MissingExtraError(f'this needs {name}, which is not installed: pip install "lazyrich[{extra}]"')
