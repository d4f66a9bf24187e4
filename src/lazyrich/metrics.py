"""torchmetrics classes over one Gram: update with features and outputs, compute a number, sync over processes.

In a `MetricCollection` all of them share one Gram (they have the same states, so they form one compute group), and one pass
serves every measure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from . import functional
from ._support.processes import Processes
from .functional.inputs import are_labels, as_gram, target_matrix
from .functional.low_rank import Reference
from .gram import RETAINED_ROWS, Gram
from .gram.gram import STATE


class GramMetric(Metric):
    """What all metrics here share: the Gram as state, and how it is updated, synced, merged and moved.

    Args:
        num_classes: width of the one-hot rows that integer labels become; by default as many as there are outputs.
        retain: rows kept for error bars.
        kwargs: as of ``torchmetrics.Metric``.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = True  # rows keep their numbers, and the pilot mean is of the first rows

    def __init__(self, *, num_classes: int | None = None, retain: int = RETAINED_ROWS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        for name, value in Gram(retain=retain).tensors().items():
            self.add_state(name, default=value, dist_reduce_fx=None)

    def update(
        self, features: Tensor, outputs: Tensor | None = None, targets: Tensor | None = None, weights: Tensor | None = None
    ) -> None:
        """Adds a batch.

        Args:
            features: (n, p) input of the head.
            outputs: (n, C) output of the head.
            targets: (n,) integer labels or (n, T) real.
            weights: (n,) not negative.

        Raises:
            DataError, NonFiniteError: as :meth:`lazyrich.Gram.update`; the state stays as it was.
        """
        if targets is not None and are_labels(targets):
            classes = self.num_classes or (None if outputs is None else outputs.shape[-1])
            if classes is None:
                raise ValueError(f"{type(self).__name__} needs num_classes for integer labels where there are no outputs")
            targets = target_matrix(targets, classes)
        gram = self.gram
        if gram.count == 0:
            there = Processes()
            gram.first_row, gram.row_step = there.rank, there.size
        columns = {"outputs": outputs, "targets": targets}
        given = {name: x.unsqueeze(1) if x is not None and x.ndim == 1 else x for name, x in columns.items()}
        gram.update(features, given["outputs"], given["targets"], weights)
        self._take(gram)

    @property
    def gram(self) -> Gram:
        """The Gram over the current states, which it writes into."""
        return Gram.from_tensors({name: getattr(self, name) for name in STATE})

    def _take(self, gram: Gram) -> None:
        for name, value in gram.tensors().items():
            setattr(self, name, value)

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Adds what another metric of this kind, or its state, has seen; also after ``compute``."""
        if isinstance(incoming_state, GramMetric):
            incoming_state = {name: getattr(incoming_state, name) for name in STATE}
        if not isinstance(incoming_state, dict):
            raise ValueError(f"expected a metric over a Gram or its state, got {type(incoming_state).__name__}")
        other = Gram.from_tensors({name: x.clone() for name, x in incoming_state.items() if isinstance(x, Tensor)})
        self._take(self.gram.merge(other))
        self._computed = None
        self._update_count = max(self._update_count, 1)

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any = None) -> None:
        """Sums over processes after all have moved to one pilot mean; see :meth:`lazyrich.Gram.reduce`."""
        gram = Gram.from_tensors({name: getattr(self, name).clone() for name in STATE})
        gram.reduce(Processes(group=process_group or self.process_group))
        self._take(gram)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> Any:
        """Moves devices only: the sums stay in double precision whatever becomes of the module around them."""

        def moved(x: Tensor) -> Tensor:
            return x.to(fn(torch.empty(0, dtype=x.dtype, device=x.device)).device)

        return super()._apply(moved, (*exclude_state, "header", "kept_numbers", "pending_weights"))


class LowRankMeasure(GramMetric):
    """D_LR from features and outputs; see :func:`lazyrich.functional.low_rank_measure`.

    Args:
        reference: "projection" (the paper), "balanced" or "outputs".
        rtol: cut of the output directions.
        corrected: the value without sampling bias instead of the plug-in.
        num_classes, retain, kwargs: as of :class:`GramMetric`.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1., 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]], dtype=torch.float64)
        >>> metric = LowRankMeasure()
        >>> metric.update(x[:2], x[:2, :2])
        >>> metric.update(x[2:], x[2:, :2])
        >>> metric.compute()  # isotropic features: 1 - sqrt(2/3)
        tensor(0.1835, dtype=torch.float64)
    """

    def __init__(
        self, reference: Reference = "projection", *, rtol: float | None = None, corrected: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        functional.low_rank.power_of(reference)
        self.reference: Reference = reference
        self.rtol, self.corrected = rtol, corrected

    def compute(self) -> Tensor:
        """0-d float64; NaN for ``corrected`` with too few samples."""
        if not self.corrected:
            return functional.low_rank_measure(self.gram, rtol=self.rtol, reference=self.reference)
        value = functional.low_rank_estimate(self.gram, rtol=self.rtol, reference=self.reference).corrected
        return torch.tensor(float("nan") if value is None else value, dtype=torch.float64)


class NeuralCollapse(GramMetric):
    """NC1 and NC2 from features and labels; see :func:`lazyrich.functional.neural_collapse`.

    Example:
        >>> import torch
        >>> metric = NeuralCollapse(num_classes=2)
        >>> metric.update(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double(), targets=torch.tensor([0, 1]))
        >>> metric.compute()["nc1"]
        tensor(0., dtype=torch.float64)
    """

    def compute(self) -> dict[str, Tensor]:
        """{"nc1", "nc2_equinorm", "nc2_equiangular"}, 0-d float64."""
        found = functional.neural_collapse(self.gram).to_dict()
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items() if value is not None}


class KernelAlignment(GramMetric):
    """Centred linear CKA of two sets of features: ``update(features_a, features_b)``; S_init against stored features.

    Args:
        other: "outputs", the second argument of ``update``, or "targets", the third: kernel-target alignment.
        kwargs: as of :class:`GramMetric`.
    """

    def __init__(self, other: str = "outputs", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if other not in ("outputs", "targets"):
            raise ValueError(f'other must be "outputs" or "targets", got {other!r}')
        self.other = other

    def compute(self) -> Tensor:
        """0-d float64 in [0, 1]."""
        return functional.kernel_alignment(self.gram, other=self.other)


class _FeatureMetric(GramMetric):
    _function: Callable[[Gram], Any]

    def compute(self) -> Tensor:
        """0-d float64."""
        gram = as_gram(self.gram)
        return torch.tensor(float(type(self)._function(gram)), dtype=torch.float64)


class EffectiveRank(_FeatureMetric):
    """Exponential of the entropy of the covariance's eigenvalues; see :func:`lazyrich.functional.effective_rank`."""

    _function = staticmethod(functional.effective_rank)


class ParticipationRatio(_FeatureMetric):
    """tr(S_c)²/‖S_c‖²; see :func:`lazyrich.functional.participation_ratio`."""

    _function = staticmethod(functional.participation_ratio)


class StableRank(_FeatureMetric):
    """‖Φ‖_F²/‖Φ‖₂²; see :func:`lazyrich.functional.stable_rank`."""

    _function = staticmethod(functional.stable_rank)


class RankMe(_FeatureMetric):
    """Entropy rank of the raw singular values; see :func:`lazyrich.functional.rankme`."""

    _function = staticmethod(functional.rankme)


class AlphaReQ(_FeatureMetric):
    """Spectral exponent; see :func:`lazyrich.functional.alpha_req`."""

    _function = staticmethod(functional.alpha_req)
