"""Several networks on the same rows: which is richer, with the error of the difference."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .._support.processes import Processes
from ..errors import DataError, HeadError, RankWarning
from ..functional import low_rank_estimate
from ..functional.influence import interval
from ..functional.low_rank import LowRankEstimate, Reference
from ..gram import RETAINED_ROWS, Gram, update_together
from ..model.batches import IGNORED_LABEL, Forward
from ..model.calls import MANY_OUTPUTS
from ..model.linear import unwrapped
from ..model.rows import Layout, RowChoice
from ..model.undisturbed import undisturbed
from ..results.comparison import Difference, ModelComparison
from .measure import one_pass_of
from .one_pass import Known, OnePass, Part, class_weights

REFERENCES: dict[str, Reference] = {"low_rank": "projection", "balanced": "balanced"}


def compare(
    models: Mapping[str, nn.Module],
    data: Any,
    *,
    head: str | Mapping[str, str] | None = None,
    rows: RowChoice = None,
    forward: Forward | None = None,
    targets: Callable[[Any], Tensor] | None = None,
    ignore_index: int = IGNORED_LABEL,
    layout: Layout | None = None,
    num_samples: int | None = None,
    sample_weights: Tensor | None = None,
    class_balanced: bool = False,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> ModelComparison:
    """Measures several networks on the same rows, in one pass over the data.

    The networks see each batch one after the other. The errors of the differences are paired: a row that moves the D_LR of two
    networks alike does not move their difference. Two checkpoints of one run can therefore be distinguished by far fewer samples
    than two separate errors would need. Each process measures alone.

    Args:
        models: name -> network; at least two. They may differ in everything but the data that they take.
        head: the head's dotted name in all networks, or a mapping of the networks' names to it.
        data, rows, forward, targets, ignore_index, layout, num_samples, sample_weights, class_balanced, device, progress: as for
            :func:`lazyrich.measure`.

    Returns:
        :class:`ModelComparison`; ``print`` shows the values, the differences and which network is richer.

    Raises:
        TypeError, ValueError: models that are no mapping of at least two modules.
        DataError: networks that answer with different numbers of rows, or with too many outputs; or as :func:`lazyrich.measure`.
        HeadError, NonFiniteError, DegenerateError: as for :func:`lazyrich.measure`.

    Example:
        A network and its copy do not differ, and neither does the error of the difference:

        >>> import copy, torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
        >>> found = compare({"a": model, "b": copy.deepcopy(model)}, torch.randn(512, 8)).difference("a", "b")
        >>> found.value, found.stderr
        (0.0, 0.0)
    """
    networks = _networks(models)
    heads = (
        dict.fromkeys(networks, head) if head is None or isinstance(head, str) else {name: head.get(name) for name in networks}
    )
    first = next(iter(networks))
    with ExitStack() as stack:
        place = stack.enter_context(undisturbed(networks[first], data, device))
        for name in list(networks)[1:]:
            stack.enter_context(undisturbed(networks[name], None, place))
        passes = {
            name: one_pass_of(
                network, data, place, Processes(False), head=heads[name], rows=rows, forward=forward, targets=targets,
                ignore_index=ignore_index, layout=layout,
            )
            for name, network in networks.items()
        }  # fmt: skip
        leading = replace(passes.pop(first), num_samples=num_samples, sample_weights=sample_weights, progress=progress)
        if class_balanced:
            leading = replace(leading, class_weights=class_weights(leading))
        grams, per_position = _filled(first, leading, passes)
    return _compared(grams, per_position)


def _networks(models: Any) -> dict[str, nn.Module]:
    if not isinstance(models, Mapping) or not all(isinstance(model, nn.Module) for model in models.values()):
        raise TypeError('models must be a mapping of names to torch.nn.Module: {"before": model_a, "after": model_b}')
    if len(models) < 2:
        raise ValueError(f"at least two models are needed for a comparison, got {len(models)}")
    if len({id(model) for model in models.values()}) < len(models):
        raise ValueError("two of the models are the same object: keep a copy.deepcopy(model) of the earlier one")
    return {str(name): unwrapped(model) for name, model in models.items()}


def _filled(first: str, leading: OnePass, others: dict[str, OnePass]) -> tuple[dict[str, Gram], bool]:
    """A Gram for each network, which retain the same rows; and whether rows are positions of samples."""
    grams: dict[str, Gram] = {}
    known: dict[str, Known] = {}
    per_position = False
    for part in leading.parts("comparing"):
        per_position = per_position or part.rows.positions > 1
        parts = {first: part} | {name: _again(name, one_pass, part, known.get(name)) for name, one_pass in others.items()}
        known |= {name: one.known for name, one in parts.items()}
        for name, one in parts.items():
            _must_fit(name, one, first, part)
        if not grams:
            retain = 0 if per_position else RETAINED_ROWS
            grams = {name: replace(one, num_strata=part.num_strata).empty_gram(retain=retain) for name, one in parts.items()}
            grams[first].fill_together(*list(grams.values())[1:])
        blocks = [{"features": one.rows.features, "outputs": one.outputs} for one in parts.values()]
        update_together(list(grams.values()), blocks, part.weights, part.strata)
    if not grams or not grams[first].count:
        raise DataError("data gave no samples; pass a DataLoader, a list of batches or tensors")
    return grams, per_position


def _again(name: str, one_pass: OnePass, part: Part, known: Known | None) -> Part:
    """The rows of another network for a batch; an error says which network it was."""
    alone = replace(one_pass, data=[part.batch.item], head=known or one_pass.head)
    try:
        then = next(iter(alone.parts("comparing")), None)
    except (HeadError, DataError, RuntimeError) as error:
        raise type(error)(f"{name!r}: {error}") from error
    if then is None:
        raise DataError(f"{name!r} gave no rows for a batch for which another network did")
    return replace(then, rows=then.rows.first(part.rows.samples), outputs=then.outputs[: len(part.outputs)])


def _must_fit(name: str, one: Part, first: str, part: Part) -> None:
    if len(one.rows.features) != len(part.rows.features):
        raise DataError(
            f"{name!r} answers with {len(one.rows.features)} rows where {first!r} answers with {len(part.rows.features)}: rows "
            "can be compared only if they are the same; pass rows=, or measure each network alone"
        )
    if one.outputs.shape[1] > MANY_OUTPUTS:
        raise DataError(f"{name!r} has {one.outputs.shape[1]:,} outputs; at most {MANY_OUTPUTS:,} can be compared")


def _compared(grams: dict[str, Gram], per_position: bool) -> ModelComparison:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)  # the note has it
        estimates = {
            measure: {name: low_rank_estimate(gram, reference=reference) for name, gram in grams.items()}
            for measure, reference in REFERENCES.items()
        }
    values: dict[str, dict[str, float]] = {name: {} for name in grams}
    notes = [
        "each row is a position of an input; positions of one input are not independent, so no error is given"
    ] * per_position
    for measure, found in estimates.items():
        for name, estimate in found.items():
            numbers = {measure: estimate.value, f"{measure}_corrected": estimate.corrected, f"{measure}_stderr": estimate.stderr}
            values[name] |= {key: value for key, value in numbers.items() if value is not None}
            if measure == "low_rank" and not per_position:
                notes += [f"{name}: {note}" for note in (estimate.warning, estimate.note) if note]
    names = list(grams)
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    differences = {measure: {(a, b): _difference(found[a], found[b]) for a, b in pairs} for measure, found in estimates.items()}
    return ModelComparison(values, differences, grams[names[0]].count, tuple(notes))


def _difference(first: LowRankEstimate, second: LowRankEstimate) -> Difference:
    """The difference of two estimates on the same rows: of the corrected values, where both have one."""
    if first.corrected is None or second.corrected is None or first.influence is None or second.influence is None:
        return Difference(first.value - second.value, None, None)
    value, moves = first.corrected - second.corrected, first.influence.less(second.influence)
    if moves is None:
        return Difference(value, None, None)
    stderr = moves.variance**0.5
    return Difference(value, stderr, interval(value, stderr, moves.freedom))
