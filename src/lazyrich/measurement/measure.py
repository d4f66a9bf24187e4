"""The one call: a model and data in, a `Richness` out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from .._support.processes import Processes
from ..errors import DataError, RankWarning
from ..functional.neural_collapse import class_means, nearest_mean_disagrees
from ..gram import Gram
from ..model.batches import IGNORED_LABEL, Batch, Forward, batches, is_one_shot, loader_shuffles
from ..model.determinism import check_data, check_model
from ..model.layers import Layers, Pooling
from ..model.linear import unwrapped
from ..model.rows import Layout, Reader, RowChoice
from ..model.undisturbed import undisturbed
from ..results.catalogue import functions
from ..results.richness import Richness
from .kept import KeptStart
from .laziness import of_redraws
from .narrow import narrowed
from .one_pass import OnePass, class_weights
from .probe import ProbeBatches
from .reading import layer_notes, read_head, read_layers
from .start import StartSums, start_network, sums_of_network
from .sums import Agreement, HeadSums, LayerSums


def measure(
    model: nn.Module,
    data: Any,
    *,
    head: nn.Module | str | None = None,
    layers: str | Sequence[str] | None = None,
    pooling: Pooling = "average",
    rows: RowChoice = None,
    forward: Forward | None = None,
    targets: Callable[[Any], Tensor] | None = None,
    ignore_index: int = IGNORED_LABEL,
    layout: Layout | None = None,
    start: nn.Module | Mapping[str, Any] | str | os.PathLike[str] | KeptStart | None = None,
    null: int = 0,
    build: Callable[[], nn.Module] | None = None,
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
        head: the head, its dotted name, or None: the one linear layer whose outputs, by value, are what the model returns (also
            through a softmax, an increasing function, a selection of rows or columns; ``result.evidence`` says how).
        layers: also measure what these layers see, against the same outputs: "all" for every linear and convolution layer, or
            dotted names of modules. What the head sees is the last of them.
        pooling: how a map (n, c, h, w) or a sequence (n, tokens, d) that a layer sees becomes rows: "average" over places,
            "flatten" to one long vector, "positions" (every place is a sample), "first" or "last" token. Tokens that an
            ``attention_mask`` leaves out do not count. Where the head answers at every token, layers are taken there too.
        rows: which rows count: "all", "mask", "labels", a key of the batch ("train_mask"), or a function of the batch that
            returns a boolean tensor. By default positions that the mask of the head's sequence keeps and whose label is not
            ignored.
        forward: runs the model on a batch, as ``forward(model, batch)``; it returns what the model returns, or
            :class:`lazyrich.Rows`, which needs no head.
        targets: gives the targets of a batch, in place of "labels" or the second of a pair.
        ignore_index: labels of this value do not count.
        layout: "time_first" where the head's outputs are (time, samples, C); by default the first dimension counts samples.
        start: the network as it was at the start: a copy of it (``copy.deepcopy`` before training), its state dict or the path of
            a checkpoint. Adds λ, the laziness ratio, S_init and the distance of the parameters. Batch norm that has seen no batch
            takes its statistics from the same rows for λ, which takes a pass of its own.
        null: number of networks that are drawn again to take the place of an unknown start: adds λ, with the median of their D_LR
            as denominator. ``laziness_stderr`` is then the standard deviation of λ over the draws, not an error of sampling. Each
            draw takes a pass over the data. λ of redraws can show rich training; where only the last layer was trained, it is too
            small.
        build: with ``null``, returns a new untrained network, as for :func:`lazyrich.null_distribution`; by default the
            ``reset_parameters`` of the modules draw a copy again.
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
        CheckpointError: the weights of ``start`` cannot be read, or do not fit.
        ValueError: ``extra`` names a measure that is not in the catalogue; ``start`` and ``null`` together; ``null`` without
            ``build``, and parameters that no ``reset_parameters`` draws.

    Example:
        An untrained linear readout of isotropic inputs sits at the isotropic reference 1 - sqrt(r/p):

        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(64, 4, bias=False)
        >>> r = measure(model, torch.randn(8192, 64))
        >>> abs(r.low_rank_corrected - (1 - (4 / 64) ** 0.5)) < 3 * r.low_rank_stderr
        True
    """
    _check(model, data, sample_weights, class_balanced=class_balanced, nc4=nc4, check=check)
    _check_start(model, start, null, build)
    added = functions(extra)
    processes = Processes(distributed)
    model = unwrapped(model)
    with processes.all_or_none(), undisturbed(model, data, device) as target:
        one_pass = one_pass_of(
            model, data, target, processes, head=head, rows=rows, forward=forward, targets=targets, ignore_index=ignore_index,
            layout=layout,
        )  # fmt: skip
        one_pass = replace(one_pass, num_samples=num_samples, sample_weights=sample_weights, progress=progress)
        if check:
            with undisturbed(model, data, None):  # the pass then sees what it would have seen without
                check_data(data, num_samples)
                _check_model(one_pass)
        if class_balanced:
            one_pass = replace(one_pass, class_weights=class_weights(one_pass))
        chosen = None if layers is None else Layers(model, layers, pooling)
        network = None if start is None or isinstance(start, KeptStart) else start_network(start, model)
        redraws = of_redraws(one_pass, null, build) if null else None
        with undisturbed(network, None, target) if network is not None else nullcontext():
            beginning = start.sums(one_pass) if isinstance(start, KeptStart) else None
            beginning = beginning if network is None else sums_of_network(network, one_pass)
            sums, inner = _filled(one_pass, chosen, beginning)
        result, warning = read_head(sums, model, network, beginning, redraws)
        result = replace(result, extra={name: float(function(sums.finish())) for name, function in added.items()})
        if inner is not None:
            read = read_layers(inner, sums)
            result = replace(result, layers=read, notes=result.notes + layer_notes(inner, read))
        if nc4 and result.neural_collapse is not None:
            disagree = _disagreement(replace(one_pass, head=sums.known), sums)
            result = replace(result, neural_collapse=replace(result.neural_collapse, nc4=disagree))
    if warning is not None:
        warnings.warn(warning, RankWarning, stacklevel=2)
    return result


def collect(
    model: nn.Module,
    data: Any,
    *,
    head: nn.Module | str | None = None,
    rows: RowChoice = None,
    forward: Forward | None = None,
    targets: Callable[[Any], Tensor] | None = None,
    ignore_index: int = IGNORED_LABEL,
    layout: Layout | None = None,
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
    return collected(
        model, data, None, num_samples=num_samples, distributed=distributed, device=device, progress=progress, head=head,
        rows=rows, forward=forward, targets=targets, ignore_index=ignore_index, layout=layout,
    )[0]  # fmt: skip


def collected(
    model: nn.Module,
    data: Any,
    start: KeptStart | None,
    *,
    num_samples: int | None,
    distributed: bool = True,
    device: torch.device | str | None = None,
    progress: bool = False,
    **reading: Any,
) -> tuple[Gram, StartSums | None]:
    """The Gram of :func:`collect`, and the sums of the features that were kept of the start."""
    processes, model = Processes(distributed), unwrapped(model)
    with processes.all_or_none(), undisturbed(model, data, device) as target:
        one_pass = one_pass_of(model, data, target, processes, **reading)
        one_pass = replace(one_pass, num_samples=num_samples, progress=progress)
        beginning = None if start is None else start.sums(one_pass)
        return _filled(one_pass, None, beginning)[0].finish(), beginning


def _check(model: nn.Module, data: Any, sample_weights: Tensor | None = None, **twice: bool) -> None:
    """Raises where the arguments do not fit together; ``twice`` are the options that take a second pass, by name."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for name, wanted in twice.items():
        if wanted and is_one_shot(data):
            raise DataError(
                f"{name}=True takes a second pass, and data is an iterator that can be used once: pass a DataLoader or a list"
            )
    if sample_weights is not None and not isinstance(sample_weights, Tensor):
        raise TypeError(f"sample_weights must be a tensor, got {type(sample_weights).__name__}; use torch.as_tensor")
    if sample_weights is not None and loader_shuffles(data):
        raise DataError("sample_weights are in the order of the data, and this DataLoader shuffles: use shuffle=False")


def _check_start(model: nn.Module, start: Any, null: int, build: Callable[[], nn.Module] | None) -> None:
    """Raises where what stands for the start of training does not fit together."""
    if start is not None and not isinstance(start, (nn.Module, Mapping, str, os.PathLike, KeptStart)):
        raise TypeError(f"start must be a torch.nn.Module, a state dict or a path, got {type(start).__name__}")
    if start is model:
        raise ValueError("start is the model itself: keep a copy.deepcopy(model) before training")
    if isinstance(null, bool) or not isinstance(null, int) or null < 0:
        raise ValueError(f"null must be a whole number of draws, 0 or more, got {null!r}")
    if null and start is not None:
        raise ValueError(f"start and null={null} were both passed: the laziness ratio takes the start, or draws in its place")
    if build is not None and not null:
        raise ValueError("build is used with null, the number of networks to draw: pass null=19")


def _check_model(one_pass: OnePass) -> None:
    """Looks twice at the first batch."""

    def look(batch: Batch) -> tuple[Tensor, Tensor]:
        alone = replace(
            one_pass, data=[batch.item], processes=Processes(False), num_samples=None, sample_weights=None, progress=False
        )
        part = next(iter(alone.parts("checking")))
        return part.rows.features, part.outputs

    stream = batches(one_pass.data, one_pass.device, one_pass.targets)
    batch = next((b for b in stream if one_pass.processes.together or not b.is_empty), None)
    check_model(one_pass.model, batch, look, one_pass.processes)


def one_pass_of(
    model: nn.Module,
    data: Any,
    device: torch.device,
    processes: Processes,
    *,
    head: nn.Module | str | None = None,
    rows: RowChoice = None,
    forward: Forward | None = None,
    targets: Callable[[Any], Tensor] | None = None,
    ignore_index: int = IGNORED_LABEL,
    layout: Layout | None = None,
) -> OnePass:
    """A pass from the arguments of :func:`measure` that say how a network is read."""
    if rows is not None and not isinstance(rows, str) and not callable(rows):
        raise TypeError(f'rows must be "all", "mask", "labels", a key of the batch or a function, got {type(rows).__name__}')
    if layout not in (None, *get_args(Layout)):
        raise ValueError(f"layout must be one of {', '.join(get_args(Layout))}, got {layout!r}")
    reader = Reader(rows, ignore_index, layout)
    rows_id = int(data.digest[:8], 16) if isinstance(data, ProbeBatches) else None
    return OnePass(model, data, device, processes, head, reader, forward=forward, targets=targets, rows_id=rows_id)


def _filled(one_pass: OnePass, layers: Layers | None, beginning: StartSums | None) -> tuple[HeadSums, LayerSums | None]:
    """The pass: sums of the head and of each layer; those of the start are filled too."""
    sums, agreement = HeadSums(one_pass.processes), Agreement()
    inner = None if layers is None else LayerSums(layers, one_pass)
    for part in narrowed(one_pass.parts("measuring", layers), one_pass.processes):
        if beginning is not None:
            beginning.add(part, sums, inner)
        else:
            sums.add(part)
            if inner is not None:
                inner.add(part, inner.features(part), {})
        if one_pass.processes.together:
            agreement.add(part)
    grams = [*([] if inner is None else inner.finish()), *([] if beginning is None else beginning.finish())]
    head = None if sums.known is None or sums.known.head is None else sums.known.head.name
    if agreement.same_data(one_pass.processes, head, sums.per_position, len(grams)):
        sums.notes.append(f"all {one_pass.processes.size} processes were given the same data: counted once")
        sums.copies = True
    elif one_pass.processes.together:
        sums.reduce()
        for gram in grams:
            gram.reduce(one_pass.processes)
    if sums.left_out and (sums.gram is None or sums.gram.count == 0):
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sums.left_out.items())
        raise DataError(f"no rows are left, because all were left out ({reasons}); pass another rows=")
    if sums.gram is None or sums.gram.count == 0:
        used_up = " or an iterator that was used up" if is_one_shot(one_pass.data) else ""
        raise DataError(f"data gave no samples: an empty loader{used_up}; pass a DataLoader, a list of batches or tensors")
    sums.settle_targets()
    return sums, inner


def _disagreement(one_pass: OnePass, sums: HeadSums) -> float:
    """NC4 by a second pass, because the class means must be known before the first sample is judged."""
    gram = sums.finish()
    means = class_means(gram)[1]
    totals = torch.zeros(2, dtype=torch.float64)  # disagreement, weight
    for part in one_pass.parts("NC4"):
        disagree = nearest_mean_disagrees(part.rows.features, part.outputs, means).double().cpu()
        weights = torch.ones_like(disagree) if part.weights is None else part.weights.cpu().double()
        totals += torch.stack([weights @ disagree, weights.sum()])
    if one_pass.processes.together and not sums.copies:
        one_pass.processes.gather(None)
        one_pass.processes.add(totals)
    wrong, total = totals.tolist()
    if abs(total - gram.weight_sum) > 1e-9 * gram.weight_sum:
        raise DataError(
            f"the second pass for NC4 saw another amount of data than the first: {total:g} against {gram.weight_sum:g}"
        )
    return wrong / total
