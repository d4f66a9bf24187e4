"""Weight decay: measures of the weights or of the distance from the start change with it, and D_LR and the curves hardly do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..experiment import Claim, Experiment, Preset, Results
from ..figures import over_factor, over_time
from ..ingredients.data import Images
from ..ingredients.models import Mlp, ResNet18
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup, log_spaced_steps

MLP = {"MLP, decay 0": 0.0, "MLP, decay 1e-5": 1e-5, "MLP, decay 1e-4": 1e-4, "MLP, decay 1e-3": 1e-3}
RESNET = {"ResNet18, decay 0": 0.0, "ResNet18, decay 5e-4": 5e-4, "ResNet18, decay 2e-3": 2e-3}
MEASURES = ("low_rank", "balanced", "s_init", "parameter_norm", "parameter_distance", "nc1", "target_alignment", "test_accuracy")


def setups(preset: Preset) -> dict[str, Setup]:
    """An MLP on MNIST and a ResNet18 on CIFAR-10, each over its range of weight decay."""
    quick = preset == "quick"

    def mlp(decay: float) -> Setup:
        images, steps = (2_000, 1_500) if quick else (60_000, 20_000)
        return Setup(
            data=Images("mnist", train=images, test=2_000 if quick else 10_000),
            model=Mlp(width=512, depth=4),
            loss=Loss("squared"),
            optimizer=Optimizer("adam", 1e-3, weight_decay=decay),
            steps=steps,
            evaluate=log_spaced_steps(steps, 8),
            measured=2_000 if quick else 10_000,
        )

    def resnet(decay: float) -> Setup:
        images, batch, epochs = (1_000, 50, 18) if quick else (50_000, 128, 200)
        steps = images // batch * epochs
        return Setup(
            data=Images("cifar10", train=images, test=1_000 if quick else 10_000, augmented=not quick),
            model=ResNet18(width=8 if quick else 64),
            loss=Loss("squared"),
            optimizer=Optimizer("sgd", 0.1, weight_decay=decay, milestones=(steps // 2, 3 * steps // 4), warmup=images // batch),
            steps=steps,
            batch_size=batch,
            evaluate=(0, steps // 4, steps // 2),
            measured=1_000 if quick else 10_000,
        )

    return {name: mlp(d) for name, d in MLP.items()} | {name: resnet(d) for name, d in RESNET.items()}


def span(s: Mapping[str, Run], conditions: Mapping[str, float], measure: str) -> float:
    """Largest minus smallest value at the end, as a share of the largest distance from zero."""
    values = [s[name].last(measure) for name in conditions]
    return (max(values) - min(values)) / max(map(abs, values))


def weights_and_collapse_move(s: Mapping[str, Run]) -> bool:
    """Whether the norm of the parameters, their distance from the start and NC1 each span half of their largest value."""
    return min(span(s, MLP, measure) for measure in ("parameter_norm", "parameter_distance", "nc1")) >= 0.5


def s_init_moves(s: Mapping[str, Run]) -> bool:
    """Whether S_init spans half of its largest value."""
    return span(s, MLP, "s_init") >= 0.5


def d_lr_moves_less(s: Mapping[str, Run]) -> bool:
    """Whether D_LR spans less than half of its largest value."""
    return span(s, MLP, "low_rank") < 0.5


def d_lr_spans_little(s: Mapping[str, Run]) -> bool:
    """Whether D_LR spans less than a tenth of its scale."""
    values = [s[name].last("low_rank") for name in MLP]
    return max(values) - min(values) < 0.1


def figures(results: Results, folder: Path) -> None:
    """All measures over weight decay, and the runs over time."""
    over_factor(results, folder / "over-decay.png", {"MLP, MNIST": MLP, "ResNet18, CIFAR-10": RESNET}, "weight decay", MEASURES)
    over_time(results, folder / "over-time.png", list(MLP), measures=("low_rank", "s_init"))


EXPERIMENT = Experiment(
    name="weight-decay",
    question="which measures mistake weight decay for richness?",
    varied="weight decay, for two networks",
    setups=setups,
    columns=("s_init", "parameter_norm", "parameter_distance", "nc1", "target_alignment"),
    claims=(
        Claim(
            "the norm of the parameters, their distance from the start and NC1 move by half and more (MLP)",
            "over the range of decay each spans at least 50 % of its largest value",
            weights_and_collapse_move,
            conditions=tuple(MLP),
        ),
        Claim(
            "so does S_init (MLP)",
            "over the range of decay it spans at least 50 % of its largest value",
            s_init_moves,
            conditions=tuple(MLP),
        ),
        Claim(
            "D_LR moves by less than half (MLP)",
            "over the range of decay it spans less than 50 % of its largest value",
            d_lr_moves_less,
            conditions=tuple(MLP),
        ),
    ),
    former=(
        Claim(
            "D_LR stays low all the while (MLP)",
            "D_LR spans less than 0.1 of its scale of 0 to 1 over the range of decay",
            d_lr_spans_little,
        ),
    ),
    figures=figures,
)
