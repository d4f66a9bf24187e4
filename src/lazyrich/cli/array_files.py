"""Arrays in files: ``.npy`` (not loaded, but mapped), ``.npz``, ``.safetensors``, ``.pt``, HDF5."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .._support.extras import needs
from .._support.text import did_you_mean
from ..errors import DataError

NAMED = re.compile(r"(.*\.(?:npz|safetensors|pt|pth|h5|hdf5))(?::(.+))?")  # FILE or FILE:NAME


def read_array(source: str, option: str) -> Any:
    """The array in a file; ``FILE:NAME`` names one of several.

    Args:
        source: what the user typed.
        option: the option that errors name.

    Raises:
        DataError: no such file or array, a file of another kind, or a damaged one.
        MissingExtraError: the package that reads this kind of file is not installed.
    """
    path, name = (found[1], found[2]) if (found := NAMED.fullmatch(source)) else (source, None)
    if not Path(path).is_file():
        raise DataError(f"{option}: there is no file {path}")
    kind = Path(path).suffix
    if kind not in _READERS:
        raise DataError(f"{option}: {path} is not one of {', '.join(_READERS)}")
    try:
        return _READERS[kind](path, name)
    except (ImportError, DataError) as error:
        raise type(error)(f"{option}: {error}") from error
    except Exception as error:  # each format raises its own for a damaged file
        raise DataError(f"{option}: {path} cannot be read ({type(error).__name__}: {error})") from error


def _npy(path: str, name: str | None) -> Any:
    import numpy as np

    return np.load(path, mmap_mode="r", allow_pickle=False)


def _npz(path: str, name: str | None) -> Any:
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        return file[_chosen(path, file.files, name)]


def _safetensors(path: str, name: str | None) -> Any:
    with needs("safetensors", "cli").safe_open(path, framework="pt") as file:
        return file.get_tensor(_chosen(path, file.keys(), name))


def _pt(path: str, name: str | None) -> Any:
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content[_chosen(path, content, name)] if isinstance(content, dict) else content


def _hdf5(path: str, name: str | None) -> Any:
    h5py = needs("h5py", "hdf5")
    file = h5py.File(path)  # stays open, because its arrays are read in blocks
    names: list[str] = []
    file.visititems(lambda found, item: names.append(found) if isinstance(item, h5py.Dataset) else None)
    return file[_chosen(path, names, name)]


def _chosen(path: str, names: Iterable[str], name: str | None) -> str:
    names = list(names)
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return name
    if name is None:
        raise DataError(f"{path} holds {len(names)} arrays: write {path}:NAME, with NAME one of {', '.join(names)}")
    raise DataError(f"{path} holds no {name!r}{did_you_mean(name, names)} It holds: {', '.join(names)}")


_READERS: dict[str, Callable[[str, str | None], Any]] = {
    ".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".pt": _pt, ".pth": _pt, ".h5": _hdf5, ".hdf5": _hdf5,
}  # fmt: skip
