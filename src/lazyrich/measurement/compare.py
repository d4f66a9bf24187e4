"""Several networks on the same rows: which is richer, with the error of the difference."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .._support.processes import Processes
from ..errors import DataError, RankWarning
from ..functional import low_rank_estimate
from ..functional.influence import Influence, known_influences
from ..gram import RETAINED_ROWS, Gram, update_together
from ..model.batches import IGNORED_LABEL, Forward, is_one_shot
from ..model.calls import MANY_OUTPUTS
from ..model.copying import copied_model
from ..model.linear import unwrapped
from ..model.redraw import new_norms
from ..model.rows import Layout, RowChoice
from ..model.undisturbed import undisturbed
from ..results.comparison import ModelComparison, difference_of
from .laziness import Denominators, laziness_of, of_start
from .measure import one_pass_of
from .one_pass import Known, OnePass, Part, class_weights
from .start import StartNetwork, errors_name, settled_copy, start_network

MEASURES = ("low_rank", "balanced", "laziness")  # of which there are differences


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
    start: nn.Module | Mapping[str, Any] | str | os.PathLike[str] | None = None,
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
        start: one start of training for all: a module, or a state dict or the path of a checkpoint that fits the first network.
            Adds λ, the laziness ratio, and its differences.
        data, rows, forward, targets, ignore_index, layout, num_samples, sample_weights, class_balanced, device, progress: as for
            :func:`lazyrich.measure`.

    Returns:
        :class:`ModelComparison`; ``print`` shows the values, the differences and which network is richer.

    Raises:
        TypeError, ValueError: models that are no mapping of at least two modules.
        DataError: networks that answer with different numbers of rows, or with too many outputs; or as :func:`lazyrich.measure`.
        HeadError, NonFiniteError, DegenerateError, CheckpointError: as for :func:`lazyrich.measure`.

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
        starts, note = _starts(start, networks, leading, stack)
        grams, then, per_position = _filled(first, leading, passes, starts)
    beginning = {} if start is None else {name: of_start(then.get(name), note) for name in networks}
    return _compared(grams, beginning, per_position)


def _networks(models: Any) -> dict[str, nn.Module]:
    if not isinstance(models, Mapping) or not all(isinstance(model, nn.Module) for model in models.values()):
        raise TypeError('models must be a mapping of names to torch.nn.Module: {"before": model_a, "after": model_b}')
    if len(models) < 2:
        raise ValueError(f"at least two models are needed for a comparison, got {len(models)}")
    if len({id(model) for model in models.values()}) < len(models):
        raise ValueError("two of the models are the same object: keep a copy.deepcopy(model) of the earlier one")
    return {str(name): unwrapped(model) for name, model in models.items()}


def _starts(
    start: Any, networks: dict[str, nn.Module], leading: OnePass, stack: ExitStack
) -> tuple[dict[str, StartNetwork], str | None]:
    """For each network what gives the features of the start, or a note why nothing does.

    Networks share it, unless batch norm of the start has seen no batch, and that of some of them has.
    """
    if start is None:
        return {}, None
    network = start_network(start, leading.model)
    network = copied_model(network) if any(network is other for other in networks.values()) else network
    stack.enter_context(undisturbed(network, None, leading.device))
    new = {name: tuple(new_norms(network, model)) for name, model in networks.items()}
    if any(new.values()) and is_one_shot(leading.data):
        return {}, "no laziness ratio: batch norm of the start has seen no batch, and data can be used once; pass a DataLoader"
    sources: dict[tuple[str, ...], StartNetwork] = {}
    for name, norms in new.items():
        if norms not in sources:
            settled = settled_copy(network, replace(leading, model=networks[name])) if norms else network
            sources[norms] = StartNetwork(settled, leading)
    return {name: sources[norms] for name, norms in new.items()}, None


def _filled(
    first: str, leading: OnePass, others: dict[str, OnePass], starts: dict[str, StartNetwork]
) -> tuple[dict[str, Gram], dict[str, Gram], bool]:
    """Grams that retain the same rows: of each network, and of the start with its outputs; and whether rows are positions."""
    grams: dict[str, Gram] = {}
    then: dict[str, Gram] = {}
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
            like = {name: replace(one, num_strata=part.num_strata) for name, one in parts.items()}
            grams = {name: one.empty_gram(retain=retain) for name, one in like.items()}
            then = {name: like[name].empty_gram(retain=retain) for name in starts}
            grams[first].fill_together(*[*grams.values(), *then.values()][1:])
        blocks = [{"features": one.rows.features, "outputs": one.outputs} for one in parts.values()]
        begun = {source: source.rows(part, None)[0] for source in starts.values()}
        for name, source in starts.items():
            own = parts[name]
            blocks.append({"features": begun[source].to(own.rows.features.dtype), "outputs": own.outputs})
        update_together([*grams.values(), *then.values()], blocks, part.weights, part.strata)
    if not grams or not grams[first].count:
        raise DataError("data gave no samples; pass a DataLoader, a list of batches or tensors")
    return grams, then, per_position


def _again(name: str, one_pass: OnePass, part: Part, known: Known | None) -> Part:
    """The rows of another network for a batch."""
    alone = replace(one_pass, data=[part.batch.item], head=known or one_pass.head)
    with errors_name(repr(name)):
        then = next(iter(alone.parts("comparing")), None)
    if then is None:
        raise DataError(f"{name!r} gave no rows for a batch for which another network did")
    return replace(then, rows=then.rows.first(part.rows.samples), outputs=then.outputs[: len(part.outputs)])


def _must_fit(name: str, one: Part, first: str, part: Part) -> None:
    if one.rows.sizes != part.rows.sizes:
        raise DataError(
            f"{name!r} gives {one.rows.named_sizes} where {first!r} gives {part.rows.named_sizes}: rows "
            "can be compared only if they are the same; pass rows=, or measure each network alone"
        )
    if one.outputs.shape[1] > MANY_OUTPUTS:
        raise DataError(f"{name!r} has {one.outputs.shape[1]:,} outputs; at most {MANY_OUTPUTS:,} can be compared")


def _compared(grams: dict[str, Gram], beginning: dict[str, Denominators], per_position: bool) -> ModelComparison:
    values: dict[str, dict[str, float]] = {}
    influences: dict[str, dict[str, Influence]] = {}
    notes = [
        "each row is a position of an input; positions of one input are not independent, so no error is given"
    ] * per_position
    for name, gram in grams.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RankWarning)  # the note has it
            estimate, balanced = low_rank_estimate(gram), low_rank_estimate(gram, reference="balanced")
        laziness = laziness_of(estimate, balanced.value, beginning.get(name))
        numbers = {
            "low_rank": estimate.value, "low_rank_corrected": estimate.corrected, "low_rank_stderr": estimate.stderr,
            "balanced": balanced.value, "balanced_corrected": balanced.corrected, "balanced_stderr": balanced.stderr,
        }  # fmt: skip
        values[name] = {key: value for key, value in numbers.items() if value is not None} | laziness.numbers()
        influences[name] = known_influences(low_rank=estimate, balanced=balanced, laziness=laziness)
        why = [] if per_position else [estimate.warning, estimate.note]
        notes += [f"{name}: {note}" for note in (*why, *laziness.notes) if note]
    names = list(grams)
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    differences = {
        measure: {
            (a, b): difference_of(measure, (values[a], influences[a]), (values[b], influences[b]))
            for a, b in pairs
            if measure in values[a] and measure in values[b]
        }
        for measure in MEASURES
    }
    known = {measure: found for measure, found in differences.items() if found}
    return ModelComparison(values, known, grams[names[0]].count, tuple(notes))
