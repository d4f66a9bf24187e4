"""Which networks end with about as many features in use as there are classes, and how well do these generalise?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...results.catalogue import entry
from ...results.drawing import COLOURS, as_text, heading, new_figure, quiet, save_figure
from ..experiment import Claim, Experiment, Preset, Results
from ..figures import DPI
from ..ingredients.data import Images
from ..ingredients.models import Mlp, Model, ResNet18, Vgg16
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup

CLASSES = 10
MINIMAL = 1.5 * CLASSES  # features for 95 % of the space of the outputs, at most


def setups(preset: Preset) -> dict[str, Setup]:
    """MLPs and convolutional networks, each with a squared loss. One MLP reads images that carry their labels."""
    quick = preset == "quick"
    images, test = (2_000, 2_000) if quick else (50_000, 10_000)

    def mlp(data: str, model: Model, encoded: float = 0.0) -> Setup:
        return Setup(
            data=Images(data, train=images, test=test, encoded=encoded),
            model=model,
            loss=Loss("squared"),
            optimizer=Optimizer("adam", 1e-3),
            steps=1_500 if quick else 20_000,
            measured=images if quick else 10_000,
        )

    def conv(model: Model, rate: float) -> Setup:
        count, batch, epochs = (1_000, 50, 40) if quick else (50_000, 128, 200)
        epoch = count // batch
        return Setup(
            data=Images("cifar10", train=count, test=test, augmented=not quick),
            model=model,
            loss=Loss("squared", weight=5.0),
            optimizer=Optimizer(
                "sgd", rate, weight_decay=5e-4, milestones=(epoch * epochs // 2, epoch * epochs * 3 // 4), warmup=epoch
            ),
            steps=epoch * epochs,
            batch_size=batch,
            measured=1_000 if quick else 10_000,
        )

    relu, tanh = Mlp(width=512, depth=4), Mlp(width=512, depth=4, activation="tanh")
    width = 8 if quick else 64
    return {
        "MLP (ReLU), MNIST": mlp("mnist", relu),
        "MLP (ReLU), Fashion-MNIST": mlp("fashion-mnist", relu),
        "MLP (ReLU), encoded MNIST": mlp("mnist", relu, encoded=1.5),
        "MLP (tanh), MNIST": mlp("mnist", tanh),
        "shallow MLP (ReLU), MNIST": mlp("mnist", Mlp(width=512, depth=2)),
        "ResNet18, CIFAR-10": conv(ResNet18(width=width), 0.05),
        "ResNet18 with group norm, CIFAR-10": conv(ResNet18(width=width, norm="group"), 0.02),
        "VGG16, CIFAR-10": conv(Vgg16(width=width, dropout=0.0), 0.02),
    }


def fitted(run: Run) -> bool:
    """Whether the training set is fitted."""
    return run.last("train_accuracy") >= 0.99


def is_minimal(run: Run) -> bool:
    """Whether about as many features are in use as there are classes."""
    return run.last("features_for_outputs") <= MINIMAL


def most_are_minimal(s: Mapping[str, Run]) -> bool:
    """Whether most of the networks that fit their training set are minimal."""
    networks = [is_minimal(run) for run in s.values() if fitted(run)]
    return sum(networks) > len(networks) / 2


def poor_inside(s: Mapping[str, Run]) -> bool:
    """Whether some minimal network tests below 50 %, and some above 85 %."""
    accuracies = [run.last("test_accuracy") for run in s.values() if fitted(run) and is_minimal(run)]
    return bool(accuracies) and min(accuracies) < 0.5 and max(accuracies) > 0.85


def shallow_is_lazier(s: Mapping[str, Run]) -> bool:
    """Whether one hidden layer ends with a higher D_LR and a higher λ than three, on the same images."""
    deep, shallow = s["MLP (ReLU), MNIST"], s["shallow MLP (ReLU), MNIST"]
    return all(shallow.last(measure) > deep.last(measure) for measure in ("low_rank", "laziness"))


def figures(results: Results, folder: Path) -> None:
    """Test accuracy over the number of features in use, and over D_LR: one mark a seed."""
    measures = ("features_for_outputs", "low_rank")
    figure = new_figure(11.5, 4.2, "experiments")
    axes: Any = figure.subplots(1, 2, sharey=True)
    marks = "osD^vPX*"
    for axis, measure in zip(axes, measures, strict=True):
        for k, (name, runs) in enumerate(results.runs.items()):
            points = [(run.last(measure), run.last("test_accuracy")) for run in runs]
            axis.plot(*zip(*points, strict=True), ls="", marker=marks[k % 8], color=COLOURS[k % 6], ms=6, label=as_text(name))
        axis.set_xlabel(entry(measure).title)
        axis.set_xlim(left=0)
        heading(axis, f"test accuracy over {entry(measure).title}", size=10)
        quiet(axis)
    axes[0].set_ylim(0, 1.03)
    axes[0].set_ylabel("test accuracy")
    axes[1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, folder / "features-in-use.png", DPI)


EXPERIMENT = Experiment(
    name="architectures",
    question="which networks end with about as many features in use as there are classes, and how well do these generalise?",
    varied="the network and its data",
    setups=setups,
    columns=("features_for_outputs", "nc1"),
    claims=(
        Claim(
            "most networks that fit their training set end minimal",
            "of the networks with training accuracy >= 99 %, more than half hold 95 % of the space of the outputs in at most 15 "
            "features",
            most_are_minimal,
        ),
        Claim(
            "among minimal networks there are good ones and poor ones",
            "of the fitted networks with at most 15 features in use, one has a test accuracy below 50 % and one above 85 %",
            poor_inside,
        ),
        Claim(
            "one hidden layer is lazier than three",
            "on the same images of MNIST, the last D_LR and the last λ are higher with one hidden layer",
            shallow_is_lazier,
            beyond=True,
        ),
    ),
    figures=figures,
)
