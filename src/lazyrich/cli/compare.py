"""``lazyrich compare``: networks on the same rows, and whether their differences are larger than their errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from .._support.text import plain
from . import options
from .failures import UsageError
from .outputs import check_folder
from .user_code import build, build_model

if TYPE_CHECKING:
    from torch import nn

FILES = ("comparison.json", "comparison.png")


def compare(
    networks: Annotated[
        Positional[tuple[str, ...]],
        arg(
            help="Functions that build models, as package.module:function. Each is followed by the files of weights to load into "
            "it: every file is a network. A function without a file is the model as it is built.",
            metavar="MODEL [FILE…]…",
            help_behavior_hint="(required)",
        ),
    ],
    *,
    data: options.LoaderFunction,
    start: Annotated[
        Path | None,
        arg(
            help="Weights of the first MODEL at the start of training, one start for all networks; adds λ.",
            metavar="FILE",
            help_behavior_hint="(default: none)",
        ),
    ] = None,
    key: options.Key = None,
    strict: options.Strict = True,
    head: options.Head = None,
    rows: options.Rows = None,
    ignore_index: options.IgnoreIndex = -100,
    class_balanced: options.ClassBalanced = False,
    num_samples: Annotated[
        int | None, arg(help="Stop after this many samples.", metavar="N", help_behavior_hint="(default: all data)")
    ] = None,
    device: options.Device = None,
    out: Annotated[
        Path | None,
        arg(
            help="Folder for comparison.json and comparison.png.",
            metavar="DIR",
            help_behavior_hint="(default: nothing is written)",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    progress: options.Progress = True,
) -> None:
    """Compare two or more networks on the same rows: which is richer, and is the difference larger than its error?"""
    named = _named(networks)
    if out is not None:
        check_folder(out, FILES, overwrite=overwrite)
    from ..measurement.compare import compare as compare_models
    from ..model.checkpoints import load_checkpoint
    from ..model.copying import copied_model

    built = {function: build_model(function) for function, _ in named.values()}
    models: dict[str, nn.Module] = {}
    notes: list[str] = []
    for name, (function, file) in named.items():
        models[name] = copied_model(built[function])
        if file is not None:
            notes += [f"{name}: {note}" for note in load_checkpoint(models[name], file, key=key, strict=strict)]
    beginning = None
    if start is not None:
        beginning = copied_model(next(iter(built.values())))
        load_checkpoint(beginning, start, key=key, strict=strict)
    found = compare_models(
        models, build(data, "--data"), head=head, rows=rows, ignore_index=ignore_index, start=beginning,
        num_samples=num_samples, class_balanced=class_balanced, device=device, progress=progress,
    )  # fmt: skip
    print(found)
    for note in notes:
        print(f"! {plain(note)}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        numbers, figure = (out / name for name in FILES)
        found.save(numbers)
        found.plot(figure)
        print(f"\nFigure and result: {out}")


def _named(tokens: tuple[str, ...]) -> dict[str, tuple[str, Path | None]]:
    """Name of each network -> the function that builds it, and its file. Files are named by the shortest part that differs."""
    networks = list(_networks(tokens))
    if len(networks) < 2:
        raise UsageError(f"a comparison takes two networks or more, got {len(networks)}: pass MODEL FILE FILE, or MODEL MODEL")
    if twice := next((one for k, one in enumerate(networks) if one in networks[:k]), None):
        raise UsageError(f"{twice[1] or twice[0]} is named twice")

    def unique(names: list[str]) -> bool:
        return len(set(names)) == len(names)

    short, whole = [[function if file is None else form(file) for function, file in networks] for form in (_stem, str)]
    names = next((names for names in (short, whole) if unique(names)), [" ".join(map(str, one)) for one in networks])
    return dict(zip(names, networks, strict=True))


def _stem(file: Path) -> str:
    return file.stem


def _networks(tokens: tuple[str, ...]) -> Iterator[tuple[str, Path | None]]:
    """The function and the file of each network."""
    function, used = None, True
    for token in tokens:
        if re.fullmatch(r"[\w.]+:\w*", token) and not Path(token).exists():
            if function is not None and not used:
                yield function, None
            function, used = token, False
        elif function is None:
            raise UsageError(f"MODEL must come first, as package.module:function, and then files of weights; got {token!r}")
        else:
            yield function, Path(token)
            used = True
    if function is not None and not used:
        yield function, None
