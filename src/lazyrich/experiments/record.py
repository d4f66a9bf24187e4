"""What is written next to the results: all numbers as CSV, the command that reproduces them, the machine and the versions."""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .machine import Machine
from .provenance import commit, hashes_of_arrays, processor
from .run_folder import Run
from .setup import Setup


def tidy_csv(columns: Sequence[str], runs: Iterable[tuple[Sequence[Any], Run]]) -> str:
    """All numbers as CSV, one in each row.

    Args:
        columns: names of the first columns, which identify the run.
        runs: (values of these columns, the run).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "step", "measure", "value"])
    for labels, run in runs:
        for measure in run.measures:
            for step, value in zip(run.steps.tolist(), run[measure].tolist(), strict=True):
                if not math.isnan(value):
                    writer.writerow([*labels, step, measure, f"{value:.7g}"])
    return text.getvalue()


def command_line(command: str, name: str, options: Mapping[str, tuple[Any, Any]]) -> str:
    """The command that reproduces the results of an experiment.

    Args:
        options: option -> (value or sequence of values, default); an option with its default value is left out.

    >>> command_line("sweep", "grokking", {"grid": (("steps=10", "model.width=8,16"), ()), "seeds": (3, None), "retries": (2, 2)})
    'lazyrich sweep grokking --grid steps=10 model.width=8,16 --seeds 3'
    """
    words = ["lazyrich", command, name]
    for option, (value, default) in options.items():
        values = list(value) if isinstance(value, (tuple, list)) else [value]
        if values and value != default:
            words += [f"--{option.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def facts(
    command: str, seeds: Sequence[int], machine: Machine, seconds: float, setups: Iterable[Setup], root: Path
) -> dict[str, Any]:
    """What a reader needs to know of the results: the command, the commit, the data, the duration, the machine, the versions.

    Args:
        root: folder of the data sets.
    """
    on_gpu = torch.cuda.is_available() and machine.accelerator != "cpu"
    head, clean = commit()
    return {
        "command": command,
        "seeds": list(seeds),
        "commit": head,
        "clean": clean,
        "arrays": hashes_of_arrays(setups, root),
        "seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "processes": machine.processes,
        "precision": machine.precision,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("lazyrich", "torch", "numpy", "lightning")},
        },
    }
