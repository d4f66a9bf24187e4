"""Image data on disk: IDX files and CIFAR's Python batches, as they are published. Missing files are downloaded."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..._support.extras import needs
from ..._support.files import write_whole
from ...errors import DataError

MOST_BYTES = 2**30
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # training images and labels, test images and labels


@dataclass(frozen=True)
class Source:
    """Where a data set is on the web and on disk.

    Attributes:
        folder: its folder in the data folder.
        files: the files to read, training before test.
        address: the part of the web address before the name of a file.
        checksums: file to download -> checksum; a compressed file for each of ``files``, or one archive.
    """

    folder: str
    files: tuple[str, ...]
    address: str
    checksums: dict[str, str]
    num_classes: int


_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _idx_checksums(*sums: str) -> dict[str, str]:
    return {f"{file}.gz": f"md5:{checksum}" for file, checksum in zip(_IDX, sums, strict=True)}


SOURCES = {
    "mnist": Source(
        "MNIST/raw", _IDX, "https://ossci-datasets.s3.amazonaws.com/mnist/",
        _idx_checksums("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
                       "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"), 10,
    ),
    "fashion-mnist": Source(
        "FashionMNIST/raw", _IDX, "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        _idx_checksums("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
                       "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"), 10,
    ),
    "cifar10": Source(
        "cifar-10-batches-py", (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"), "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-python.tar.gz": "md5:c58f30108f718f92721af3b95e74349a"}, 10,
    ),
    "cifar100": Source(
        "cifar-100-python", ("train", "test"), "https://www.cs.toronto.edu/~kriz/",
        {"cifar-100-python.tar.gz": "md5:eb9058c3a382ffc7106e4002c42a8d85"}, 100,
    ),
}  # fmt: skip


def data_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """This folder; by default the one that ``LAZYRICH_DATA`` names, else the user's cache.

    Raises:
        DataError: the folder does not exist. It is not created, because its name may be mistyped.
    """
    if folder is not None:
        if not Path(folder).is_dir():
            raise DataError(f"data={str(folder)!r} is not a folder: create it, or name the one that holds the data sets")
        return Path(folder)
    if os.environ.get("LAZYRICH_DATA"):
        return Path(os.environ["LAZYRICH_DATA"])
    return Path(needs("pooch", "experiments").os_cache("lazyrich"))


def read_images(name: str, root: Path) -> Arrays:
    """Images (n, channels, height, width) as bytes and labels (n,) as integers, of the training set and of the test set.

    Raises:
        DataError: no such data set; files are missing and cannot be downloaded; a file is damaged; a checksum is wrong.
    """
    if name not in SOURCES:
        raise DataError(f"no data set {name!r}; there are: {', '.join(SOURCES)}")
    source = SOURCES[name]
    folder = root / source.folder
    if any(_found(folder, file) is None for file in source.files):
        _download(name, source, root)
    paths = [_found(folder, file) or folder / file for file in source.files]
    if source.files == _IDX:
        train_images, train_labels, test_images, test_labels = (_read_idx(path) for path in paths)
        train, test = (train_images[:, None], train_labels), (test_images[:, None], test_labels)
    else:
        *train_batches, test = (_read_cifar(path) for path in paths)
        train = (np.concatenate([images for images, _ in train_batches]), np.concatenate([labels for _, labels in train_batches]))
    for images, labels in (train, test):
        if len(images) != len(labels) or len(labels) == 0 or labels.max() >= source.num_classes:
            raise DataError(
                f"{folder} holds {len(images)} images and {len(labels)} labels up to {labels.max(initial=0)}, and {name} has "
                f"{source.num_classes} classes; delete the folder to download it again"
            )
    return (*train, *test)


def _found(folder: Path, file: str) -> Path | None:
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)


def _download(name: str, source: Source, root: Path) -> None:
    pooch = needs("pooch", "experiments")
    archive = len(source.checksums) == 1
    folder = root if archive else root / source.folder
    missing = [file for file in source.files if _found(root / source.folder, file) is None]
    for file, checksum in source.checksums.items():
        if not archive and file.removesuffix(".gz") not in missing:
            continue
        try:
            path = pooch.retrieve(source.address + file, known_hash=checksum, fname=file, path=folder)
            if archive:
                _unpack(Path(path), [f"{source.folder}/{part}" for part in source.files], root)
        except Exception as error:  # requests, urllib3, the disk and the checksum each raise their own
            raise DataError(
                f"{name}: {', '.join(missing)} not found in {root / source.folder}, and {source.address}{file} could not be "
                f"downloaded: {' '.join(str(error).split())[:300]}. Put the files there yourself, or name the folder that holds "
                f"{source.folder} with data= or LAZYRICH_DATA"
            ) from error


def _unpack(archive: Path, members: list[str], root: Path) -> None:
    """Write these files of an archive to ``root``. Its other names and links are not used, because they are not trusted."""
    with tarfile.open(archive) as tar:
        for name in members:
            content = tar.extractfile(name)
            if content is None:
                raise ValueError(f"{name} in {archive.name} is not a file")
            write_whole(root / name, partial(shutil.copyfileobj, content))


def _read_idx(path: Path) -> np.ndarray:
    """The values of an IDX file of bytes, which holds a magic number, sizes and values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)  # a small compressed file can expand to any size
        if len(raw) > MOST_BYTES:
            raise _damaged(path, f"it holds more than {MOST_BYTES:,} bytes")
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    dimensions = raw[3] if len(raw) > 3 else 0
    header = 4 + 4 * dimensions
    if raw[:3] != b"\x00\x00\x08" or dimensions not in (1, 3) or len(raw) < header:
        raise _damaged(path, "it does not start as an IDX file of bytes does")
    shape = tuple(int.from_bytes(raw[4 * k : 4 * k + 4], "big") for k in range(1, dimensions + 1))
    if len(raw) - header != np.prod(shape, dtype=np.int64):
        raise _damaged(path, f"its header announces {shape}, and {len(raw) - header:,} values follow")
    values = np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
    return values if dimensions == 3 else values.astype(np.int64)


def _read_cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One of CIFAR's pickled batches: images of 3 × 32 × 32 bytes, and labels."""
    try:
        with path.open("rb") as file:
            batch = _CifarUnpickler(file, encoding="bytes").load()
        labels = np.asarray(batch[b"fine_labels"] if b"fine_labels" in batch else batch[b"labels"], np.int64)
        images = batch[b"data"]
        images = images.values() if isinstance(images, _Array) else None
        if images is None or images.shape[1:] != (3072,) or labels.ndim != 1 or labels.min() < 0:
            raise ValueError("its images are not rows of 3,072 bytes, or a label is negative")
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    return images.reshape(-1, 3, 32, 32), labels


class _CifarUnpickler(pickle.Unpickler):
    """Unpickle arrays of bytes and nothing else, because a pickle can run any code that it names.

    The names of NumPy stand for the classes below, because NumPy's own unpickling trusts the file.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The class or function that a pickled array names; no others."""
        if (module, name) == ("_codecs", "encode"):
            return _bytes_of
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _array
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return _Array if name == "ndarray" else _Kind
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no CIFAR file needs")


class _Kind:
    """Stands for a dtype."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Ignore the byte order and similar properties, which single bytes do not have."""


class _Array:
    """Stands for an array: stores the state in the file, and converts it to an array of bytes."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def values(self) -> np.ndarray:
        """The array of bytes.

        Raises:
            ValueError: the state is that of another array.
        """
        _, shape, kind, by_columns, raw = self.state
        if not isinstance(kind, _Kind) or kind.name not in ("u1", b"u1") or not isinstance(raw, bytes):
            raise ValueError("its images are not bytes")
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if by_columns else "C")


def _bytes_of(text: str, encoding: str) -> bytes:
    return text.encode("latin1" if encoding == "latin1" else "ascii")


def _array(*_: Any) -> _Array:
    """An empty array, as NumPy's ``_reconstruct`` creates it before the state is set."""
    return _Array()


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged: {reason}. Delete it to download it again, or replace it")
