"""How many samples D_LR needs, for fewer and for more samples than features; and what held-out samples say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..experiment import Claim, Experiment, Preset, Results
from ..figures import over_factor
from ..ingredients.data import Images
from ..ingredients.models import Mlp
from ..run_folder import Run
from ..setup import Loss, Optimizer, Setup

RICH, LAZY = "rich", "lazy"
QUICK_COUNTS, PAPER_COUNTS = (64, 256, 1_000, 4_000), (128, 512, 2_000, 10_000)  # fewer than features, as many, and more
MEASURES = ("low_rank", "low_rank_corrected", "quality_of_the_first_10", "held_out_quality_of_the_first_10")
SCALES = {RICH: 1.0, LAZY: 10.0}  # of the outputs: 1/γ₀


def name(network: str, count: int) -> str:
    """Name of a condition."""
    return f"{network}, n = {count:,}"


def counts(conditions: Mapping[str, object]) -> tuple[int, ...]:
    """The numbers of samples of one of the networks, smallest first."""
    return tuple(sorted({int(c.rpartition(" = ")[2].replace(",", "")) for c in conditions}))


def setups(preset: Preset) -> dict[str, Setup]:
    """Two antisymmetric MLPs, one richer and one lazier, each trained again for each number of samples: one seed is one network.

    The learning rate falls with the square of the scale of the outputs, so that these move equally fast.
    """
    quick = preset == "quick"
    sizes = QUICK_COUNTS if quick else PAPER_COUNTS

    def setup(scale: float, count: int) -> Setup:
        return Setup(
            data=Images("mnist", train=sizes[-1], test=sizes[-1]),
            model=Mlp(width=sizes[1] // 2, depth=3, antisymmetric=True, output_scale=scale),
            loss=Loss("squared", weight=10.0),
            optimizer=Optimizer("sgd", 0.05 / scale**2, momentum=0.9),
            steps=1_500 if quick else 10_000,
            measured=count,
            held_out=True,
        )

    return {name(network, count): setup(scale, count) for network, scale in SCALES.items() for count in sizes}


def lines(conditions: Mapping[str, object]) -> dict[str, dict[str, float]]:
    """Network -> {condition: number of samples}."""
    return {network: {name(network, count): float(count) for count in counts(conditions)} for network in SCALES}


def error(s: Mapping[str, Run], network: str, count: int, measure: str) -> float:
    """Distance of a measure from the corrected value of the most samples."""
    best = s[name(network, counts(s)[-1])].last("low_rank_corrected")
    return abs(s[name(network, count)].last(measure) - best)


def correction_helps(s: Mapping[str, Run], network: str) -> bool:
    """Whether the corrected value is nearer than the plug-in, with as many samples as features and fewer than the most."""
    return all(error(s, network, count, "low_rank_corrected") < error(s, network, count, "low_rank") for count in counts(s)[1:-1])


def correction_helps_rich(s: Mapping[str, Run]) -> bool:
    """Whether it does for the richer network."""
    return correction_helps(s, RICH)


def correction_helps_lazy(s: Mapping[str, Run]) -> bool:
    """Whether it does for the lazier network."""
    return correction_helps(s, LAZY)


def gap(s: Mapping[str, Run], network: str, count: int) -> float:
    """Quality of the ten strongest features on the samples that they are from, minus that on held-out ones."""
    run = s[name(network, count)]
    return run.last("quality_of_the_first_10") - run.last("held_out_quality_of_the_first_10")


def held_out_differs_most_where_rich(s: Mapping[str, Run]) -> bool:
    """Whether the gap is positive for every number of samples and both networks, and with the most larger for the richer one."""
    gaps = {network: [gap(s, network, count) for count in counts(s)] for network in SCALES}
    return min(min(of_network) for of_network in gaps.values()) > 0 and gaps[RICH][-1] > gaps[LAZY][-1]


def figures(results: Results, folder: Path) -> None:
    """D_LR and the quality of the ten strongest features over the number of samples."""
    over_factor(results, folder / "over-samples.png", lines(results.runs), "samples n", MEASURES)


EXPERIMENT = Experiment(
    name="sample-size",
    question="how many samples does D_LR need, and what do held-out samples say of the features?",
    varied="the number of samples of two networks that are measured",
    setups=setups,
    columns=MEASURES[2:],
    claims=(
        *(
            Claim(
                f"the corrected value is nearer to that of all samples than the plug-in ({network})",
                "with as many samples as features and with four times as many, the corrected D_LR is nearer than the plug-in to "
                "the corrected D_LR of the most samples",
                rule,
                beyond=True,
            )
            for network, rule in ((RICH, correction_helps_rich), (LAZY, correction_helps_lazy))
        ),
        Claim(
            "held-out images see less quality in the ten strongest features, most so in the richer network",
            "quality on the samples minus quality on held-out images is positive for every number of samples and both networks, "
            "and with the most samples larger for the richer network",
            held_out_differs_most_where_rich,
            beyond=True,
        ),
    ),
    figures=figures,
)
