"""The names of the measures as a reader sees them, in the order in which they stand."""

from __future__ import annotations

LABELS = {
    "low_rank": "D_LR", "low_rank_corrected": "D_LR, bias-corrected", "isotropic": "isotropic features",
    "balanced": "balanced reference", "balanced_corrected": "balanced, bias-corrected",
    "output_alignment": "output-kernel reference", "output_alignment_corrected": "output kernel, bias-corrected",
    "train_accuracy": "training accuracy", "test_accuracy": "test accuracy", "train_loss": "training loss",
    "test_loss": "test loss", "loss": "loss", "output_rank": "rank of the outputs", "output_condition": "σ₁/σᵣ of the outputs",
    "nc1": "NC1, within / between classes", "nc2_equinorm": "NC2, unequal norms", "nc2_equiangular": "NC2, unequal angles",
    "nc3": "NC3, head off class means", "nc4": "NC4, nearest mean disagrees", "s_init": "S_init, alignment with the start",
    "parameter_norm": "‖θ‖²", "parameter_distance": "‖θ - θ₀‖²",
    "tangent_kernel_change": "tangent kernel, 1 - CKA with the start",
    "tangent_kernel_distance": "tangent kernel, relative distance", "target_alignment": "kernel-target alignment",
    "participation_ratio": "participation ratio", "effective_rank": "effective rank", "rankme": "RankMe",
    "stable_rank": "stable rank", "alpha_req": "α-ReQ exponent", "num_samples": "samples", "num_features": "features",
    "num_outputs": "outputs", "epoch": "epoch", "seconds": "seconds",
}  # fmt: skip
COLLAPSE = ("nc1", "nc2_equinorm", "nc2_equiangular", "nc3", "nc4")
ACCURACIES = ("train_accuracy", "test_accuracy")
ERRORS = {  # corrected value -> its standard error
    name + "_corrected": name + "_stderr" for name in ("low_rank", "balanced", "output_alignment")
}
LAYER, BAND = "D_LR of ", "low_rank_at_"


def label(name: str) -> str:
    """What a reader calls it; an unknown measure keeps its name."""
    if name.startswith(BAND):
        return f"D_LR at rtol {name.removeprefix(BAND)}"
    return LABELS.get(name, name.replace("_", " ") if "_of_the_first_" in name else name)


def ordered(names: set[str]) -> list[str]:
    """Measures that stand for themselves, known ones first; standard errors go with their values, layers have a panel."""
    band = sorted(n for n in names if n.startswith(BAND))
    known = [name for name in LABELS if name in names]
    rest = sorted(n for n in names - {*known, *band, *ERRORS.values()} if not n.startswith(LAYER))
    cut = known.index("balanced") if "balanced" in known else len(known)
    return known[:cut] + band + known[cut:] + rest


def formatted(name: str, value: float) -> str:
    """A number as the table shows it."""
    if name in ACCURACIES:
        return f"{100 * value:.1f} %"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 10 else f"{value:.4g}"
