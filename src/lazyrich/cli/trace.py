"""``lazyrich trace``: the checkpoints of one training on the same data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from . import options
from .failures import UsageError
from .local_models import folders, is_local, model_and_data
from .outputs import check_folder


def trace(
    model: options.Model,
    checkpoints: Annotated[
        Positional[tuple[str, ...]],
        arg(
            help="Files, folders as Transformers saves them, folders of either, or glob patterns. The step of a checkpoint is "
            "the number after 'step' in its name, or else the last whole number in it.",
            metavar="CHECKPOINTS…",
            help_behavior_hint="(required, except with MODEL hf:PATTERN, whose folders are the checkpoints)",
        ),
    ] = (),
    *,
    data: options.Loader,
    text: options.Text = None,
    label: options.Label = None,
    out: Annotated[Path, arg(help="Folder for the series and its figure.", metavar="DIR")],
    resume: Annotated[bool, arg(help="Resume the series in DIR.")] = False,
    steps: Annotated[
        tuple[int, ...],
        arg(
            help="The step of each checkpoint, in the order of the names.",
            metavar="N…",
            help_behavior_hint="(default: from the names)",
        ),
    ] = (),
    start: Annotated[
        Path | None,
        arg(
            help="Weights at the start of training, for λ and S_init.",
            metavar="FILE",
            help_behavior_hint="(default: the checkpoint of step 0, or else the first)",
        ),
    ] = None,
    key: options.Key = None,
    strict: options.Strict = True,
    head: options.Head = None,
    rows: options.Rows = None,
    ignore_index: options.IgnoreIndex = -100,
    layers: options.Layers = (),
    pooling: options.Pooling = "average",
    class_balanced: options.ClassBalanced = False,
    num_samples: Annotated[int, arg(help="Number of samples; every checkpoint sees the same.", metavar="N")] = 2000,
    nc4: options.Nc4 = False,
    device: options.Device = None,
    progress: options.Progress = True,
) -> None:
    """Measure a series of checkpoints on the same data: rich or lazy over training?"""
    if not checkpoints and not is_local(model):
        raise UsageError("CHECKPOINTS missing: pass files, folders or patterns after MODEL")
    check_folder(out)
    from ..training.trace import trace as trace_checkpoints

    network, loader = model_and_data(model, data, text, label, several=True)
    series = trace_checkpoints(
        network, checkpoints or folders(model), loader, out=out, resume=resume, steps=steps or None, start=start,
        key=key, strict=strict, head=head, rows=rows, ignore_index=ignore_index, layers=options.chosen_layers(layers),
        pooling=pooling, num_samples=num_samples, class_balanced=class_balanced, nc4=nc4, device=device, progress=progress,
    )  # fmt: skip
    print(series)
    series.plot(out / "series.png")
    print(f"\nSeries and figure: {out}")
