"""Optional dependencies."""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import MissingExtraError


def needs(module: str, extra: str) -> ModuleType:
    """Imports an optional dependency, or says which extra brings it.

    Raises:
        MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise MissingExtraError(f'this needs {name}, which is not installed: pip install "lazyrich[{extra}]"') from error
