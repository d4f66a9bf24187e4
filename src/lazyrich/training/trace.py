"""A series of checkpoints, measured on the same data: the course of a training that is over."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._support.files import write_text
from .._support.nested import tensors_in
from .._support.progress import progress_bar
from .._support.stored import read_object
from ..errors import DataError
from ..measurement.measure import measure
from ..model.batches import first_dimension, frozen, raw_bytes
from ..model.capture import unwrapped
from ..model.checkpoints import load_checkpoint, weight_files
from ..model.layers import Pooling
from ..model.undisturbed import undisturbed
from ..results.series import Evaluation, Series, SeriesFolder, evaluate, unlike
from .checkpoint_steps import Paths, checkpoint_steps

END = 1 << 20  # bytes at each end of a file that tell it from another


def trace(
    model: nn.Module,
    checkpoints: Paths,
    data: Any,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    steps: Sequence[int] | None = None,
    start: str | os.PathLike[str] | None = None,
    head: str | None = None,
    layers: str | Sequence[str] | None = None,
    pooling: Pooling = "average",
    num_samples: int = 2000,
    class_balanced: bool = False,
    nc4: bool = False,
    device: str | None = None,
    progress: bool = False,
) -> Series:
    """Measures every checkpoint of a training on the same data.

    ``model`` itself stays as it is; the weights are loaded into a copy, one checkpoint after the other. Runs on one process.

    Args:
        model: a network that the checkpoints fit.
        checkpoints: files (``.pt``, ``.pth``, ``.bin``, ``.ckpt``, ``.safetensors``), folders as Transformers saves them,
            folders of those, or glob patterns; one or several. They are ordered by step: the number after "step" in the name,
            or else the last whole number in it.
        data: as for :func:`lazyrich.measure`; its first ``num_samples`` are drawn once.
        out: a folder for the series; nothing is written without it.
        resume: go on with what ``out`` holds: what was measured is not measured again.
        steps: one for each checkpoint, in the order of the names, where the names do not tell.
        start: the checkpoint of the start of training, for S_init and the parameters' distance. By default the one of step 0;
            where there is none they are left out, for a later checkpoint is no start.
        head, layers, pooling, class_balanced, nc4, device: as for :func:`lazyrich.measure`; ``head`` by its name.
        num_samples: how many samples are measured.
        progress: show a bar (needs ``lazyrich[cli]``).

    Returns:
        The series. A checkpoint of a dead or diverged network has a note instead of numbers.

    Raises:
        CheckpointError: no checkpoints, steps that are unknown or taken twice, a file that is damaged or does not fit; what was
            measured before it is kept.
        DataError: as :func:`lazyrich.measure`; ``out`` holds a series and ``resume`` was not asked for, or one of other data,
            another model, other options or other checkpoints.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(8, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for step in (0, 10, 9):
        ...         torch.save(model.state_dict(), Path(folder) / f"step-{step}.pt")
        ...     series = trace(model, folder, torch.randn(64, 8))
        >>> series.steps.tolist()
        [0, 9, 10]
        >>> series["parameter_distance"].tolist()  # nothing was trained
        [0.0, 0.0, 0.0]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if head is not None and not isinstance(head, str):
        raise TypeError(f"head must be a dotted name, got {type(head).__name__}: the weights are loaded into a copy of the model")
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    found = checkpoint_steps(checkpoints, steps)
    with undisturbed(model, data, None):
        probe = frozen(data, num_samples)
    first = found.get(0) if start is None else Path(start)
    options = {"head": head, "layers": layers, "pooling": pooling, "class_balanced": class_balanced, "nc4": nc4}
    about = {"model": _model_digest(model), "data": _data_digest(probe), **options}
    about |= {"start": None if first is None else _file_digest(first), "samples": sum(map(_size, probe))}
    folder = None if out is None else SeriesFolder(Path(out))
    done = [] if folder is None else _claimed(folder, about, found, resume)
    network, beginning = copy.deepcopy(unwrapped(model)), None
    if first is not None:
        beginning = copy.deepcopy(network)
        load_checkpoint(beginning, first)

    def measured() -> tuple[dict[str, float], dict[str, np.ndarray]]:
        r = measure(network, probe, start=beginning, distributed=False, device=device, **options)
        return r.numbers(), r.curves()

    known = {e.step for e in done}
    with progress_bar(progress, total=len(found), text="tracing", unit=" checkpoints") as bar:
        for step, path in found.items():
            if step not in known:
                bar.text(path.name)
                load_checkpoint(network, path)
                done.append(_kept(evaluate(step, measured), folder))
                bar.note(f"D_LR {done[-1].values.get('low_rank', float('nan')):.3f}")
            bar.update()
    return Series(sorted(done, key=lambda e: e.step)) if folder is None else folder.read()


def _kept(found: Evaluation, folder: SeriesFolder | None) -> Evaluation:
    if folder is not None:
        folder.add(found)
    return found


def _claimed(folder: SeriesFolder, about: dict[str, Any], found: dict[int, Path], resume: bool) -> list[Evaluation]:
    """What the folder holds of this trace; ``trace.json`` says in it what was measured, and of which checkpoints."""
    path = folder.path / "trace.json"
    held = folder.read().evaluations
    other = f"name another out than {folder.path}, or delete that folder"
    if held and not resume:
        raise DataError(f"out={folder.path} holds a series already: pass resume=True to continue it, or another out=")
    if held and not path.is_file():
        raise DataError(f"out={folder.path} holds a series that is no trace: {other}")
    ours = json.loads(json.dumps(about))
    digests = {str(step): _file_digest(checkpoint) for step, checkpoint in found.items()}
    if held:
        theirs = read_object(path)
        before = theirs.pop("checkpoints", None) or {}
        difference = unlike(theirs, ours)
        if difference:
            raise DataError(f"out={folder.path} holds a trace of something else: {difference}; {other}")
        for step in {str(e.step) for e in held} & {*digests}:
            if before.get(step) != digests[step]:
                raise DataError(f"out={folder.path} holds step {step} of another checkpoint than {found[int(step)]}: {other}")
        digests = before | digests
    folder.mend()  # also where the very first line was cut off, so that nothing is held
    write_text(path, json.dumps({**ours, "checkpoints": digests}, indent=1) + "\n")
    return list(held)


def _size(batch: Any) -> int:
    return first_dimension(batch if isinstance(batch, Mapping) else batch[0])


def _model_digest(model: nn.Module) -> str:
    """Of what the model is made, without its weights."""
    shapes = [(name, tuple(value.shape)) for name, value in model.state_dict().items() if isinstance(value, Tensor)]
    return f"{type(unwrapped(model)).__name__} {_digest(repr(model).encode(), repr(shapes).encode())}"


def _data_digest(probe: list[Any]) -> str:
    parts = []
    for batch in probe:
        for x in tensors_in(batch):
            x = x if x.layout == torch.strided else x.to_dense()
            parts += [f"{x.dtype}{tuple(x.shape)}".encode(), raw_bytes(x)]
    return _digest(*parts)


def _file_digest(path: Path) -> str:
    """Tells checkpoints apart without reading them whole: size, and both ends, where formats keep checksums and weights."""
    parts = []
    for file in weight_files(path):
        with file.open("rb") as content:
            size = content.seek(0, os.SEEK_END)
            content.seek(0)
            parts += [str(size).encode(), content.read(END)]
            content.seek(max(0, size - END))
            parts.append(content.read(END))
    return _digest(*parts)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
