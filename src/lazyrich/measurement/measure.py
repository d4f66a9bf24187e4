"""The one call: a model and data in, a `Richness` out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .._support.processes import Processes
from ..errors import DataError, RankWarning
from ..functional.neural_collapse import class_means, nearest_mean_disagrees
from ..gram import RETAINED_ROWS, FeaturePair, Gram
from ..model.batches import is_one_shot, loader_shuffles
from ..model.capture import Tap, unwrapped
from ..model.determinism import check_data, check_model
from ..model.layers import LayerTaps, Pooling
from ..model.undisturbed import undisturbed
from ..results.catalogue import functions
from ..results.richness import Richness
from .narrow import NarrowGram
from .one_pass import Pass, class_weights
from .reading import left_out, read_head, read_layers


def measure(
    model: nn.Module,
    data: Any,
    *,
    head: nn.Module | str | None = None,
    layers: str | Sequence[str] | None = None,
    pooling: Pooling = "average",
    start: nn.Module | None = None,
    extra: Sequence[str] = (),
    num_samples: int | None = None,
    sample_weights: Tensor | None = None,
    class_balanced: bool = False,
    nc4: bool = False,
    check: bool = False,
    distributed: bool = True,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Richness:
    """Measures whether a network was trained in the rich or the lazy regime: one pass over the data, no labels needed.

    The features are the input of the last linear layer. The model runs in evaluation mode without gradients;
    afterwards, also after an exception, its mode, hooks, device and every random state are as they were.

    Args:
        model: any ``nn.Module`` with a linear head; wrapped in DataParallel, DDP, FSDP or torch.compile too.
        data: a DataLoader or any iterable of batches, a tensor of inputs, or a tuple (inputs, targets). A batch is a tensor, a
            pair (inputs, targets), or a mapping that the model takes as keyword arguments, targets under "labels".
        head: the head, its dotted name, or None: the linear layer whose output the model returns, else the last that ran.
        layers: also measure what these layers see, against the same outputs: "all" for every linear and convolution layer, or
            dotted names of modules. What the head sees is the last of them.
        pooling: how a map (n, c, h, w) or a sequence (n, tokens, d) that a layer sees becomes rows: "average" over places,
            "flatten" to one long vector, "positions" (every place is a sample), "first" or "last" token. Tokens that an
            ``attention_mask`` leaves out do not count. Where the head answers at every token, layers are taken there too.
        start: a copy of the network as it was at the start (``copy.deepcopy`` before training): adds S_init and the distance
            of the parameters.
        extra: names of measures in the catalogue (:mod:`lazyrich.results.catalogue`) that are measured only on request; their
            values are in ``Richness.extra``, and in every table, file and figure.
        num_samples: stop after this many, over all processes.
        sample_weights: (n,) not negative, in the order of the data (of this process).
        class_balanced: weigh samples so that every class counts the same; takes a first pass over the labels.
        nc4: also compute NC4, which takes a second pass.
        check: first look a second time at one batch, to find out whether data and model give the same again; see the guide.
        distributed: in an initialised process group, measure the data of all processes together; every one returns the same.
            What a DistributedSampler repeats to fill up is not counted twice.
        device: where to run; by default where the model is.
        progress: show a bar (needs ``lazyrich[cli]``).

    Returns:
        :class:`Richness`. Class labels (integers, or exact one-hot rows) add neural collapse and quality; other targets
        (real, multi-label) add quality and target alignment; without targets these are None.

    Raises:
        HeadError: no head, or more than one, or no such layer; the message lists the candidates.
        DataError: empty or used-up data, fewer than two samples, shapes that do not match, labels out of range; and, where
            several processes measure together, an error on one of them or data that end at different times.
        NonFiniteError: NaN or infinity in features or outputs; names the batch.
        NondeterminismError: with ``check``, the data or the model give something else the second time; names which.
        DegenerateError: constant features or outputs.
        ValueError: ``extra`` names a measure that is not in the catalogue.

    Example:
        An untrained linear readout of isotropic inputs sits at the isotropic reference 1 - sqrt(r/p):

        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(64, 4, bias=False)
        >>> r = measure(model, torch.randn(8192, 64))
        >>> abs(r.low_rank_corrected - (1 - (4 / 64) ** 0.5)) < 3 * r.low_rank_stderr
        True
    """
    _check(model, data, sample_weights, start, class_balanced=class_balanced, nc4=nc4, check=check)
    added = functions(extra)
    processes = Processes(distributed)
    model = unwrapped(model)
    with processes.all_or_none(), undisturbed(model, data, device) as place:
        tap = Tap(model, head)
        if check:
            with undisturbed(model, data, None):  # the pass then sees what it would have seen without
                check_data(data, num_samples)
                check_model(tap, data, place, num_samples, processes)
        per_class = class_weights(data, sample_weights, num_samples, processes) if class_balanced else None
        run = Pass(tap, data, place, num_samples, sample_weights, per_class, processes, progress)
        taps = None if layers is None else LayerTaps(model, layers, pooling)
        gram, inner, beginning = _fill(run, taps, None if start is None else unwrapped(start))
        result, warning = read_head(gram, run, start, beginning)
        result = replace(result, extra={name: float(function(gram)) for name, function in added.items()})
        if taps is not None:
            result = replace(result, layers=read_layers(inner, taps, run), notes=result.notes + left_out(taps))
        if nc4 and result.neural_collapse is not None:
            disagree = _disagreement(run, gram)
            result = replace(result, neural_collapse=replace(result.neural_collapse, nc4=disagree))
    if warning is not None:
        warnings.warn(warning, RankWarning, stacklevel=2)
    return result


def collect(
    model: nn.Module,
    data: Any,
    *,
    head: nn.Module | str | None = None,
    num_samples: int | None = None,
    distributed: bool = False,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Gram:
    """The pass alone: a :class:`Gram` of features, outputs and targets, for :mod:`lazyrich.functional`.

    Arguments and errors as for :func:`measure`, but that by default it is this process's data. Held-out quality, for example, is
    ``held_out_quality(feature_spectrum(collect(model, train)), collect(model, test))``.
    """
    _check(model, data)
    processes = Processes(distributed)
    model = unwrapped(model)
    with processes.all_or_none(), undisturbed(model, data, device) as place:
        run = Pass(Tap(model, head), data, place, num_samples, None, None, processes, progress)
        return _fill(run, None, None)[0]


def _check(
    model: nn.Module, data: Any, sample_weights: Tensor | None = None, start: nn.Module | None = None, **twice: bool
) -> None:
    """Raises where the arguments do not fit together; ``twice`` are the options that take a second pass, by name."""
    for name, given in (("model", model), ("start", start if start is not None else model)):
        if not isinstance(given, nn.Module):
            raise TypeError(f"{name} must be a torch.nn.Module, got {type(given).__name__}")
    if start is model:
        raise ValueError("start is the model itself: keep a copy.deepcopy(model) before training")
    for name, wanted in twice.items():
        if wanted and is_one_shot(data):
            raise DataError(
                f"{name}=True takes a second pass, and data is an iterator that can be used once: pass a DataLoader or a list"
            )
    if sample_weights is not None and not isinstance(sample_weights, Tensor):
        raise TypeError(f"sample_weights must be a tensor, got {type(sample_weights).__name__}; use torch.as_tensor")
    if sample_weights is not None and loader_shuffles(data):
        raise DataError("sample_weights are in the order of the data, and this DataLoader shuffles: use shuffle=False")


def _fill(run: Pass, taps: LayerTaps | None, start: nn.Module | None) -> tuple[Gram, dict[str, NarrowGram], FeaturePair | None]:
    """The pass: a Gram of the head, one of each layer, and the pair of the head's features now and at the start."""
    gram, layers, beginning = None, {}, None
    with undisturbed(start or run.tap.model, None, run.place if start is not None else None):
        start_tap = None
        for rows in run.rows("measuring", taps.hooks if taps is not None else None):
            gram = gram or run.gram(retain=0 if run.positions else RETAINED_ROWS, num_outputs=rows.num_outputs)
            gram.update(rows.features, rows.outputs, rows.targets, rows.weights)
            if start is not None:
                start_tap = start_tap or Tap(start, run.tap.name if run.tap.found is not run.tap.model else start)
                beginning = beginning or FeaturePair("features", "features of the start")
                then = start_tap.run(rows.batch).counted(rows.batch.counted)
                beginning.update(rows.features, then.features.to(rows.features.dtype), rows.weights)
            if taps is not None:
                for name, (features, owner) in taps.rows(rows.captured, rows.batch, run.tap.name).items():
                    retain = RETAINED_ROWS if len(features) == len(rows.features) and not run.positions else 0
                    if name not in layers:
                        layers[name] = NarrowGram(
                            run.gram(retain=retain, num_outputs=rows.num_outputs), hold=not run.processes.together
                        )
                    weights = None if rows.weights is None else rows.weights[owner.to(rows.weights.device)]
                    layers[name].update(features, rows.outputs[owner], weights)
    grams = [gram] if gram is not None else []
    filled = {name: layer.finish() for name, layer in layers.items()}
    run.reduce([*grams, *([] if beginning is None else [beginning]), *filled.values()])
    if gram is None or gram.count == 0:
        used_up = " or an iterator that was used up" if is_one_shot(run.data) else ""
        raise DataError(f"data gave no samples: an empty loader{used_up}; pass a DataLoader, a list of batches or tensors")
    return gram, layers, beginning


def _disagreement(run: Pass, gram: Gram) -> float:
    """NC4 by a second pass: the class means must be known before the first sample is judged."""
    means = class_means(gram)[1]
    sums = torch.zeros(2, dtype=torch.float64)  # disagreement, weight
    for rows in run.rows("NC4"):
        disagree = nearest_mean_disagrees(rows.features, rows.outputs, means).double().cpu()
        weights = torch.ones_like(disagree) if rows.weights is None else rows.weights.cpu().double()
        sums += torch.stack([weights @ disagree, weights.sum()])
    run.add(sums)
    wrong, total = sums.tolist()
    if abs(total - gram.weight_sum) > 1e-9 * gram.weight_sum:
        raise DataError(
            f"the second pass for NC4 saw another amount of data than the first: {total:g} against {gram.weight_sum:g}"
        )
    return wrong / total
