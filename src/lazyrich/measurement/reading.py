"""From filled Grams to a result: every number is read off here, and what a reader must know is noted."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..errors import DataError, DegenerateError, RankWarning
from ..functional import (
    FeatureSpectrum,
    alpha_req,
    effective_rank,
    low_rank_estimate,
    low_rank_measure,
    neural_collapse,
    parameter_norm,
    participation_ratio,
    rankme,
    standard_error,
    target_alignment,
)
from ..functional.influence import known_influences
from ..functional.low_rank import isotropic_reference, sketched_low_rank
from ..functional.neural_collapse import holds_labels
from ..functional.sketch import unprojected_norm
from ..functional.span import mean_note, span_of
from ..functional.spectrum import block_note, convergence_note, spectrum_of
from ..gram import Gram
from ..results.parts import Comparison, LayerRichness
from ..results.richness import Richness
from .evidence import evidence_of
from .laziness import Denominators, layer_laziness, laziness_of, of_start
from .narrow import NarrowGram
from .start import StartSums
from .sums import HeadSums, LayerSums

IMBALANCE = 1.5  # classes whose shares differ by more are said to be unequal


def read_head(
    sums: HeadSums, model: nn.Module, start: nn.Module | None, beginning: StartSums | None, redraws: Denominators | None
) -> tuple[Richness, str | None]:
    """The result, and what to warn of; λ is that of the start, or of redraws."""
    gram, notes, evidence = sums.finish(), list(sums.notes), evidence_of(sums)
    notes += [evidence.labels] if evidence.labels and "are not used" in evidence.labels else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)  # given once, at the user's line
        estimate = low_rank_estimate(gram)
        balanced = low_rank_estimate(gram, reference="balanced")
        alignment = low_rank_estimate(gram, reference="outputs")
    warning = estimate.warning
    if warning:
        notes.append(warning)
    if sums.per_position:
        notes.append("each row is a position of an input; positions of one input are not independent, so no error is given")
    spectrum = spectrum_of(gram)
    if not spectrum.whole:
        notes.append(
            f"the spectrum is {spectrum.part}; effective rank, RankMe and α-ReQ need every eigenvalue and are left out: "
            "lazyrich.functional takes them, in full, from the Gram of lazyrich.collect"
        )
    notes += [note for note in (mean_note(gram), convergence_note(spectrum), block_note(spectrum)) if note]
    laziness = laziness_of(estimate, balanced.value, redraws if beginning is None else of_start(beginning.gram, beginning.note))
    notes += laziness.notes
    notes += [] if sums.per_position or estimate.note is None else [estimate.note]
    collapse = None
    if holds_labels(gram):
        collapse, note = _collapse(gram, _head_weight(sums))
        notes += [note] if note else []
    result = Richness(
        low_rank=estimate.value,
        low_rank_corrected=estimate.corrected,
        low_rank_stderr=estimate.stderr,
        low_rank_interval=estimate.interval,
        low_rank_band=estimate.band,
        output_rank=estimate.rank,
        isotropic=estimate.isotropic,
        balanced=balanced.value,
        balanced_corrected=balanced.corrected,
        balanced_stderr=balanced.stderr,
        output_alignment=alignment.value,
        output_alignment_corrected=alignment.corrected,
        output_alignment_stderr=alignment.stderr,
        output_singular_values=estimate.singular_values,
        spectrum=spectrum,
        neural_collapse=collapse,
        num_samples=estimate.num_samples,
        num_features=gram.widths["features"],
        num_outputs=gram.num_outputs,
        head=evidence.head,
        laziness=laziness.value,
        laziness_corrected=laziness.corrected,
        laziness_interval=laziness.interval,
        laziness_stderr=laziness.stderr,
        laziness_balanced=laziness.balanced,
        laziness_source=laziness.source,
        constant_share=estimate.constant_share,
        comparison=_compare(gram, model, start, beginning, spectrum),
        evidence=evidence,
        notes=tuple(notes),
        influences=known_influences(low_rank=estimate, balanced=balanced, laziness=laziness),
    )
    return result, warning


def _collapse(gram: Gram, weight: Tensor | None) -> tuple[Any, str | None]:
    """Neural collapse, or why there is none; and a word where it does not stand for D_LR = 0."""
    fits = weight is not None and weight.shape == (gram.widths["targets"], gram.widths["features"])
    try:
        collapse = neural_collapse(gram, head_weight=weight if fits else None)
    except DataError as error:
        return None, f"no neural collapse: {error}"
    collapse = replace(collapse, nc1_stderr=standard_error("nc1", gram))
    share = gram.mean("targets")
    ratio = float(share.max() / share.min())
    if ratio <= IMBALANCE:
        return collapse, None
    return collapse, (
        f"the largest class weighs {ratio:.3g} times the smallest: that collapse means D_LR = 0 holds for equal classes only; "
        "class_balanced=True weighs them equally"
    )


def _compare(
    gram: Gram, model: nn.Module, start: nn.Module | None, beginning: StartSums | None, spectrum: FeatureSpectrum
) -> Comparison:
    flat = any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules())  # holds a part of the parameters
    norm = parameter_norm(model, start) if not flat and any(True for _ in model.parameters()) else None
    rank_error = standard_error("effective_rank", gram) if spectrum.whole else None  # first, because it keeps the eigenvalues
    try:
        law = alpha_req(gram) if spectrum.whole else None
    except DataError:  # too few ranks for a fit: no number rather than a bad one
        law = None
    try:
        with_targets = float(target_alignment(gram)) if "targets" in gram.widths else None
        targets_error = None if with_targets is None else standard_error("target_alignment", gram)
    except DegenerateError:  # targets that do not vary have no kernel to be aligned with
        with_targets = targets_error = None
    s_init, s_init_error = (None, None) if beginning is None else beginning.alignment()
    return Comparison(
        participation_ratio=participation_ratio(gram),
        effective_rank=effective_rank(gram) if spectrum.whole else None,
        rankme=rankme(gram) if spectrum.whole else None,
        stable_rank=spectrum.trace / float(spectrum.eigenvalues[0]),
        alpha_req=None if law is None else law.alpha,
        alpha_req_first=None if law is None else law.first,
        alpha_req_last=None if law is None else law.last,
        alpha_req_r_squared=None if law is None else law.r_squared,
        target_alignment=with_targets,
        s_init=s_init,
        parameter_norm=None if norm is None else norm.squared_norm,
        parameter_distance=None if norm is None else norm.squared_distance,
        participation_ratio_stderr=standard_error("participation_ratio", gram),
        effective_rank_stderr=rank_error,
        target_alignment_stderr=targets_error,
        s_init_stderr=s_init_error,
    )


def _head_weight(sums: HeadSums) -> Tensor | None:
    """The head's weight (C, p), where its outputs are linear in its inputs as that says."""
    head = None if sums.known is None else sums.known.head
    return head.parameters[0] if head is not None and head.linear else None


def read_layers(layers: LayerSums, sums: HeadSums) -> dict[str, LayerRichness]:
    """One for each name that was asked for; layers that are given the same tensor share theirs."""
    read = {name: _read_layer(layer, sums.per_position) for name, layer in layers.grams.items()}
    return {name: read[leader] for name, leader in layers.plan.leaders.items()} if layers.plan is not None else {}


def _read_layer(layer: NarrowGram, per_position: bool) -> LayerRichness:
    gram, common = layer.gram, {"num_features": layer.width, "num_rows": layer.gram.count, "reduction": layer.reduction}
    isotropic = isotropic_reference(span_of(gram, "outputs"), layer.width)
    if layer.sketched:
        value, error = sketched_low_rank(gram)
        covariance, laziness = gram.block("features", "features", centered=True), layer_laziness(layer, value)
        return LayerRichness(
            low_rank=value,
            low_rank_corrected=None,
            low_rank_stderr=None,
            isotropic=isotropic,
            balanced=sketched_low_rank(gram, "balanced")[0],
            output_alignment=sketched_low_rank(gram, "outputs")[0],
            participation_ratio=float(covariance.trace().square() / unprojected_norm(covariance)),
            reduction_stderr=error,
            laziness=None if laziness is None else laziness.value,
            **common,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)  # the outputs are the head's, and it has warned of them
        estimate = low_rank_estimate(gram)
        laziness = layer_laziness(layer, estimate)
    error = None if per_position else laziness
    return LayerRichness(
        low_rank=estimate.value,
        low_rank_corrected=None if per_position else estimate.corrected,
        low_rank_stderr=None if per_position else estimate.stderr,
        isotropic=isotropic,
        balanced=float(low_rank_measure(gram, reference="balanced")),
        output_alignment=float(low_rank_measure(gram, reference="outputs")),
        participation_ratio=participation_ratio(gram),
        participation_ratio_stderr=None if per_position else standard_error("participation_ratio", gram),
        laziness=None if laziness is None else laziness.value,
        laziness_corrected=None if error is None else error.corrected,
        laziness_stderr=None if error is None else error.stderr,
        **common,
    )


def layer_notes(layers: LayerSums, read: dict[str, LayerRichness]) -> tuple[str, ...]:
    """Notes on layers that could not be measured, and on layers too narrow for the outputs."""
    left_out = {} if layers.plan is None else layers.plan.left_out
    narrow = [name for name, layer in read.items() if layer.isotropic is None]
    notes = [f"left out: {reason}" for reason in left_out.values()]
    if narrow:
        notes.append(f"no isotropic baseline for {', '.join(map(repr, narrow))}: fewer features than output directions")
    return tuple(notes)
