"""Whether a batch's labels belong to the rows: per sample, per position, or shifted by one, as causal language models have them.

Whether labels in a mapping are shifted is verified by the loss that the model returns: by its value, and where that does not
decide by its gradient with respect to the captured outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DataError
from .batches import Batch
from .head import Head, Reading


@dataclass(frozen=True)
class Labels:
    """How labels are used.

    Attributes:
        shift: by how many positions they lie behind the outputs that predict them, 0 or 1; None: they are not used as they are.
        evidence: what shows it, or why they are not used.
        by_gradient: whether the gradient of the model's loss gives the label of every row, and which rows count.
    """

    shift: int | None
    evidence: str | None = None
    by_gradient: bool = False


@dataclass(frozen=True)
class Fitting:
    """The targets of a batch as rows.

    Attributes:
        targets: (samples · positions,) labels or (samples · positions, T) values; None where there are none that fit.
        counted: (samples · positions,) which rows have a label that is not ignored; None: all.
    """

    targets: Tensor | None = None
    counted: Tensor | None = None


def decided_labels(
    model: nn.Module, head: Head, reading: Reading, batch: Batch, samples: int, positions: int, ignore_index: int,
    forward: Callable[[], Any],
) -> Labels:  # fmt: skip
    """How the labels of every batch are used, from the first one."""
    targets = batch.targets
    if targets is None:
        return Labels(None)
    if positions == 1:
        return Labels(0)
    if targets.is_floating_point():
        if targets.shape[0] == samples and targets.numel() % (samples * positions) == 0:
            return Labels(0)
        shape = tuple(targets.shape)
        return Labels(None, f"targets are not used: their shape {shape} does not fit {positions} positions of {samples} samples")
    if targets.numel() != samples * positions:
        return Labels(
            None,
            f"labels are not used: their shape {tuple(targets.shape)} does not fit the {positions} positions of {samples} "
            "samples at which the head answers",
        )
    if not batch.is_mapping:
        return Labels(0)
    return _by_loss(model, head, reading, targets.reshape(samples, positions), ignore_index, forward)


def fitting_labels(
    labels: Labels | None, batch: Batch, samples: int, positions: int, ignore_index: int, answers: Fitting | None = None
) -> Fitting:
    """The targets of this batch, one for each row; ``answers`` are those of the loss's gradient."""
    targets = batch.targets
    if labels is not None and labels.by_gradient:
        return answers or Fitting(None, torch.zeros(samples * positions, dtype=torch.bool))
    if labels is None or labels.shift is None or targets is None:
        return Fitting()
    if positions == 1:
        return _of_samples(targets, samples, ignore_index)
    if targets.is_floating_point():
        return Fitting(targets.reshape(samples * positions, -1))
    if targets.numel() != samples * positions:
        raise DataError(
            f"the labels of this batch have shape {tuple(targets.shape)}, and the head answers at {positions} positions of "
            f"{samples} samples, as the labels of the first batch did"
        )
    targets = targets.reshape(samples, positions)
    if labels.shift:
        targets = torch.cat([targets[:, 1:], torch.full_like(targets[:, :1], ignore_index)], dim=1)
    return Fitting(targets.flatten(), targets.flatten() != ignore_index)


def _of_samples(targets: Tensor, samples: int, ignore_index: int) -> Fitting:
    targets = targets.unsqueeze(0) if targets.ndim == 0 else targets
    if len(targets) != samples:
        raise DataError(
            f"the targets of this batch have shape {tuple(targets.shape)}, its outputs {samples} rows; "
            "inputs and targets must have the same length"
        )
    if targets.ndim == 2 and targets.shape[1] == 1 and not targets.is_floating_point():
        targets = targets[:, 0]
    if targets.ndim > 2:
        raise DataError(f"targets must have shape (n,) or (n, T), got {tuple(targets.shape)}; flatten them")
    if targets.ndim == 1 and not targets.is_floating_point() and bool((targets == ignore_index).any()):
        return Fitting(targets, targets != ignore_index)
    return Fitting(targets)


def _by_loss(
    model: nn.Module, head: Head, reading: Reading, labels: Tensor, ignore_index: int, forward: Callable[[], Any]
) -> Labels:
    """Which shift reproduces the loss that the model returns."""
    if reading.loss is None:
        return Labels(None, "labels are not used: the model returns no loss that verifies whether they are shifted")
    call = reading.call
    if call.whole:
        outputs = call.outputs.reshape(*labels.shape, call.shape[-1]).double()
        fits = [shift for shift in (0, 1) if _reproduces(outputs, labels, shift, ignore_index, reading.loss)]
        if len(fits) == 1:
            return Labels(fits[0], f"labels {'shifted by one' if fits[0] else 'as they are'}: they reproduce the model's loss")
    if gradient_labels(head, forward, labels.numel()) is None:
        return Labels(
            None, "labels are not used: neither the value nor the gradient of the model's loss shows what they belong to"
        )
    return Labels(None, "labels and the rows that count are those of the gradient of the model's loss", by_gradient=True)


def gradient_labels(head: Head, forward: Callable[[], Any], rows: int) -> Fitting | None:
    """Which rows the loss that the model returns depends on, and the label of each: the most negative entry of its gradient.

    None where there is no such gradient.
    """
    gradient = _loss_gradient(head.module, forward)
    if gradient is None or not bool(gradient.any()) or gradient.shape[:-1].numel() != rows:
        return None
    gradient = gradient.reshape(rows, -1)
    return Fitting(gradient.argmin(-1), (gradient != 0).any(-1))


def _reproduces(outputs: Tensor, labels: Tensor, shift: int, ignore_index: int, loss: Tensor) -> bool:
    rows = outputs[:, : labels.shape[1] - shift].flatten(0, 1)
    ours = labels[:, shift:].flatten().to(rows.device)
    kept = ours != ignore_index
    ours, rows = ours[kept], rows[kept]
    if not len(ours) or bool(((ours < 0) | (ours >= rows.shape[1])).any()):
        return False
    value = float(nn.functional.cross_entropy(rows, ours.long()))
    eps = torch.finfo(loss.dtype).eps
    return abs(value - float(loss)) <= (200 if eps < 1e-6 else 4) * eps * max(abs(value), 1.0)


def _loss_gradient(module: nn.Module, forward: Callable[[], Any]) -> Tensor | None:
    """The gradient of the loss that the model returns with respect to the head's outputs; None where there is none."""
    leaves: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return None
        leaves.append(output.detach().clone().requires_grad_())
        torch.set_grad_enabled(True)  # from here on only: what came before the head needs no graph
        return leaves[-1]

    handle = module.register_forward_hook(hook)
    try:
        with torch.inference_mode(False), torch.no_grad():
            returned = forward()
    finally:
        handle.remove()
    loss = returned.get("loss") if isinstance(returned, dict) else getattr(returned, "loss", None)
    if len(leaves) != 1 or not isinstance(loss, Tensor) or not loss.requires_grad:
        return None
    return torch.autograd.grad(loss, leaves[0], allow_unused=True)[0]
