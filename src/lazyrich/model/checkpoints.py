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


def load_checkpoint(model: nn.Module, path: Path, *, key: str | None = None, strict: bool = True) -> tuple[str, ...]:
    """Load a ``.safetensors`` file, a PyTorch or Lightning checkpoint, or a folder of Transformers into ``model``, in place.

    A PyTorch file may hold the state dict itself or nest it under a usual name (state_dict, model, …). Prefixes that
    DataParallel, torch.compile and checkpoint wrappers add are removed wherever they are, and so is any other prefix under which
    all names of the model are found, such as the attribute in which a LightningModule holds its network. Folders of
    Transformers whose names differ are read as ``from_pretrained`` reads them. PyTorch files are read with weights only.

    Args:
        key: the entry that holds the state dict, if it is under an unusual name; dots lead to inner entries.
        strict: whether entries that the model does not have are an error.

    Returns:
        Notes, such as on entries that were left out.

    Raises:
        CheckpointError: a missing file, a pickle that holds more than weights, an adapter without its model, weights that do not
            fit the model.
    """
    if (path / "adapter_config.json").is_file():
        raise CheckpointError(
            f"checkpoint {path} holds an adapter of PEFT, not the weights of a model: load it by "
            f"PeftModel.from_pretrained(model, {str(path)!r}) where the model is built"
        )
    state: dict[str, Any] = {}
    for file in weight_files(path):
        state |= _state_dict(_read(file), file, key)
    state = _named_as(model, state)
    if not _fits(model, state) and (loaded := _from_pretrained(model, path)) is not None:
        state = loaded
    surplus = [name for name in state if name not in model.state_dict()]
    hint = f"; strict=False leaves out {', '.join(surplus[:5])}" if surplus and strict else ""
    fitting = state if strict else {name: value for name, value in state.items() if name not in surplus}
    _load(model, fitting, f"checkpoint {path}", hint)
    return (f"checkpoint {path.name}: {len(surplus)} entries left out, such as {surplus[0]}",) if surplus else ()


def load_state(model: nn.Module, state: Mapping[str, Any], what: str) -> None:
    """Load a state dict into ``model``, in place, whatever prefixes wrappers have added to its names.

    Args:
        what: how an error calls it.

    Raises:
        CheckpointError: it does not fit the model.
    """
    _load(model, _named_as(model, dict(state)), what)


def _load(model: nn.Module, state: Mapping[str, Any], what: str, hint: str = "") -> None:
    before = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    try:
        model.load_state_dict(state)
    except Exception as error:  # RuntimeError where shapes or names differ; tensors that are damaged raise others
        model.load_state_dict(before, strict=False)  # what fitted was copied before the error
        raise CheckpointError(f"{what} does not fit {type(model).__name__}: {error}{hint}") from error


def _fits(model: nn.Module, state: Mapping[str, Any]) -> bool:
    wanted = model.state_dict()
    return wanted.keys() == state.keys() and all(
        not isinstance(value, Tensor) or getattr(state[name], "shape", None) == value.shape for name, value in wanted.items()
    )


def _from_pretrained(model: nn.Module, path: Path) -> dict[str, Any] | None:
    """The weights of a folder under today's names, as Transformers itself reads it; None if the model is not one of its own."""
    read = getattr(type(model), "from_pretrained", None)
    if read is None or not (path / "config.json").is_file():
        return None
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded, report = read(path, local_files_only=True, output_loading_info=True)
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} cannot be read by {type(model).__name__}.from_pretrained: {error}") from error
    if report["missing_keys"]:
        return None
    return dict(loaded.state_dict())


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


def _named_as(model: nn.Module, state: dict[str, Any]) -> dict[str, Any]:
    """The weights under the model's names; those that are tied to one that is there, and were not saved twice, added."""
    wanted = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    own = {inner: name for name, inner in without_wrappers(wanted).items()}
    inner = without_wrappers(state)
    prefixes = {name.removesuffix(first) for first in list(own)[:1] for name in inner.values() if name.endswith("." + first)}
    fitting = [prefix for prefix in sorted(prefixes) if {prefix + name for name in own} <= {*inner.values()}]
    if len(fitting) == 1 and not own.keys() <= {*inner.values()}:
        inner = {name: value.removeprefix(fitting[0]) for name, value in inner.items()}
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


def _state_dict(content: Any, path: Path, key: str | None) -> dict[str, Any]:
    for part in [] if key is None else key.split("."):
        inner = content.get(part) if isinstance(content, Mapping) else None
        if not isinstance(inner, Mapping):
            entries = sorted(map(str, content))[:20] if isinstance(content, Mapping) else type(content).__name__
            raise CheckpointError(f"checkpoint {path} has no entry {part!r} of key={key!r}; it holds {entries}")
        content = inner
    while isinstance(content, Mapping) and not _is_state_dict(content):
        nested = next((content[name] for name in _NESTED if isinstance(content.get(name), Mapping)), None)
        if nested is None:
            raise CheckpointError(
                f"checkpoint {path} holds {sorted(map(str, content))[:20]} and no state dict among {_NESTED}: pass key= to name "
                "the entry that holds it"
            )
        content = nested
    if not isinstance(content, Mapping):
        raise CheckpointError(f"checkpoint {path} holds a {type(content).__name__}, not a state dict")
    return dict(content)


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    """Names with tensors; what a module keeps as extra state may be anything."""
    values = {key: value for key, value in content.items() if not str(key).endswith("_extra_state")}
    return bool(values) and all(isinstance(k, str) for k in values) and all(isinstance(v, Tensor) for v in values.values())
