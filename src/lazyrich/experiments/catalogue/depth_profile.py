"""D_LR over the depth: has the last layer the strongest bias to low rank?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..._support.spread import mean_and_sd
from ...results.drawing import COLOURS, FAINT, as_text, heading, new_figure, quiet, save_figure
from ..experiment import Claim, Experiment, Preset, Results
from ..figures import DPI
from ..ingredients.data import Images, ModularArithmetic
from ..ingredients.models import Mlp, ResNet18, Transformer
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup, log_spaced_steps

MLP, RESNET, TRANSFORMER = "MLP, MNIST", "ResNet18, CIFAR-10", "transformer, subtraction"
LAYERS = {
    MLP: ("layer2", "layer3", "layer4", "head"),
    RESNET: ("stage1block1.conv1", "stage2block1.conv1", "stage3block1.conv1", "stage4block1.conv1", "head"),
    TRANSFORMER: ("blocks.0.mlp.0", "blocks.0.mlp.2", "blocks.1.mlp.0", "blocks.1.mlp.2", "head"),
}


def setups(preset: Preset) -> dict[str, Setup]:
    """Three networks, each trained until it fits its training set; the features that enter each layer are measured."""
    quick = preset == "quick"

    def setup(name: str, steps: int, batch: int, **parts: Any) -> Setup:
        return Setup(
            **parts,
            steps=steps,
            batch_size=batch,
            evaluate=log_spaced_steps(steps, 6),
            measured=2_000 if quick else 10_000,
            layers=LAYERS[name],
        )

    images, batch = (1_000, 50) if quick else (50_000, 128)
    epoch = images // batch
    steps = epoch * (40 if quick else 200)
    prime = 53 if quick else 97
    return {
        MLP: setup(
            MLP,
            1_500 if quick else 20_000,
            128,
            data=Images("mnist", train=2_000 if quick else 60_000, test=2_000 if quick else 10_000),
            model=Mlp(width=256 if quick else 512, depth=5),
            loss=Loss("squared"),
            optimizer=Optimizer("adam", 1e-3),
        ),
        RESNET: setup(
            RESNET,
            steps,
            batch,
            data=Images("cifar10", train=images, test=1_000 if quick else 10_000),
            model=ResNet18(width=8 if quick else 64),
            loss=Loss("squared"),
            optimizer=Optimizer("sgd", 0.1, weight_decay=5e-4, milestones=(steps // 2, 3 * steps // 4), warmup=epoch),
        ),
        TRANSFORMER: setup(
            TRANSFORMER,
            1_300 if quick else 6_000,
            256 if quick else 512,
            data=ModularArithmetic(prime, 0.6, "subtraction"),
            model=Transformer(tokens=prime + 2, width=128, depth=2, heads=4),
            loss=Loss("squared", weight=float(prime)),
            optimizer=Optimizer("adamw", 1e-3, weight_decay=1.0, betas=(0.9, 0.98), warmup=10),
        ),
    }


def profile(run: Run, name: str, index: int) -> list[float]:
    """D_LR of the features that enter each layer, the first layer first, at one evaluation."""
    return [float(run[f"low_rank of {layer}"][index]) for layer in LAYERS[name]]


def last_is_lowest(run: Run, name: str) -> bool:
    """Whether the features that enter the head have the lowest D_LR at the end."""
    *before, last = profile(run, name, -1)
    return all(last < value for value in before)


def last_falls_most(run: Run, name: str) -> bool:
    """Whether training lowers D_LR most before the head, in absolute terms."""
    falls = [start - end for start, end in zip(profile(run, name, 0), profile(run, name, -1), strict=True)]
    return all(falls[-1] > value for value in falls[:-1])


def mlp_lowest(s: Mapping[str, Run]) -> bool:
    """Whether the last layer of the MLP has the lowest D_LR."""
    return last_is_lowest(s[MLP], MLP)


def resnet_lowest(s: Mapping[str, Run]) -> bool:
    """Whether the last layer of the ResNet has the lowest D_LR."""
    return last_is_lowest(s[RESNET], RESNET)


def transformer_lowest(s: Mapping[str, Run]) -> bool:
    """Whether the last layer of the transformer has the lowest D_LR."""
    return last_is_lowest(s[TRANSFORMER], TRANSFORMER)


def mlp_falls(s: Mapping[str, Run]) -> bool:
    """Whether D_LR of the MLP falls most at the last layer."""
    return last_falls_most(s[MLP], MLP)


def resnet_falls(s: Mapping[str, Run]) -> bool:
    """Whether D_LR of the ResNet falls most at the last layer."""
    return last_falls_most(s[RESNET], RESNET)


def transformer_falls(s: Mapping[str, Run]) -> bool:
    """Whether D_LR of the transformer falls most at the last layer."""
    return last_falls_most(s[TRANSFORMER], TRANSFORMER)


RULES = {
    MLP: (mlp_lowest, mlp_falls),
    RESNET: (resnet_lowest, resnet_falls),
    TRANSFORMER: (transformer_lowest, transformer_falls),
}


def remarks(results: Results) -> list[str]:
    """The profile of each network, at the start and at the end."""
    lines = []
    for name, runs in results.runs.items():
        for index, when in ((0, "at the start"), (-1, "at the end")):
            mean, _ = mean_and_sd(np.array([profile(run, name, index) for run in runs]))
            parts = ", ".join(f"{layer} {value:.3f}" for layer, value in zip(LAYERS[name], mean.tolist(), strict=True))
            lines.append(f"{name}: D_LR of the features that enter each layer, {when}: {parts}")
    return lines


def figures(results: Results, folder: Path) -> None:
    """D_LR over the depth, at the start and at the end: one panel a network; bands are one standard deviation over seeds."""
    figure = new_figure(4.2 * len(results.runs), 3.9, "experiments")
    axes: Any = figure.subplots(1, len(results.runs), sharey=True, squeeze=False)
    for axis, (name, runs) in zip(axes[0], results.runs.items(), strict=True):
        depth = np.arange(len(LAYERS[name]))
        for index, label, colour, style in ((0, "at the start", FAINT, "--"), (-1, "at the end", COLOURS[0], "-")):
            mean, sd = mean_and_sd(np.array([profile(run, name, index) for run in runs]))
            axis.errorbar(depth, mean, yerr=np.nan_to_num(sd), color=colour, ls=style, marker="o", ms=4, capsize=2.5, label=label)
        axis.set_xticks(depth, [as_text(layer) for layer in LAYERS[name]], rotation=25, ha="right")
        axis.set_xlabel("layer that the features enter")
        heading(axis, as_text(name), size=10)
        quiet(axis)
    axes[0, 0].set_ylabel("$D_{LR}$")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].legend(frameon=False, fontsize=8)
    save_figure(figure, folder / "profile.png", DPI)


EXPERIMENT = Experiment(
    name="depth-profile",
    question="has the last layer the strongest bias to low rank?",
    varied="the layer of an MLP, of a ResNet and of a transformer",
    setups=setups,
    remarks=remarks,
    claims=tuple(
        claim
        for name, (lowest, falls) in RULES.items()
        for claim in (
            Claim(
                f"the features of the last layer have the lowest D_LR ({name})",
                "at the end D_LR of the features that enter the head is below that of the features that enter each layer before",
                lowest,
                conditions=(name,),
            ),
            Claim(
                f"training lowers D_LR most at the last layer ({name})",
                "D_LR at the start minus D_LR at the end is largest for the features that enter the head",
                falls,
                beyond=True,
                conditions=(name,),
            ),
        )
    ),
    figures=figures,
)
