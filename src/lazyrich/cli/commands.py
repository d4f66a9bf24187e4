"""The commands of the command line; a module of its own because their types need tyro."""

from __future__ import annotations

import copy
import importlib
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from torch import nn
from tyro.conf import Positional, arg

from .._support.text import did_you_mean
from ..errors import DataError, RankWarning
from ..experiments import EXPERIMENTS, Cluster, Machine, run_experiment, sweep_experiment
from ..experiments.experiment import Experiment, Preset
from ..measurement.cost import measurement_cost
from ..measurement.measure import measure as measure_model
from ..model.checkpoints import load_checkpoint
from ..model.layers import Pooling
from ..report import write_report
from ..results.richness import Richness
from ..training.trace import trace as trace_checkpoints
from .demo import run_demo


def demo(
    out: Annotated[Path, arg(help="Folder for the figure and the results.", metavar="DIR")] = Path("lazyrich-demo"),
    seed: Annotated[int, arg(help="Seed of both networks.")] = 0,
    progress: Annotated[bool, arg(help="Show a progress bar.")] = True,
) -> None:
    """Trains two networks on scikit-learn's digits, one in full and one with its last layer alone, and measures both."""
    run_demo(out, seed=seed, progress=progress)


def measure(
    model: Annotated[Positional[str], arg(help="Function that builds the model, as package.module:function.", metavar="MODEL")],
    data: Annotated[str, arg(help="Function that builds the data loader, as package.module:function.", metavar="DATA")],
    checkpoint: Annotated[
        Path | None, arg(help="Weights to load, .pt or .safetensors; without it the model is measured as built.", metavar="FILE")
    ] = None,
    head: Annotated[
        str | None, arg(help="Dotted name of the last linear layer; found by itself if not given.", metavar="NAME")
    ] = None,
    layers: Annotated[
        tuple[str, ...],
        arg(
            help="Also measure what these layers see: dotted names, or 'all' for all linear and convolution layers.",
            metavar="NAME…",
        ),
    ] = (),
    pooling: Annotated[
        Pooling, arg(help="How the places of a map or the tokens of a sequence in a layer become rows.")
    ] = "average",
    start: Annotated[
        Path | None, arg(help="Weights at the start of training: adds S_init and the parameters' distance.", metavar="FILE")
    ] = None,
    class_balanced: Annotated[bool, arg(help="Weigh samples so that every class counts the same.")] = False,
    num_samples: Annotated[int | None, arg(help="Stop after this many samples.", metavar="N")] = None,
    nc4: Annotated[bool, arg(help="Also compute NC4, which takes a second pass over the data.")] = False,
    check: Annotated[
        bool, arg(help="First look a second time at one batch: stop if data or model are not deterministic, and say which.")
    ] = False,
    device: Annotated[str | None, arg(help="Where to run, such as cuda:0; by default where the model is.")] = None,
    out: Annotated[
        Path | None,
        arg(help="Folder for richness.json, richness.png and layers.png; nothing is written without it.", metavar="DIR"),
    ] = None,
    progress: Annotated[bool, arg(help="Show a progress bar.")] = True,
) -> None:
    """Measures a network of your own: rich or lazy?"""
    network = _network(model)
    if checkpoint is not None:
        load_checkpoint(network, checkpoint)
    loader = _built(data, "--data")
    options: dict[str, Any] = {"head": head, "num_samples": num_samples, "nc4": nc4, "device": device, "progress": progress}
    options |= {"pooling": pooling, "class_balanced": class_balanced, "layers": _layers(layers), "check": check}
    if start is not None:
        options["start"] = copy.deepcopy(network)
        load_checkpoint(options["start"], start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)  # it stands under the table
        result = measure_model(network, loader, **options)
    print(result)
    if out is not None:
        _write(result, out)


def cost(
    samples: Annotated[int, arg(help="Samples, or tokens where the model answers at every one.", metavar="N")],
    features: Annotated[int, arg(help="Width of what the last linear layer sees.", metavar="P")],
    outputs: Annotated[int, arg(help="Outputs of the last linear layer.", metavar="C")],
    targets: Annotated[int | None, arg(help="Columns of the targets; by default class labels.", metavar="T")] = None,
    layers: Annotated[tuple[int, ...], arg(help="Widths of other layers that are measured too.", metavar="P…")] = (),
    processes: Annotated[int, arg(help="Processes that share the samples.", metavar="N")] = 1,
    positions: Annotated[bool, arg(help="Rows are tokens or pixels of an input.")] = False,
) -> None:
    """Tells what a measurement will cost on each process, beside the model's own forward passes."""
    print(measurement_cost(samples, features, outputs, targets=targets, layers=layers, processes=processes, positions=positions))


def trace(
    model: Annotated[Positional[str], arg(help="Function that builds the model, as package.module:function.", metavar="MODEL")],
    checkpoints: Annotated[
        Positional[tuple[str, ...]],
        arg(
            help="Files, folders as Transformers saves them, folders of those, or glob patterns; the step is the number after "
            "'step' in a name, or else the last whole number in it.",
            metavar="CHECKPOINTS…",
        ),
    ],
    data: Annotated[str, arg(help="Function that builds the data loader, as package.module:function.", metavar="DATA")],
    out: Annotated[Path, arg(help="Folder for the series and its picture.", metavar="DIR")],
    resume: Annotated[bool, arg(help="Go on with what DIR holds.")] = False,
    steps: Annotated[
        tuple[int, ...], arg(help="One for each checkpoint, in the order of the names; by default the names tell.", metavar="N…")
    ] = (),
    start: Annotated[
        Path | None,
        arg(help="Weights at the start of training, for S_init; by default the checkpoint of step 0, if any.", metavar="FILE"),
    ] = None,
    head: Annotated[
        str | None, arg(help="Dotted name of the last linear layer; found by itself if not given.", metavar="NAME")
    ] = None,
    layers: Annotated[
        tuple[str, ...], arg(help="Also measure what these layers see: dotted names, or 'all'.", metavar="NAME…")
    ] = (),
    pooling: Annotated[
        Pooling, arg(help="How the places of a map or the tokens of a sequence in a layer become rows.")
    ] = "average",
    class_balanced: Annotated[bool, arg(help="Weigh samples so that every class counts the same.")] = False,
    num_samples: Annotated[int, arg(help="How many samples are measured; the same for every checkpoint.", metavar="N")] = 2000,
    nc4: Annotated[bool, arg(help="Also compute NC4, which takes a second pass over the data.")] = False,
    device: Annotated[str | None, arg(help="Where to run, such as cuda:0; by default where the model is.")] = None,
    progress: Annotated[bool, arg(help="Show a progress bar.")] = True,
) -> None:
    """Measures a series of checkpoints on the same data: how rich or lazy the network was over its training."""
    series = trace_checkpoints(
        _network(model), checkpoints, _built(data, "--data"), out=out, resume=resume, steps=steps or None, start=start, head=head,
        layers=_layers(layers), pooling=pooling, num_samples=num_samples, class_balanced=class_balanced, nc4=nc4, device=device,
        progress=progress,
    )  # fmt: skip
    print(series)
    series.plot(out / "series.png")
    print(f"\nSeries and figure: {out}")


def experiments() -> None:
    """Lists the experiments: what each asks and varies."""
    for experiment in EXPERIMENTS.values():
        print(f"{experiment.name:<17} {experiment.question}\n{'':<17} varied: {experiment.varied}")
    print("\nRun one with: lazyrich run NAME")


def run(
    name: Annotated[Positional[str], arg(help="One of those that `lazyrich experiments` lists.", metavar="NAME")],
    preset: Annotated[
        Preset, arg(help="quick: narrow networks and few images, for a CPU; paper: the published size, for a GPU.")
    ] = "quick",
    seeds: Annotated[int, arg(help="How many seeds, from 0.", metavar="N")] = 3,
    out: Annotated[
        Path, arg(help="Results go below it, to PRESET/NAME: table, numbers, figures, and a folder for each run.", metavar="DIR")
    ] = Path("lazyrich-results"),
    resume: Annotated[bool, arg(help="Go on with what DIR holds.")] = False,
    data: Annotated[
        Path | None,
        arg(
            help="Folder of the data sets; by default $LAZYRICH_DATA, else the user's cache.",
            metavar="DIR",
        ),
    ] = None,
    accelerator: Annotated[Literal["auto", "cpu", "gpu", "mps"], arg(help="Where to run.")] = "auto",
    processes: Annotated[int, arg(help="Processes that split every batch, one for each device.", metavar="N")] = 1,
    precision: Annotated[
        Literal["32-true", "bf16-mixed", "16-mixed"], arg(help="Of training; measures are always taken in float32.")
    ] = "32-true",
    progress: Annotated[bool, arg(help="Show a progress bar.")] = True,
) -> None:
    """Runs an experiment and ends with the table: ours beside the published, and each claim shown or not shown."""
    experiment = _experiment(name)
    folder = out / preset / name
    text = run_experiment(
        experiment,
        preset,
        folder,
        seeds=seeds,
        resume=resume,
        data=data,
        machine=Machine(accelerator, processes, precision),
        progress=progress,
    )
    print(f"{text}\n\nTable, numbers and figures: {folder}")


def sweep(
    name: Annotated[
        Positional[str],
        arg(help="One of those that `lazyrich experiments` lists; it stands before --grid and --conditions.", metavar="NAME"),
    ],
    grid: Annotated[
        tuple[str, ...],
        arg(
            help="Fields of the experiment's setup, each with the values it shall take: optimizer.rate=0.01,0.1 "
            "model.width=64,128 gives four points. A wrong name is answered with those that there are.",
            metavar="FIELD=VALUE,VALUE…",
        ),
    ] = (),
    conditions: Annotated[
        tuple[str, ...], arg(help="Which of the experiment's conditions; by default all.", metavar="CONDITION…")
    ] = (),
    preset: Annotated[
        Preset, arg(help="quick: narrow networks and few images, for a CPU; paper: the published size, for a GPU.")
    ] = "quick",
    seeds: Annotated[int, arg(help="How many seeds, from 0.", metavar="N")] = 3,
    out: Annotated[
        Path,
        arg(
            help="Results go below it, to PRESET/NAME: table, numbers, and a folder for each run. On a cluster it must lie on a "
            "disk that all machines share.",
            metavar="DIR",
        ),
    ] = Path("lazyrich-sweeps"),
    resume: Annotated[
        bool, arg(help="Go on with what DIR holds: runs that are whole stay, those that failed or were stopped are tried again.")
    ] = False,
    data: Annotated[
        Path | None,
        arg(help="Folder of the data sets, for all machines; by default $LAZYRICH_DATA, else the user's cache.", metavar="DIR"),
    ] = None,
    address: Annotated[
        str | None,
        arg(
            help="A Ray cluster that runs already: auto on one of its machines, or HOST:6379; by default Ray is started on this "
            "machine, on all its cores, and ended again.",
            metavar="HOST:PORT",
        ),
    ] = None,
    cpus_per_run: Annotated[int, arg(help="Cores for each run, which computes with as many threads.", metavar="N")] = 1,
    gpus_per_run: Annotated[
        float, arg(help="GPUs for each run: 1, or a part such as 0.5 for two runs on one; 0 trains on the CPU.", metavar="N")
    ] = 0.0,
    retries: Annotated[
        int,
        arg(help="How often a run whose process or machine was lost is taken up again from its last checkpoint.", metavar="N"),
    ] = 3,
    precision: Annotated[
        Literal["32-true", "bf16-mixed", "16-mixed"], arg(help="Of training; measures are always taken in float32.")
    ] = "32-true",
    progress: Annotated[bool, arg(help="Show a progress bar.")] = True,
) -> None:
    """Runs an experiment at every point of a grid of settings, its runs side by side on this machine or a Ray cluster."""
    experiment, folder = _experiment(name), out / preset / name
    swept = sweep_experiment(
        experiment, preset, folder, grid=grid, conditions=conditions, seeds=seeds, resume=resume, data=data,
        cluster=Cluster(address, cpus_per_run, gpus_per_run, retries), precision=precision, progress=progress,
    )  # fmt: skip
    print(f"{swept}\n\nTable and numbers: {folder}")
    if swept.failed:
        raise DataError(f"{len(swept.failed)} of {swept.runs} runs failed; the same command with --resume tries them again")


def report(
    source: Annotated[
        Positional[Path],
        arg(
            help="What `measure --out`, a Monitor or `run` wrote: a result, a series, an experiment, or a folder of several.",
            metavar="DIR",
        ),
    ],
    out: Annotated[Path | None, arg(help="The page; by default DIR/report.html.", metavar="FILE")] = None,
) -> None:
    """Writes one page that needs no network: the numbers, the curves over time, all runs side by side."""
    print(f"Report: {write_report(source, out, generated=datetime.now().astimezone())}")


def _experiment(name: str) -> Experiment:
    if name not in EXPERIMENTS:
        raise DataError(f"no experiment {name!r}{did_you_mean(name, EXPERIMENTS)} There are: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def _built(where: str, argument: str) -> Any:
    """Calls the function that ``package.module:function`` names; modules of the current folder are found too."""
    module_name, colon, function_name = where.partition(":")
    if not colon or not module_name or not function_name:
        raise DataError(f"{argument} must be package.module:function, got {where!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise DataError(f"{argument}: cannot import {module_name!r} ({error}); run from the folder that holds it") from error
    if not callable(getattr(module, function_name, None)):
        names = ", ".join(n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_")) or "none"
        raise DataError(f"{argument}: {module_name} has no function {function_name!r}; it has: {names}")
    return getattr(module, function_name)()


def _network(where: str) -> nn.Module:
    network = _built(where, "MODEL")
    if not isinstance(network, nn.Module):
        raise DataError(f"MODEL: {where} gave a {type(network).__name__}, not a torch.nn.Module")
    return network


def _layers(names: tuple[str, ...]) -> str | tuple[str, ...] | None:
    return "all" if names == ("all",) else names or None


def _write(result: Richness, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    result.save(out / "richness.json")
    result.plot(out / "richness.png")
    if result.layers:
        result.plot_layers(out / "layers.png")
    print(f"\nFigure and result: {out}")
