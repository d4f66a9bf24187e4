"""A model from a local folder of Transformers, ``hf:FOLDER``, and data from files through its own tokenizer or image processor.

Nothing is downloaded.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._support.extras import needs
from .._support.text import did_you_mean
from ..errors import DataError
from .user_code import build, build_model

if TYPE_CHECKING:
    from torch import nn

PREFIX = "hf:"
TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
BATCH = 32
PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"))
TEXTS = ("text", "sentence", "content", "document", "review", "prompt")
LABELS = ("label", "labels", "target", "class")
IGNORED = -100
_LARGEST_LENGTH = 512  # of a text in tokens, where neither model nor tokenizer has a limit


def model_and_data(model: str, data: str, text: str | None, label: str | None, *, several: bool = False) -> tuple[nn.Module, Any]:
    """What MODEL and --data name: functions, or a folder of Transformers and a file for it.

    Args:
        text, label: columns of the file; see :func:`load_data`.
        several: whether MODEL may name several folders; the model is then that of the first.

    Raises:
        DataError: as :func:`folders`, :func:`load_model`, :func:`load_data` and :func:`~lazyrich.cli.user_code.build`.
    """
    is_file = Path(data).suffix.lower() in TABLES or Path(data).is_dir()
    if not is_local(model):
        if is_file or text is not None or label is not None:
            what = f"--data {data}" if is_file else "--text and --label"
            raise DataError(f"{what}: files are read for models of Transformers only, {PREFIX}FOLDER; pass a function instead")
        return build_model(model), build(data, "--data")
    folder, *others = folders(model)
    if others and not several:
        raise DataError(f"MODEL: {model} names {1 + len(others)} folders, and one is measured; lazyrich trace takes several")
    network = load_model(folder)
    return network, load_data(data, folder, network, text=text, label=label) if is_file else build(data, "--data")


def is_local(model: str | None) -> bool:
    """Whether MODEL names a folder of Transformers."""
    return model is not None and model.startswith(PREFIX)


def folders(model: str) -> list[Path]:
    """The folders that ``hf:FOLDER`` or ``hf:PATTERN`` names, sorted.

    Raises:
        DataError: there is none, or one has no config.json.
    """
    pattern = model.removeprefix(PREFIX)
    path = Path(pattern)
    found = sorted(folder for folder in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if folder.is_dir())
    if not found:
        raise DataError(f"MODEL: there is no folder {pattern!r}; after {PREFIX} comes a local folder that save_pretrained wrote")
    for folder in found:
        if not (folder / "config.json").is_file():
            hint = " (it holds an adapter: merge it into its model first)" if (folder / "adapter_config.json").is_file() else ""
            raise DataError(f"MODEL: {folder} has no config.json{hint}; {PREFIX} takes folders that save_pretrained wrote")
    return found


def load_model(folder: Path) -> nn.Module:
    """The model of a folder, of the architecture that its configuration names.

    Raises:
        DataError: no such architecture, or weights that cannot be read.
        MissingExtraError: Transformers is not installed.
    """
    transformers = needs("transformers", "transformers")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    named = getattr(config, "architectures", None) or []
    kind = getattr(transformers, named[0], None) if named else None
    if kind is None:
        what = f"the architecture {named[0]!r}, which Transformers does not have" if named else "no architecture"
        raise DataError(f"MODEL: {folder / 'config.json'} names {what}; pass a function that builds the model instead")
    try:
        with _without_bars(transformers.utils.logging):
            return kind.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"MODEL: {folder} cannot be loaded: {str(error).splitlines()[0]}") from error


@contextmanager
def _without_bars(settings: Any) -> Iterator[None]:
    """Load without the progress bars of Transformers, because --no-progress means all bars."""
    shown = settings.is_progress_bar_enabled()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            settings.enable_progress_bar()


@dataclass(frozen=True)
class Batches:
    """Batches of rows, encoded when they are needed; they can be iterated over again and again."""

    rows: Sequence[Any]
    encode: Callable[[Sequence[Any]], dict[str, Any]]

    def __len__(self) -> int:
        return -(-len(self.rows) // BATCH)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for first in range(0, len(self.rows), BATCH):
            yield self.encode(self.rows[first : first + BATCH])


def load_data(data: str, folder: Path, model: nn.Module, *, text: str | None = None, label: str | None = None) -> Batches:
    """Batches of a table, or of a folder with a folder of images for each class.

    Args:
        data: ``.csv``, ``.tsv``, ``.jsonl``, ``.json`` (a list of records), ``.parquet``, or a folder.
        folder: of the model, with its tokenizer or image processor.
        text: the column of the texts, or two of them with a comma in between; by default one that has a usual name.
        label: the column of the labels; by default one that has a usual name, where there is one.

    Raises:
        DataError: the file cannot be read, has no such column, or labels that the model does not know.
        MissingExtraError: a package is not installed.
    """
    path = Path(data)
    if path.is_dir():
        return _images(path, folder, model)
    if not path.is_file():
        raise DataError(f"--data: there is no file {data!r}")
    return _texts(_records(path), path, folder, model, text, label)


def _records(path: Path) -> list[Mapping[str, Any]]:
    try:
        if path.suffix.lower() == ".parquet":
            return needs("pyarrow.parquet", "parquet").read_table(path).to_pylist()
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix.lower() in (".csv", ".tsv"):
                found: Any = list(csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
            elif path.suffix.lower() == ".jsonl":
                found = [json.loads(line) for line in file if line.strip()]
            else:
                found = json.load(file)
    except (OSError, ValueError) as error:
        raise DataError(f"--data: {path} cannot be read: {error}") from error
    if not isinstance(found, list) or not found or not all(isinstance(row, dict) for row in found):
        raise DataError(f"--data: {path} holds no records: write a table with a header, or a list of objects with equal keys")
    return found


def _texts(
    rows: Sequence[Mapping[str, Any]], path: Path, folder: Path, model: nn.Module, text: str | None, label: str | None
) -> Batches:
    transformers = needs("transformers", "transformers")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise DataError(f"--data: {folder} has no tokenizer that can be loaded, which a table of texts needs") from error
    config: Any = model.config
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
    names = list(rows[0])
    texts = _text_columns(names, rows[0], path, text)
    of_labels = _column(label, names, path, "--label") if label is not None else next((n for n in LABELS if n in names), None)
    limits = [getattr(config, "max_position_embeddings", None), getattr(config, "n_positions", None), tokenizer.model_max_length]
    longest = min((int(limit) for limit in limits if limit and limit < 1e9), default=_LARGEST_LENGTH)
    task = type(model).__name__

    def encode(some: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        columns = [[str(row[name]) for row in some] for name in texts]
        batch = dict(tokenizer(*columns, padding=True, truncation=True, max_length=longest, return_tensors="pt"))
        if task.endswith(("ForCausalLM", "LMHeadModel")):
            batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
        elif of_labels is not None and task.endswith("ForSequenceClassification"):
            batch["labels"] = _labels([row[of_labels] for row in some], config, of_labels)
        return batch

    return Batches(rows, encode)


def _text_columns(names: list[str], first: Mapping[str, Any], path: Path, text: str | None) -> list[str]:
    if text is not None:
        return [_column(name.strip(), names, path, "--text") for name in text.split(",")]
    for pair in PAIRS:
        if set(pair) <= set(names):
            return list(pair)
    usual = [name for name in TEXTS if name in names]
    strings = [name for name in names if isinstance(first[name], str) and name not in LABELS]
    if usual or len(strings) == 1:
        return (usual or strings)[:1]
    raise DataError(f"--data: which column of {path} holds the texts? Pass --text with one of {', '.join(names)}")


def _column(name: str, names: list[str], path: Path, option: str) -> str:
    if name not in names:
        raise DataError(f"{option}: {path} has no column {name!r}{did_you_mean(name, names)} It has: {', '.join(names)}")
    return name


def _labels(values: Sequence[Any], config: Any, name: str) -> Any:
    """Class numbers, from numbers or from the names that the model knows; numbers where the model has one output."""
    import torch

    if config.num_labels == 1:
        return torch.tensor([float(value) for value in values])
    known = {str(key).lower(): int(number) for key, number in (config.label2id or {}).items()}
    try:
        return torch.tensor([known[str(v).lower()] if str(v).lower() in known else int(v) for v in values])
    except ValueError:
        unknown = next(v for v in values if str(v).lower() not in known and not str(v).lstrip("-").isdigit())
        raise DataError(f"--data: the label {unknown!r} in column {name!r} is none of the model's: {', '.join(known)}") from None


def _images(path: Path, folder: Path, model: nn.Module) -> Batches:
    transformers, pictures = needs("transformers", "transformers"), needs("PIL.Image", "plot")
    classes = sorted(inner for inner in path.iterdir() if inner.is_dir())
    rows = [(file, inner.name) for inner in classes for file in sorted(inner.iterdir()) if file.suffix.lower() in PICTURES]
    if not rows:
        raise DataError(f"--data: {path} has no images; it must hold a folder for each class with files {', '.join(PICTURES)}")
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(
            f"--data: {folder} has no image processor that can be loaded: {str(error).strip().splitlines()[0]}"
        ) from error
    config: Any = model.config

    def encode(some: Sequence[tuple[Path, str]]) -> dict[str, Any]:
        opened = [pictures.open(file).convert("RGB") for file, _ in some]
        batch = dict(processor(images=opened, return_tensors="pt"))
        return batch | {"labels": _labels([name for _, name in some], config, "folder")}

    return Batches(rows, encode)
