"""The model and the data of a user, built by functions that the command line names as ``package.module:function``."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError

if TYPE_CHECKING:
    from torch import nn


def build(target: str, argument: str) -> Any:
    """Call the function that ``package.module:function`` names; modules in the current folder are found too.

    Args:
        target: what the user typed.
        argument: the option or positional argument that errors name.

    Raises:
        DataError: the module or the function does not exist, or it raises an error; the message says where.
    """
    module_name, colon, function_name = target.partition(":")
    if not colon or not module_name or not function_name:
        raise DataError(f"{argument} must be package.module:function, got {target!r}")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise DataError(f"{argument}: cannot import {module_name!r} ({error}); run from the folder that holds it") from error
    except Exception as error:  # user code can raise anything
        raise DataError(f"{argument}: importing {module_name!r} raised {_located(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        names = ", ".join(n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_")) or "none"
        raise DataError(f"{argument}: {module_name} has no function {function_name!r}; it has: {names}")
    try:
        return function()
    except Exception as error:
        raise DataError(f"{argument}: {target} raised {_located(error)}") from error


def build_model(target: str) -> nn.Module:
    """Build the model that the argument MODEL names.

    Raises:
        DataError: as :func:`build`, or the function returns something else.
    """
    from torch import nn

    model = build(target, "MODEL")
    if not isinstance(model, nn.Module):
        raise DataError(f"MODEL: {target} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _located(error: Exception) -> str:
    """An error in one line: its kind, its message, and the line of code that raised it."""
    raised_at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({raised_at.filename}, line {raised_at.lineno})"
