"""Loads a user's weights into a user's model; never runs code from a file."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ._extras import needs
from .errors import CheckpointError

_NESTED = ("state_dict", "model_state_dict", "model", "module", "weights")
_PREFIXES = ("module.", "_orig_mod.")


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Loads a ``.safetensors`` file or a PyTorch checkpoint into ``model``, in place.

    A PyTorch file may hold the state dict itself or nest it under a usual name (state_dict, model, …); prefixes that
    DataParallel and torch.compile add are taken off. PyTorch files are read with weights only.

    Raises:
        CheckpointError: missing file, a pickle that holds more than weights, weights that do not fit the model.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    state = _state_dict(_read(path), path)
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    before = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    try:
        model.load_state_dict(state)
    except Exception as error:  # RuntimeError where shapes or names differ; tensors that are damaged raise others
        model.load_state_dict(before, strict=False)  # what fitted was copied before the error
        raise CheckpointError(f"checkpoint {path} does not fit {type(model).__name__}: {error}") from error


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        safetensors = needs("safetensors.torch", "cli")
        try:
            return safetensors.load_file(path)
        except Exception as error:  # safetensors raises its own and OSError kinds
            raise CheckpointError(f"checkpoint {path} is not a safetensors file: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the pickle protocol of files that are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).replace("\n", " ").split("Please file")[0][:600]
        raise CheckpointError(
            f"checkpoint {path} was refused: it is not a file of weights alone, and loading anything else could run code that "
            f"is hidden in it. Save it again with torch.save(model.state_dict(), path) or as safetensors. Reason: {reason}"
        ) from error
    except Exception as error:  # a damaged file ends in whatever its reading stumbles over
        raise CheckpointError(f"checkpoint {path} is damaged or not a PyTorch checkpoint: {error}") from error


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping) and not _is_state_dict(content):
        nested = next((content[name] for name in _NESTED if isinstance(content.get(name), Mapping)), None)
        if nested is None:
            raise CheckpointError(f"checkpoint {path} holds {sorted(map(str, content))[:10]} and no state dict among {_NESTED}")
        content = nested
    if not isinstance(content, Mapping):
        raise CheckpointError(f"checkpoint {path} holds a {type(content).__name__}, not a state dict")
    return dict(content)


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(k, str) for k in content) and all(isinstance(v, Tensor) for v in content.values())
