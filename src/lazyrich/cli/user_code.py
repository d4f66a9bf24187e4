"""The model and the data of a user, built by functions that the command line names as ``package.module:function``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._support.text import did_you_mean
from ..errors import DataError
from .failures import located

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
    if module_name.endswith(".py"):
        module_name = module_name.removesuffix(".py").replace("/", ".")
        raise DataError(f"{argument} names a module, not a file: write {module_name}:{function_name}")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise DataError(f"{argument}: importing {module_name!r} raised {located(error)}") from error
        raise DataError(f"{argument}: there is no module {error.name!r}; run from the folder that holds it") from error
    except (Exception, SystemExit) as error:  # user code can raise anything, and a script may end the process
        raise DataError(f"{argument}: importing {module_name!r} raised {located(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [name for name in vars(module) if callable(getattr(module, name)) and not name.startswith("_")]
        hint = did_you_mean(function_name, names)
        raise DataError(f"{argument}: {module_name} has no function {function_name!r}{hint} It has: {', '.join(names) or 'none'}")
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise DataError(f"{argument}: {target} raised {located(error)}") from error


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
