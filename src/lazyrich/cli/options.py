"""The options that several commands share: each has one name, one type and one sentence of help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

# Spelled out here, and not imported from where the library declares them, because those modules import torch.
PoolingName = Literal["average", "flatten", "positions", "first", "last"]
PresetName = Literal["quick", "medium", "paper"]
PrecisionName = Literal["32-true", "bf16-mixed", "16-mixed"]

MODEL = "Function that builds the model, as package.module:function; or hf:FOLDER, a local folder of Transformers."
DATA = (
    "Function that builds the data loader, as package.module:function; for hf:FOLDER also a file .csv, .tsv, .jsonl, .json or "
    ".parquet, or a folder with images in a folder for each class."
)
Model = Annotated[Positional[str], arg(help=MODEL, metavar="MODEL")]
Loader = Annotated[str, arg(help=DATA, metavar="DATA")]
LoaderFunction = Annotated[str, arg(help="Function that builds the data loader, as package.module:function.", metavar="DATA")]
Text = Annotated[
    str | None,
    arg(
        help="With a file of texts: the column of the text, or two columns with a comma in between.",
        metavar="COLUMN",
        help_behavior_hint="(default: a column with a usual name)",
    ),
]
Label = Annotated[
    str | None,
    arg(
        help="With a file of texts: the column of the labels.",
        metavar="COLUMN",
        help_behavior_hint="(default: a column with a usual name, where there is one)",
    ),
]
Head = Annotated[
    str | None,
    arg(help="Dotted name of the last linear layer.", metavar="NAME", help_behavior_hint="(default: found automatically)"),
]
Layers = Annotated[
    tuple[str, ...],
    arg(
        help="Also measure the inputs of these layers: dotted names, or 'all' for every linear and convolution layer.",
        metavar="NAME…",
        help_behavior_hint="(default: none)",
    ),
]
Pooling = Annotated[
    PoolingName, arg(help="How the positions of a feature map or the tokens of a sequence in a layer become rows.")
]
ClassBalanced = Annotated[bool, arg(help="Weight the samples so that all classes count equally.")]
Nc4 = Annotated[bool, arg(help="Also compute NC4, which takes a second pass over the data.")]
Device = Annotated[
    str | None,
    arg(help="Device to run on, such as cuda:0.", metavar="DEVICE", help_behavior_hint="(default: the model's device)"),
]
Rows = Annotated[
    str | None,
    arg(
        help="Which rows count: all, mask, labels, or the key of a tensor in the batch.",
        metavar="ROWS",
        help_behavior_hint="(default: what the mask keeps and whose label is not ignored)",
    ),
]
IgnoreIndex = Annotated[int, arg(help="Labels of this value do not count.", metavar="N")]
Key = Annotated[
    str | None,
    arg(
        help="Entry of the checkpoint that holds the state dict; dots lead to inner entries.",
        metavar="KEY",
        help_behavior_hint="(default: the usual names)",
    ),
]
Strict = Annotated[bool, arg(help="Fail if a checkpoint has entries that the model does not have.")]
Progress = Annotated[bool, arg(help="Show a progress bar.")]

Overwrite = Annotated[bool, arg(help="Replace what an earlier run wrote there.")]

Experiment = Annotated[Positional[str], arg(help="One of the names that `lazyrich experiments` lists.", metavar="NAME")]
Preset = Annotated[
    PresetName,
    arg(
        help="quick: narrow networks and few images, for minutes on a CPU; medium (batch-norm and label-shuffle): more images, "
        "wider networks, for hours on a CPU; paper: the published size, on a GPU."
    ),
]
Seeds = Annotated[
    str, arg(help="A count N, which means the seeds 0 to N - 1; or seed numbers, as 100-104 or 0,3,7.", metavar="N|SEEDS")
]
Conditions = Annotated[
    tuple[str, ...],
    arg(
        help="Conditions of the experiment to run. NAME comes before this option.",
        metavar="CONDITION…",
        help_behavior_hint="(default: all)",
    ),
]
DataFolder = Annotated[
    Path | None,
    arg(help="Folder of the data sets.", metavar="DIR", help_behavior_hint="(default: $LAZYRICH_DATA, else the user's cache)"),
]
Precision = Annotated[PrecisionName, arg(help="Precision of training; the network is always measured in float32.")]


def chosen_layers(names: tuple[str, ...]) -> str | tuple[str, ...] | None:
    """What ``--layers`` means to the library."""
    return "all" if names == ("all",) else names or None
