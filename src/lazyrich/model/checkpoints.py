"""Loads a user's weights into a user's model; never runs code from a file."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._support.extras import needs
from .._support.names import without_wrappers
from .._support.stored import read_json
from ..errors import CheckpointError, DataError

_NESTED = ("state_dict", "model_state_dict", "model", "module", "weights")
_WHOLE = ("model.safetensors", "pytorch_model.bin")  # what Transformers writes into a folder


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Loads a ``.safetensors`` file, a PyTorch or Lightning checkpoint, or a folder of Transformers into ``model``, in place.

    A PyTorch file may hold the state dict itself or nest it under a usual name (state_dict, model, …); prefixes that
    DataParallel and torch.compile add are taken off, and any other that all names have where the model's own then remain, as
    with the attribute under which a LightningModule holds its network. PyTorch files are read with weights only.

    Raises:
        CheckpointError: missing file, a pickle that holds more than weights, weights that do not fit the model.
    """
    state: dict[str, Tensor] = {}
    for file in weight_files(path):
        state |= _state_dict(_read(file), file)
    state = _named_as(model, state)
    before = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    try:
        model.load_state_dict(state)
    except Exception as error:  # RuntimeError where shapes or names differ; tensors that are damaged raise others
        model.load_state_dict(before, strict=False)  # what fitted was copied before the error
        raise CheckpointError(f"checkpoint {path} does not fit {type(model).__name__}: {error}") from error


def is_checkpoint_folder(path: Path) -> bool:
    """Whether it is a folder of weights as Transformers saves them."""
    return any((path / f"{name}{end}").is_file() for name in _WHOLE for end in ("", ".index.json"))


def weight_files(path: Path) -> list[Path]:
    """The file itself, or what a folder of Transformers holds: one file or several with an index.

    Raises:
        CheckpointError: nothing there, a damaged index, a part that is missing.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {path} does not exist")
    for name in _WHOLE:
        if (path / name).is_file():
            return [path / name]
        if (path / f"{name}.index.json").is_file():
            return _parts(path / f"{name}.index.json")
    raise CheckpointError(f"checkpoint {path} is a folder without {' or '.join(_WHOLE)}")


def _parts(index: Path) -> list[Path]:
    try:
        names = sorted({Path(str(name)).name for name in read_json(index)["weight_map"].values()})
    except (DataError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {index.parent} has a damaged index, {index.name}: {error}") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing or not names:
        raise CheckpointError(f"checkpoint {index.parent} lacks {', '.join(missing) or 'all parts'} that {index.name} names")
    return [index.parent / name for name in names]


def _named_as(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the model's names; those that are tied to one that is there, and were not saved twice, added."""
    wanted = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    own = {inner: name for name, inner in without_wrappers(wanted).items()}
    inner = without_wrappers(state)
    prefix = next(iter(inner.values()), "").partition(".")[0] + "."
    if all(name.startswith(prefix) for name in inner.values()):
        shorter = {name: value.removeprefix(prefix) for name, value in inner.items()}
        inner = shorter if {*shorter.values()} == own.keys() else inner
    state = {name if name in wanted else own.get(inner[name], name): value for name, value in state.items()}
    held = {_place(wanted[name]): value for name, value in state.items() if name in wanted}
    return state | {name: held[_place(value)] for name, value in wanted.items() if name not in state and _place(value) in held}


def _place(value: Tensor) -> tuple[int, torch.Size, torch.device]:
    return value.data_ptr(), value.shape, value.device


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
