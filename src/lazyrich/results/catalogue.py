"""The one list of measures: every number of a result, a layer or an evaluation, with its name, symbol, label and meaning.

Tables, figures, the report, the experiments and the files read this list. A new measure is one entry here, and no other list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from .._support.text import did_you_mean
from ..gram import Gram
from .measures import Measure
from .names import split_layer_value

GROUPS = {
    "richness": "How rich are the features?",
    "spaces": "How many directions do the outputs and the features have?",
    "collapse": "Have the features of each class collapsed to their mean?",
    "start": "How far is the network from its start?",
    "features": "What do other measures of the features report?",
    "training": "How well does the network solve its task?",
    "data": "What was measured?",
}

LOGGED = (  # what `Richness.logged` gives a logger
    "low_rank", "low_rank_corrected", "low_rank_stderr", "laziness", "isotropic", "output_rank", "nc1", "s_init",
)  # fmt: skip

_ENTRIES = (
    Measure(
        "low_rank", "D_LR", "D_LR (0 = rich)", "richness", "0 to 1",
        "Measures how far the features are from holding the learned functions, evenly, and nothing else.",
        richer="lower", format=".4f", math="$D_{LR}$", column=True,
    ),
    Measure(
        "low_rank_corrected", "corrected", "bias-corrected", "richness", "about 0 to 1",
        "D_LR without the bias that a limited number of samples causes.",
        richer="lower", format=".4f", part_of="D_LR", error="low_rank_stderr", column=True,
    ),
    Measure(
        "low_rank_stderr", "± stderr", "standard error", "richness", "0 or more",
        "Standard error of the bias-corrected D_LR.",
        format=".4f", part_of="D_LR", within="low_rank_corrected", column=True,
    ),
    Measure(
        "reduction_stderr", "± projection", "standard error of the projection", "richness", "0 or more",
        "Standard error of D_LR of a wide layer, which a random projection of its features causes.",
        format=".4f", part_of="D_LR", within="layers",
    ),
    Measure(
        "isotropic", "isotropic", "isotropic features", "richness", "0 to 1",
        "D_LR of features without structure, of the same width and against the same outputs.",
        format=".4f", part_of="D_LR", column=True,
    ),
    Measure(
        "low_rank_band", "band", "at rtol 0.001 / 0.01 / 0.1", "richness", "0 to 1",
        "D_LR without the output directions whose singular value is below rtol times the largest.",
        format="", part_of="D_LR",
    ),
    Measure(
        "low_rank_at_{}", "at rtol {}", "at rtol {}", "richness", "0 to 1",
        "D_LR without the output directions whose singular value is below {} times the largest.",
        richer="lower", format=".4f", part_of="D_LR", within="low_rank_band",
    ),
    Measure(
        "laziness", "λ", "λ, laziness ratio (0 = rich)", "richness", "0 or more, 1 = features of the start",
        "D_LR over that of the features of the start against the same outputs: 1 when the features did not move.",
        richer="lower", format=".4f", math="$\\lambda$", column=True,
    ),
    Measure(
        "laziness_corrected", "λ, corrected", "bias-corrected", "richness", "about 0 or more",
        "The laziness ratio without the bias that a limited number of samples causes.",
        richer="lower", format=".4f", part_of="λ", error="laziness_stderr",
    ),
    Measure(
        "laziness_stderr", "λ, ± stderr", "standard error", "richness", "0 or more",
        "Standard error of the bias-corrected λ; where new networks take the place of the start, standard deviation over them.",
        format=".4f", part_of="λ", within="laziness_corrected",
    ),
    Measure(
        "laziness_balanced", "λ, balanced", "balanced reference", "richness", "0 or more, 1 = features of the start",
        "The laziness ratio with the kernel of minimum norm as the reference, in numerator and denominator.",
        richer="lower", format=".4f", part_of="λ",
    ),
    Measure(
        "balanced", "balanced", "balanced reference", "richness", "0 to 1",
        "The same as D_LR with the kernel of minimum norm as the reference, which weighs output directions by their strength.",
        richer="lower", format=".4f", column=True,
    ),
    Measure(
        "balanced_corrected", "balanced, corrected", "bias-corrected", "richness", "about 0 to 1",
        "The balanced value without the bias that a limited number of samples causes.",
        richer="lower", format=".4f", part_of="balanced", error="balanced_stderr",
    ),
    Measure(
        "balanced_stderr", "balanced, ± stderr", "standard error", "richness", "0 or more",
        "Standard error of the bias-corrected balanced value.",
        format=".4f", part_of="balanced", within="balanced_corrected",
    ),
    Measure(
        "output_alignment", "output kernel", "output-kernel reference", "richness", "0 to 1",
        "The same as D_LR with the kernel of the outputs as the reference; 0 is aligned.",
        richer="lower", format=".4f",
    ),
    Measure(
        "output_alignment_corrected", "output kernel, corrected", "bias-corrected", "richness", "about 0 to 1",
        "The value of the output kernel without the bias that a limited number of samples causes.",
        richer="lower", format=".4f", part_of="output kernel", error="output_alignment_stderr",
    ),
    Measure(
        "output_alignment_stderr", "output kernel, ± stderr", "standard error", "richness", "0 or more",
        "Standard error of the bias-corrected value of the output kernel.",
        format=".4f", part_of="output kernel", within="output_alignment_corrected",
    ),
    Measure(
        "output_singular_values", "σ", "output singular values", "spaces", "0 or more",
        "Largest, middle and smallest singular value of the outputs over √n.",
        format="",
    ),
    Measure(
        "output_condition", "σ₁/σ_r", "σ₁/σ_r of the outputs", "spaces", "1 or more",
        "How many times stronger the strongest output direction is than the weakest one that counts.",
        math="$\\sigma_1/\\sigma_r$ of the outputs", within="output_singular_values",
    ),
    Measure(
        "output_rank", "rank", "output rank", "spaces", "1 to the number of outputs",
        "Dimension of the space of functions that the outputs span.",
        format=",.0f", column=True,
    ),
    Measure(
        "constant_share", "constant", "constant function in the outputs", "spaces", "0 to 1",
        "Share of the constant function that lies in the space of the outputs; near 1 where they have a large mean.",
        format=".3f",
    ),
    Measure(
        "feature_rank", "feature rank", "feature rank", "spaces", "1 to the number of features",
        "Dimension of the space of functions that the features span.",
        format="",
    ),
    Measure(
        "features_for_outputs", "features in use", "features for 95 % of the outputs", "spaces", "1 to the number of features",
        "How many of the strongest features hold 95 % of the space of the outputs.",
        format="",
    ),
    Measure(
        "features_for_targets", "features for targets", "features for 95 % of the targets", "spaces",
        "1 to the number of features",
        "How many of the strongest features hold 95 % of the space of the targets.",
        format="",
    ),
    Measure(
        "utilization_of_the_first_{}", "utilization, first {}", "utilization of the first {}", "spaces", "0 to 1",
        "Share of the space of the outputs that the {} strongest features hold.",
        richer="higher",
    ),
    Measure(
        "quality_of_the_first_{}", "quality, first {}", "quality of the first {}", "spaces", "0 to 1",
        "Share of the space of the targets that the {} strongest features hold.",
        richer="higher",
    ),
    Measure(
        "held_out_quality_of_the_first_{}", "held-out quality, first {}", "held-out quality of the first {}", "spaces", "0 to 1",
        "Share of the space of the test targets that the {} strongest features of the training data hold.",
        richer="higher",
    ),
    Measure(
        "nc1", "NC1", "NC1, within / between classes", "collapse", "0 or more",
        "Spread within the classes over the spread between them: 0 when each class is one point.",
        richer="lower", math="NC1", column=True, error="nc1_stderr",
    ),
    Measure(
        "nc2_equinorm", "NC2 norms", "NC2, unequal norms", "collapse", "0 or more",
        "How much the lengths of the class means differ: 0 when all are equally long.",
        richer="lower", math="NC2, norms",
    ),
    Measure(
        "nc2_equiangular", "NC2 angles", "NC2, unequal angles", "collapse", "0 to 2",
        "How much the angles between class means differ from those of a simplex: 0 when all are equally far apart.",
        richer="lower", math="NC2, angles",
    ),
    Measure(
        "nc3", "NC3", "NC3, head off class means", "collapse", "0 to 2",
        "Distance between the weight of the head and the class means, each over its norm: 0 when they are parallel.",
        richer="lower", math="NC3",
    ),
    Measure(
        "nc4", "NC4", "NC4, nearest mean disagrees", "collapse", "0 to 1",
        "Share of samples whose nearest class mean is not the class that the network predicts.",
        richer="lower", math="NC4",
    ),
    Measure(
        "s_init", "S_init", "S_init, alignment with the start", "start", "0 to 1",
        "Centred alignment of the feature kernel with that of the network at its start: 1 when the kernel did not change.",
        richer="lower", math="$S_{init}$", column=True, error="s_init_stderr",
    ),
    Measure(
        "parameter_norm", "‖θ‖²", "‖θ‖²", "start", "0 or more",
        "Sum of the squares of all parameters.",
        math="$\\|\\theta\\|^2$",
    ),
    Measure(
        "parameter_distance", "‖θ - θ₀‖²", "‖θ - θ₀‖²", "start", "0 or more",
        "Sum of the squared differences between the parameters and those at the start.",
        math="$\\|\\theta-\\theta_0\\|^2$",
    ),
    Measure(
        "tangent_kernel_change", "tangent kernel change", "tangent kernel, 1 - CKA with the start", "start", "0 to 1",
        "How far the direction of the tangent kernel is from that at the start.",
        richer="higher",
    ),
    Measure(
        "tangent_kernel_distance", "tangent kernel distance", "tangent kernel, relative distance", "start", "0 or more",
        "Distance of the tangent kernel from that at the start, over the norm at the start.",
        richer="higher",
    ),
    Measure(
        "target_alignment", "target alignment", "kernel-target alignment", "features", "0 to 1",
        "Centred alignment of the feature kernel with the kernel of the targets.",
        richer="higher", error="target_alignment_stderr",
    ),
    Measure(
        "participation_ratio", "participation ratio", "participation ratio", "features", "1 to the number of features",
        "Effective number of directions over which the variance of the features is spread, by its squares.",
        richer="lower", error="participation_ratio_stderr",
    ),
    Measure(
        "effective_rank", "effective rank", "effective rank", "features", "1 to the number of features",
        "Effective number of directions over which the variance of the features is spread, by its entropy.",
        richer="lower", error="effective_rank_stderr",
    ),
    Measure(
        "rankme", "RankMe", "RankMe", "features", "1 to the number of features",
        "Effective number of directions of the features that are not centred, by the entropy of their singular values.",
        richer="lower",
    ),
    Measure(
        "stable_rank", "stable rank", "stable rank", "features", "1 to the number of features",
        "Sum of the eigenvalues of the feature kernel over the largest of them.",
        richer="lower",
    ),
    Measure(
        "alpha_req", "α-ReQ", "α-ReQ exponent", "features", "any number",
        "Exponent of the power law with which the eigenvalues of the feature covariance fall.",
        richer="higher",
    ),
    Measure(
        "alpha_req_first", "α-ReQ, first rank", "first rank of the fit", "features", "1 or more",
        "First rank of the eigenvalues to which the power law is fitted.",
        format=",.0f", part_of="α-ReQ", within="alpha_req",
    ),
    Measure(
        "alpha_req_last", "α-ReQ, last rank", "last rank of the fit", "features", "5 or more",
        "Last rank of the eigenvalues to which the power law is fitted.",
        format=",.0f", part_of="α-ReQ", within="alpha_req",
    ),
    Measure(
        "alpha_req_r_squared", "α-ReQ, R²", "R² of the fit", "features", "0 to 1",
        "Share of the variance of the logarithms of the eigenvalues that the power law explains.",
        format=".3f", part_of="α-ReQ", within="alpha_req",
    ),
    Measure(
        "train_accuracy", "train", "training accuracy", "training", "0 to 1",
        "Share of training samples that are classified correctly.",
        format=".1%",
    ),
    Measure(
        "test_accuracy", "test", "test accuracy", "training", "0 to 1",
        "Share of test samples that are classified correctly.",
        format=".1%", column=True,
    ),
    Measure(
        "accuracy", "accuracy", "accuracy", "training", "0 to 1",
        "Share of samples that are classified correctly.",
        format=".1%",
    ),
    Measure("train_loss", "training loss", "training loss", "training", "0 or more", "Loss on the training samples."),
    Measure("test_loss", "test loss", "test loss", "training", "0 or more", "Loss on the test samples."),
    Measure("loss", "loss", "loss", "training", "0 or more", "Loss that the training loop reported.", column=True),
    Measure("num_samples", "samples", "samples", "data", "count", "Number of samples that were measured.", format=",.0f"),
    Measure(
        "num_features", "features", "features", "data", "count", "Number of features: the width of what the layer receives.",
        format=",.0f", within="feature_rank",
    ),
    Measure(
        "num_outputs", "outputs", "outputs", "data", "count", "Number of outputs of the network.",
        format=",.0f", within="output_rank",
    ),
    Measure(
        "num_rows", "rows", "rows", "data", "count", "Number of rows of a layer that were measured: samples or positions.",
        format=",.0f", within="layers",
    ),
    Measure("head", "head", "head", "data", "name", "Name of the layer whose input the features are.", format=""),
    Measure("epoch", "epoch", "epoch", "data", "count", "Epoch that the training loop reported.", format=",.0f"),
    Measure("seconds", "seconds", "seconds", "data", "seconds", "Time that the evaluation took."),
)  # fmt: skip


def _with_errors(entries: Iterable[Measure]) -> Iterator[Measure]:
    """The entries, and after each that has a standard error the entry of that, unless it is listed."""
    entries = list(entries)
    listed = {entry.name for entry in entries}
    for entry in entries:
        yield entry
        if entry.error and entry.error not in listed:
            yield Measure(
                entry.error, f"{entry.symbol}, ± stderr", "standard error", entry.group, "0 or more",
                f"Standard error of {entry.symbol}.", part_of=entry.symbol, within=entry.name,
            )  # fmt: skip


CATALOGUE = {entry.name: entry for entry in _with_errors(_ENTRIES)}


def entry(name: str) -> Measure:
    """The entry of a number, by its name in a file or series.

    A member of a family and the number of a layer get an entry of their own; an unknown name gets one with that name as label.

    >>> entry("low_rank_at_0.01").full_label, entry("low_rank of fc1").full_label, entry("mine").label
    ('D_LR, at rtol 0.01', 'D_LR (0 = rich) of fc1', 'mine')
    """
    measure, layer = split_layer_value(name)
    if layer is not None and measure in CATALOGUE:
        of = CATALOGUE[measure]
        texts = {part: f"{getattr(of, part)} of {layer}" for part in ("symbol", "label")}
        return replace(of, name=name, **texts, math="", within="layers", column=False)
    family, value = _family(name)
    if family is None:
        return CATALOGUE.get(name) or Measure(name, name, name, "features", "any number", "Not a measure of this library.")
    texts = {part: getattr(family, part).replace("{}", value) for part in ("symbol", "label", "sentence")}
    return replace(family, name=name, **texts)


def ordered(names: Iterable[str]) -> list[str]:
    """The names in the order of the catalogue: by group, then as listed; unknown names last.

    >>> ordered(["mine", "nc1", "low_rank_at_0.1", "low_rank_at_0.01", "low_rank"])
    ['low_rank', 'low_rank_at_0.01', 'low_rank_at_0.1', 'nc1', 'mine']
    """
    groups = list(GROUPS)
    listed = sorted(CATALOGUE.values(), key=lambda measure: groups.index(measure.group))
    positions = {measure.name: k for k, measure in enumerate(listed)}

    def position(name: str) -> tuple[int, str]:
        family, _ = _family(name)
        return positions.get(family.name if family else split_layer_value(name)[0], len(positions)), name

    return sorted(names, key=position)


def listed(names: Iterable[str]) -> list[str]:
    """The names that a list of all numbers shows, in order: standard errors are shown with their values, layers elsewhere.

    >>> listed(["low_rank_stderr", "low_rank of fc1", "low_rank_corrected", "low_rank"])
    ['low_rank', 'low_rank_corrected']
    """
    errors = {of.error for of in CATALOGUE.values()}
    return [name for name in ordered(names) if name not in errors and split_layer_value(name)[1] is None]


def cells(numbers: Mapping[str, float]) -> dict[str, str]:
    """Numbers as a table shows them, by name; those that another row shows are left out.

    >>> cells({"low_rank": 0.25, "low_rank_corrected": 0.24, "low_rank_stderr": 0.01, "nc1": 0.5})
    {'low_rank': '0.2500', 'low_rank_corrected': '0.2400 ± 0.0100', 'nc1': '0.5'}
    """
    entries = {name: entry(name) for name in numbers}
    return {name: of.formatted(numbers[name], numbers.get(of.error)) for name, of in entries.items() if not of.within}


def functions(names: Iterable[str]) -> dict[str, Callable[[Gram], float]]:
    """The functions of the measures that ``extra`` names.

    Raises:
        ValueError: a name that is not in the catalogue, or a measure that is not a function of a Gram.
    """
    known = {name: of.compute for name, of in CATALOGUE.items() if of.compute is not None}
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"extra: {name!r} is not a measure that can be added{hint} There are: {', '.join(known) or 'none'}")
    return {name: known[name] for name in names}


def _family(name: str) -> tuple[Measure | None, str]:
    """The family that a name belongs to, and the value in its place of ``{}``; None where it belongs to none."""
    for template, of in CATALOGUE.items():
        stem, placeholder, _ = template.partition("{}")
        if placeholder and name.startswith(stem):
            return of, name.removeprefix(stem)
    return None, ""
