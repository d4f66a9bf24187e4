"""``lazyrich measure``: one network on one set of data."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from .._support.text import plain
from ..errors import RankWarning
from . import options
from .outputs import check_folder
from .user_code import build, build_model

if TYPE_CHECKING:
    from ..results.richness import Richness

FILES = ("richness.json", "richness.png", "layers.png")


def measure(
    model: options.Model,
    *,
    data: options.Loader,
    checkpoint: Annotated[
        Path | None,
        arg(help="Weights to load, .pt or .safetensors.", metavar="FILE", help_behavior_hint="(default: the model as built)"),
    ] = None,
    key: options.Key = None,
    strict: options.Strict = True,
    head: options.Head = None,
    rows: options.Rows = None,
    ignore_index: options.IgnoreIndex = -100,
    layers: options.Layers = (),
    pooling: options.Pooling = "average",
    start: Annotated[
        Path | None,
        arg(
            help="Weights at the start of training; adds S_init and the distance of the parameters.",
            metavar="FILE",
            help_behavior_hint="(default: none)",
        ),
    ] = None,
    class_balanced: options.ClassBalanced = False,
    num_samples: Annotated[
        int | None, arg(help="Stop after this many samples.", metavar="N", help_behavior_hint="(default: all data)")
    ] = None,
    nc4: options.Nc4 = False,
    check: Annotated[
        bool, arg(help="First repeat one batch; stop if the data or the model are not deterministic, and report which.")
    ] = False,
    device: options.Device = None,
    out: Annotated[
        Path | None,
        arg(
            help="Folder for richness.json, richness.png and, with --layers, layers.png.",
            metavar="DIR",
            help_behavior_hint="(default: nothing is written)",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    progress: options.Progress = True,
) -> None:
    """Measure your own network: rich or lazy?"""
    from ..measurement.measure import measure as measure_model
    from ..model.checkpoints import load_checkpoint
    from ..model.copying import copied_model

    if out is not None:
        check_folder(out, FILES if layers else FILES[:2], overwrite=overwrite)
    network, notes = build_model(model), tuple[str, ...]()
    if checkpoint is not None:
        notes = load_checkpoint(network, checkpoint, key=key, strict=strict)
    loader = build(data, "--data")
    beginning = None
    if start is not None:
        beginning = copied_model(network)
        load_checkpoint(beginning, start, key=key, strict=strict)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)  # the table's notes repeat it
        result = measure_model(
            network, loader, head=head, rows=rows, ignore_index=ignore_index, layers=options.chosen_layers(layers),
            pooling=pooling, start=beginning, num_samples=num_samples, class_balanced=class_balanced, nc4=nc4, check=check,
            device=device, progress=progress,
        )  # fmt: skip
    print(result)
    for note in notes:
        print(f"! {plain(note)}")
    if out is not None:
        _write(result, out)


def _write(result: Richness, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    numbers, curves, depth = (out / name for name in FILES)
    result.save(numbers)
    result.plot(curves)
    if result.layers:
        result.plot_layers(depth)
    print(f"\nFigures and result: {out}")
