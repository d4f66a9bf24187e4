"""The one call: a model and data in, a `Richness` out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .batches import batches, is_one_shot, loader_shuffles
from .capture import Captured, Tap, head_parameters, undisturbed, unwrapped
from .errors import DataError
from .functional import feature_spectrum, low_rank_estimate, low_rank_measure, neural_collapse
from .functional._inputs import one_hot
from .functional.neural_collapse import class_means, nearest_mean_disagrees
from .gram import Gram
from .progress import progress_bar
from .richness import Richness


def measure(
    model: nn.Module,
    data: Any,
    *,
    head: nn.Module | str | None = None,
    num_samples: int | None = None,
    sample_weights: Tensor | None = None,
    nc4: bool = False,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Richness:
    """Measures whether a network was trained in the rich or the lazy regime: one pass over the data, no labels needed.

    The features are the input of the last linear layer. The model runs in evaluation mode without gradients;
    afterwards, also after an exception, its mode, hooks, device and every random state are as they were.

    Args:
        model: any ``nn.Module`` with a linear head; wrapped in DataParallel, DDP or torch.compile too.
        data: a DataLoader or any iterable of batches, a tensor of inputs, or a tuple (inputs, targets). A batch is a tensor, a
            pair (inputs, targets), or a mapping that the model takes as keyword arguments, targets under "labels".
        head: the head, its dotted name, or None: the linear layer whose output the model returns, else the last that ran.
        num_samples: stop after this many.
        sample_weights: (n,) not negative, in the order of the data.
        nc4: also compute NC4, which takes a second pass.
        device: where to run; by default where the model is.
        progress: show a bar (needs ``lazyrich[cli]``).

    Returns:
        :class:`Richness`. Class labels (integers, or exact one-hot rows) add neural collapse and quality; real targets
        add quality; without targets both are None.

    Raises:
        HeadError: no head, or more than one; the message lists the candidates.
        DataError: empty or used-up data, fewer than two samples, shapes that do not match, labels out of range.
        NonFiniteError: NaN or infinity in features or outputs; names the batch.
        DegenerateError: constant features or outputs.

    Example:
        An untrained linear readout of isotropic inputs sits at the isotropic reference 1 - sqrt(r/p):

        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(64, 4, bias=False)
        >>> r = measure(model, torch.randn(8192, 64))
        >>> abs(r.low_rank_corrected - (1 - (4 / 64) ** 0.5)) < 3 * r.low_rank_stderr
        True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if nc4 and is_one_shot(data):
        raise DataError(
            "nc4=True takes a second pass, and data is an iterator that can be used once: pass a DataLoader or a list"
        )
    if sample_weights is not None and not isinstance(sample_weights, Tensor):
        raise TypeError(f"sample_weights must be a tensor, got {type(sample_weights).__name__}; use torch.as_tensor")
    if sample_weights is not None and loader_shuffles(data):
        raise DataError("sample_weights are in the order of the data, and this DataLoader shuffles: use shuffle=False")
    model = unwrapped(model)
    with undisturbed(model, data, device) as place:
        tap = Tap(model, head)
        gram, positions = _fill(tap, data, place, num_samples, sample_weights, progress)
        result = _read(gram, tap, positions)
        if nc4 and result.neural_collapse is not None:
            disagree = _disagreement(tap, data, place, num_samples, sample_weights, gram, progress)
            result = replace(result, neural_collapse=replace(result.neural_collapse, nc4=disagree))
    return result


def collect(
    model: nn.Module,
    data: Any,
    *,
    head: nn.Module | str | None = None,
    num_samples: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Gram:
    """The pass over the data alone: a :class:`Gram` of features, outputs and targets, for :mod:`lazyrich.functional`.

    Arguments and errors as for :func:`measure`. Held-out quality, for example, is
    ``held_out_quality(feature_spectrum(collect(model, train)), collect(model, test))``.
    """
    model = unwrapped(model)
    with undisturbed(model, data, device) as place:
        return _fill(Tap(model, head), data, place, num_samples, None, progress)[0]


def _captured(tap: Tap, data: Any, place: torch.device, num_samples: int | None, show: bool, text: str) -> Iterator[Captured]:
    try:
        total = len(data)
    except TypeError:
        total = None
    with progress_bar(show, total=total if num_samples is None else None, text=text, unit=" batches") as bar:
        for batch in batches(data, place, num_samples):
            yield tap.run(batch)
            bar.update()


def _fill(
    tap: Tap, data: Any, place: torch.device, num_samples: int | None, sample_weights: Tensor | None, progress: bool
) -> tuple[Gram, bool]:
    gram, rows, positions = Gram(), 0, False
    for batch in _captured(tap, data, place, num_samples, progress, "measuring"):
        weights = None
        if sample_weights is not None:
            weights = sample_weights[rows : rows + len(batch.features)]
            if len(weights) < len(batch.features):
                more = rows + len(batch.features)
                raise DataError(f"sample_weights has {len(sample_weights)} entries, the data more: {more} rows so far")
        rows += len(batch.features)
        positions = positions or batch.positions
        gram.update(batch.features, batch.outputs, _as_matrix(batch.targets, batch.outputs.shape[1]), weights)
    if rows == 0:
        used_up = " or an iterator that was used up" if is_one_shot(data) else ""
        raise DataError(f"data gave no samples: an empty loader{used_up}; pass a DataLoader, a list of batches or tensors")
    if sample_weights is not None and len(sample_weights) != rows:
        raise DataError(f"sample_weights has {len(sample_weights)} entries, the data {rows} rows")
    return gram, positions


def _as_matrix(targets: Tensor | None, num_outputs: int) -> Tensor | None:
    """Class labels as one-hot rows, other targets as (n, T)."""
    if targets is None:
        return None
    if targets.ndim == 1 and not targets.is_floating_point():
        if num_outputs > 1:
            return one_hot(targets.long(), num_outputs)
        if not bool(((targets < 0) | (targets > 1)).any()):
            return one_hot(targets.long(), 2)
    return targets.unsqueeze(1) if targets.ndim == 1 else targets


def _is_one_hot(gram: Gram) -> bool:
    """Exactly one entry of one in every row: entries whose squares sum to the same as themselves, and no products."""
    if "targets" not in gram.widths or gram.widths["targets"] < 2:
        return False
    second, mean = gram.block("targets", "targets"), gram.mean("targets")
    return bool(torch.allclose(second, mean.diag(), rtol=0, atol=1e-9)) and abs(float(mean.sum()) - 1) < 1e-9


def _read(gram: Gram, tap: Tap, positions: bool) -> Richness:
    notes: list[str] = []
    estimate = low_rank_estimate(gram)
    if estimate.warning:
        notes.append(estimate.warning)
    if positions:
        estimate = replace(estimate, corrected=None, stderr=None, interval=None)
        notes.append("each row is a position of an input; positions of one input are not independent, so no error is given")
    collapse = None
    if _is_one_hot(gram):
        weight = head_parameters(tap.head)[0] if tap.head is not None else None
        fits = weight is not None and weight.shape == (gram.widths["targets"], gram.widths["features"])
        try:
            collapse = neural_collapse(gram, head_weight=weight if fits else None)
        except DataError as error:
            notes.append(f"no neural collapse: {error}")
    return Richness(
        low_rank=estimate.value,
        low_rank_corrected=estimate.corrected,
        low_rank_stderr=estimate.stderr,
        low_rank_interval=estimate.interval,
        low_rank_band=estimate.band,
        output_rank=estimate.rank,
        isotropic=estimate.isotropic,
        balanced=float(low_rank_measure(gram, reference="balanced")),
        output_alignment=float(low_rank_measure(gram, reference="outputs")),
        output_singular_values=estimate.singular_values,
        spectrum=feature_spectrum(gram),
        neural_collapse=collapse,
        num_samples=estimate.num_samples,
        num_features=gram.widths["features"],
        num_outputs=gram.widths["outputs"],
        head=tap.name,
        notes=tuple(notes),
    )


def _disagreement(
    tap: Tap,
    data: Any,
    place: torch.device,
    num_samples: int | None,
    sample_weights: Tensor | None,
    gram: Gram,
    progress: bool,
) -> float:
    """NC4 by a second pass: the class means must be known before the first sample is judged."""
    means = class_means(gram)[1]
    wrong = total = 0.0
    rows = 0
    for batch in _captured(tap, data, place, num_samples, progress, "NC4"):
        disagree = nearest_mean_disagrees(batch.features, batch.outputs, means).double()
        weights = torch.ones_like(disagree)
        if sample_weights is not None:
            weights = sample_weights[rows : rows + len(disagree)].to(disagree)
        rows += len(disagree)
        wrong += float((weights * disagree).sum())
        total += float(weights.sum())
    if abs(total - gram.weight_sum) > 1e-9 * gram.weight_sum:
        raise DataError(
            f"the second pass for NC4 saw another amount of data than the first: {total:g} against {gram.weight_sum:g}"
        )
    return wrong / total
