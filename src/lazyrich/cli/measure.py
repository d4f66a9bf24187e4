"""``lazyrich measure``: one network on one set of data, or the arrays that it left in files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from .._support.text import plain
from ..errors import RankWarning
from . import options
from .array_files import read_array
from .failures import UsageError
from .local_models import is_local, model_and_data
from .outputs import check_folder
from .words import in_options

if TYPE_CHECKING:
    from torch import nn

    from ..results.richness import Richness

DRAWS = 4
FILES = ("richness.json", "richness.png", "layers.png")

File = str | None


def measure(
    model: Annotated[
        Positional[str | None],
        arg(help=options.MODEL, metavar="MODEL", help_behavior_hint=""),
    ] = None,
    *,
    data: Annotated[
        str | None,
        arg(help=options.DATA, metavar="DATA", help_behavior_hint="(required with MODEL)"),
    ] = None,
    text: options.Text = None,
    label: options.Label = None,
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
            help="Weights at the start of training; adds λ, S_init and the distance of the parameters.",
            metavar="FILE",
            help_behavior_hint="(default: none)",
        ),
    ] = None,
    null: Annotated[
        int | None,
        arg(
            help="In place of an unknown start, measure N copies of the model that are drawn again, a pass over the data each; "
            "adds λ, the laziness ratio.",
            metavar="N",
            help_behavior_hint="(default: 4 without --start, where the model can be drawn again)",
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
    features: Annotated[
        File,
        arg(
            help="Measure stored arrays, and no MODEL: the inputs of the last linear layer (n, p), in a file .npy, .npz, "
            ".safetensors, .pt or .h5. FILE:NAME names one of several arrays in a file.",
            metavar="FILE",
            help_behavior_hint="",
        ),
    ] = None,
    outputs: Annotated[
        File, arg(help="With --features: what that layer returned (n, C).", metavar="FILE", help_behavior_hint="")
    ] = None,
    targets: Annotated[
        File, arg(help="With --features: class labels (n,), or real targets (n, T).", metavar="FILE", help_behavior_hint="")
    ] = None,
    start_features: Annotated[
        File,
        arg(
            help="With --features: the features at the start of training, for S_init and λ.",
            metavar="FILE",
            help_behavior_hint="",
        ),
    ] = None,
    head_weight: Annotated[
        File,
        arg(
            help="With --features: the weight (C, p) of the layer, for NC3 or in place of --outputs.",
            metavar="FILE",
            help_behavior_hint="",
        ),
    ] = None,
    head_bias: Annotated[File, arg(help="With --head-weight: the bias (C,).", metavar="FILE", help_behavior_hint="")] = None,
    table: Annotated[bool, arg(help="Print every number.")] = False,
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
    """Measure your own network, or its stored features: rich or lazy?"""
    arrays = {
        "features": features, "outputs": outputs, "targets": targets, "start_features": start_features,
        "head_weight": head_weight, "head_bias": head_bias,
    }  # fmt: skip
    of_models = {
        "MODEL": model, "--data": data, "--text": text, "--label": label,
        "--checkpoint": checkpoint, "--key": key, "--head": head, "--rows": rows,
        "--layers": layers, "--start": start, "--null": null, "--num-samples": num_samples, "--nc4": nc4,
        "--check": check, "--device": device,
    }  # fmt: skip
    of_arrays = {f"--{name.replace('_', '-')}": file for name, file in arrays.items()}
    _check_one_kind(of_models, of_arrays)
    if out is not None:
        check_folder(out, FILES if layers else FILES[:2], overwrite=overwrite)
    from ..results.answer import answer

    notes: tuple[str, ...] = ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)  # the table's notes repeat it
        if model is None or data is None:
            from ..measurement.arrays import measure_arrays

            read = {name: read_array(file, f"--{name.replace('_', '-')}") for name, file in arrays.items() if file is not None}
            result = measure_arrays(**read, class_balanced=class_balanced, progress=progress)
        else:
            from ..measurement.measure import measure as measure_model
            from ..model.checkpoints import load_checkpoint
            from ..model.copying import copied_model

            network, loader = model_and_data(model, data, text, label)
            if checkpoint is not None:
                notes = load_checkpoint(network, checkpoint, key=key, strict=strict)
            beginning = None
            if start is not None:
                beginning = copied_model(network)
                load_checkpoint(beginning, start, key=key, strict=strict)
            build = partial(type(network), network.config) if is_local(model) else None
            draws = _draws(network, loader, beginning, build) if null is None else null
            result = measure_model(
                network, loader, head=head, rows=rows, ignore_index=ignore_index, layers=options.chosen_layers(layers),
                pooling=pooling, start=beginning, null=draws, build=build if draws else None, num_samples=num_samples,
                class_balanced=class_balanced, nc4=nc4, check=check, device=device, progress=progress,
            )  # fmt: skip
    print(in_options(answer(result, "--table"), measure))
    if table:
        print(f"\n{result.table()}")
    for note in notes:
        print(f"! {plain(note)}")
    if out is not None:
        _write(result, out)


def _check_one_kind(of_models: dict[str, Any], of_arrays: dict[str, Any]) -> None:
    """Raise unless the arguments name a model with data, or stored features, but not both."""
    ours = [name for name, value in of_models.items() if value]
    if any(of_arrays.values()):
        if ours:
            raise UsageError(f"{', '.join(ours)} cannot be combined with stored arrays: pass MODEL --data, or --features")
        if not of_arrays["--features"]:
            raise UsageError("--features is required with stored arrays")
    elif not of_models["MODEL"] or not of_models["--data"]:
        missing = [name for name in ("MODEL", "--data") if not of_models[name]]
        raise UsageError(f"{' and '.join(missing)} missing: pass MODEL --data DATA, or --features FILE --outputs FILE")


def _draws(network: nn.Module, data: object, start: nn.Module | None, build: Callable[[], nn.Module] | None) -> int:
    """Four draws where they can show something: the start is not known, and model and data can be used again."""
    import torch

    from ..model.batches import is_one_shot
    from ..model.redraw import redrawn

    if start is not None or is_one_shot(data):
        return 0
    if build is not None:
        return DRAWS
    try:
        with torch.no_grad(), torch.random.fork_rng():
            redrawn(network)
    except ValueError:
        return 0
    return DRAWS


def _write(result: Richness, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    numbers, curves, depth = (out / name for name in FILES)
    result.save(numbers)
    result.plot(curves)
    if result.layers:
        result.plot_layers(depth)
    print(f"\nFigures and result: {out}")
