"""A series from checkpoints: each is measured on the same data, after the training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .._support.files import write_text
from .._support.processes import Processes
from .._support.progress import progress_bar
from .._support.resume import check_free, check_same
from .._support.stored import read_object
from ..errors import DataError
from ..measurement.measure import measure, one_pass_of
from ..measurement.probe import probe_set
from ..model.batches import IGNORED_LABEL, Forward
from ..model.checkpoints import load_checkpoint, weight_files
from ..model.copying import copied_model
from ..model.layers import Pooling
from ..model.linear import unwrapped
from ..model.rows import Layout, RowChoice
from ..model.undisturbed import undisturbed
from ..results.series import Evaluation, Measured, Series, SeriesFolder, evaluate
from .checkpoint_steps import Paths, checkpoint_steps

END = 1 << 20  # bytes at each end of a file, which identify it


def trace(
    model: nn.Module,
    checkpoints: Paths,
    data: Any,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    steps: Sequence[int] | None = None,
    start: str | os.PathLike[str] | None = None,
    key: str | None = None,
    strict: bool = True,
    head: str | None = None,
    rows: RowChoice = None,
    forward: Forward | None = None,
    targets: Callable[[Any], Tensor] | None = None,
    ignore_index: int = IGNORED_LABEL,
    layout: Layout | None = None,
    layers: str | Sequence[str] | None = None,
    pooling: Pooling = "average",
    extra: Sequence[str] = (),
    num_samples: int = 2000,
    class_balanced: bool = False,
    nc4: bool = False,
    device: str | None = None,
    progress: bool = False,
) -> Series:
    """Measure every checkpoint of a training on the same data.

    ``model`` itself is unchanged: the weights are loaded into a copy, one checkpoint after the other. One process measures.

    Args:
        model: a network that the checkpoints fit.
        checkpoints: files (``.pt``, ``.pth``, ``.bin``, ``.ckpt``, ``.safetensors``), folders as Transformers saves them,
            folders of those, or glob patterns; one or several. They are ordered by step: the number after "step" in the name,
            or else the last whole number in it.
        data: as for :func:`lazyrich.measure`; its first ``num_samples`` samples are read once.
        out: folder for the series; by default nothing is written.
        resume: continue the series in ``out``: checkpoints that were measured are not measured again.
        steps: one for each checkpoint, in the order of the names, if the names do not contain it.
        start: the checkpoint of the start of training, for λ, S_init and the distance of the parameters. By default the one of
            step 0, or else the first checkpoint, which a note says. Where a resumed series begins with another
            checkpoint than the given ones, these measures are left out, because the start is not known.
        key: the entry of a checkpoint that holds the state dict, if it is under an unusual name; dots lead to inner entries.
        strict: whether entries of a checkpoint that the model does not have are an error; else a note counts them.
        head, rows, forward, targets, ignore_index, layout, layers, pooling, extra, class_balanced, nc4, device: as for
            :func:`lazyrich.measure`; ``head`` by its name.
        num_samples: number of samples to measure.
        progress: show a progress bar (needs ``lazyrich[cli]``).

    Returns:
        The series. A checkpoint of a dead or diverged network has a note instead of numbers.

    Raises:
        CheckpointError: no checkpoints; steps that are unknown or occur twice; a file that is damaged or does not fit. The
            evaluations before it are kept.
        DataError: as for :func:`lazyrich.measure`; ``out`` holds a series and ``resume`` is False; it holds a series of other
            data, another model, other options or other checkpoints.

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
    paths = checkpoint_steps(checkpoints, steps)
    reading: dict[str, Any] = {
        "head": head, "rows": rows, "forward": forward, "targets": targets, "ignore_index": ignore_index, "layout": layout,
    }  # fmt: skip
    with undisturbed(model, data, None) as home:
        probe = probe_set(one_pass_of(unwrapped(model), data, home, Processes(False), **reading), num_samples)
    first = paths.get(0) if start is None else Path(start)
    options: dict[str, Any] = {"layers": layers, "pooling": pooling, "class_balanced": class_balanced, "nc4": nc4}
    options |= {"extra": list(extra)} if extra else {}
    described = {name: getattr(value, "__name__", value) for name, value in reading.items()}
    about = {"model": _model_digest(model), "data": probe.batches.digest, **options, **described}
    about |= {"start": None if first is None else _file_digest(first), "samples": probe.samples}
    folder = None if out is None else SeriesFolder(Path(out))
    evaluations = [] if folder is None else _resumed(folder, about, paths, resume)
    network, beginning = copied_model(unwrapped(model)), None
    earliest = min(paths)
    begun = evaluations[0].step if evaluations else earliest
    instead = first is None and begun == earliest  # the first checkpoint stands for the start
    first = paths[earliest] if instead else first
    if first is not None:
        beginning = copied_model(network)
        load_checkpoint(beginning, first, key=key, strict=strict)

    def measured() -> Measured:
        r = measure(
            network, probe.batches, start=beginning, num_samples=probe.limit, distributed=False, device=device, **options,
            **reading,
        )  # fmt: skip
        return r.numbers(), r.curves(), r.influences

    done, said = {e.step for e in evaluations}, _about_start(first, begun) if instead or first is None else None
    with progress_bar(progress, total=len(paths), text="tracing", unit=" checkpoints") as bar:
        for step, path in paths.items():
            if step not in done:
                bar.text(path.name)
                notes = load_checkpoint(network, path, key=key, strict=strict)
                evaluation = evaluate(step, measured)
                note = "; ".join(filter(None, [evaluation.note, *notes, said])) or None
                said = None
                evaluations.append(replace(evaluation, note=note))
                if folder is not None:
                    folder.add(evaluations[-1])
                bar.note(f"D_LR {evaluations[-1].values.get('low_rank', float('nan')):.3f}")
            bar.update()
    return Series(sorted(evaluations, key=lambda e: e.step)) if folder is None else folder.read()


def _about_start(first: Path | None, begun: int) -> str:
    """What a reader of the series must know of its start, where neither ``start`` nor a checkpoint of step 0 is there."""
    if first is None:
        return f"no measures of the start, because the series begins with another checkpoint, of step {begun:,}; pass start="
    return f"the first checkpoint, {first.name}, is taken as the start of training; pass start= where another one is"


def _resumed(folder: SeriesFolder, about: Mapping[str, Any], paths: Mapping[int, Path], resume: bool) -> list[Evaluation]:
    """The evaluations in the folder, whose ``trace.json`` describes what was measured and of which checkpoints."""
    path = folder.path / "trace.json"
    evaluations = folder.read().evaluations
    check_free(folder.path, bool(evaluations), resume, "a series")
    digests = {str(step): _file_digest(checkpoint) for step, checkpoint in paths.items()}
    if evaluations:
        other = f"pass another out=, or delete {folder.path}"
        if not path.is_file():
            raise DataError(f"{folder.path} holds a series that is not a trace: {other}")
        stored = read_object(path)
        before = stored.pop("checkpoints", None) or {}
        check_same(folder.path, stored, about, "a trace of something else")
        for step in {str(e.step) for e in evaluations} & {*digests}:
            if before.get(step) != digests[step]:
                raise DataError(f"{folder.path} holds step {step} of another checkpoint than {paths[int(step)]}: {other}")
        digests = before | digests
    folder.repair()  # even without evaluations: the very first line may be incomplete
    write_text(path, json.dumps({**about, "checkpoints": digests}, indent=1) + "\n")
    return evaluations


def _model_digest(model: nn.Module) -> str:
    """Digest of the architecture, without the weights."""
    shapes = [(name, tuple(value.shape)) for name, value in model.state_dict().items() if isinstance(value, Tensor)]
    return f"{type(unwrapped(model)).__name__} {_digest(repr(model).encode(), repr(shapes).encode())}"


def _file_digest(path: Path) -> str:
    """Digest of the size and of both ends of the files, where formats store checksums and weights; reading all takes longer."""
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
