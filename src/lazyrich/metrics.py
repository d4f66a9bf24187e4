"""torchmetrics classes over one Gram: update with features and outputs, compute a number, synchronise over processes.

In a ``MetricCollection`` all of them share one Gram, because they have the same states and so form one compute group: one update
serves every measure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from . import functional
from ._support.extras import needs
from ._support.processes import Processes
from .functional.inputs import are_labels, as_matrix, target_matrix
from .functional.low_rank import Reference
from .gram import RETAINED_ROWS, Gram
from .gram.state import NAMES, ON_CPU

needs("torchmetrics", "metrics")

from torchmetrics import Metric  # noqa: E402


class GramMetric(Metric):
    """Base class of the metrics: it has the tensors of a Gram as states, and updates, synchronises, merges and moves them.

    Args:
        num_classes: width of the one-hot rows for integer labels; by default the number of outputs, 2 for a single output.
        retain: number of rows that are retained for error bars.
        head_bias: whether the head has a bias, on which the balanced reference depends; see :class:`lazyrich.Gram`.
        kwargs: passed on to ``torchmetrics.Metric``.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = True  # the rows are numbered, and the first of them decide the pilot mean

    def __init__(
        self, *, num_classes: int | None = None, retain: int = RETAINED_ROWS, head_bias: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        for name, value in Gram(retain=retain, head_bias=head_bias).tensors().items():
            self.add_state(name, default=value, dist_reduce_fx=None)

    def update(
        self, features: Tensor, outputs: Tensor | None = None, targets: Tensor | None = None, weights: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            features: (n, p) input of the head.
            outputs: (n, C) or (n,) output of the head.
            targets: (n,) integer labels, or (n, T) or (n,) real.
            weights: (n,) not negative.

        Raises:
            ValueError: integer labels, but neither ``num_classes`` nor outputs.
            DataError, NonFiniteError: as for :meth:`lazyrich.Gram.update`; the state stays as it was.
        """
        outputs = None if outputs is None else as_matrix(outputs)
        if targets is not None:
            classes = self.num_classes or (None if outputs is None else max(outputs.shape[-1], 2))
            if are_labels(targets) and classes is None:
                raise ValueError(
                    f"{type(self).__name__} needs num_classes if targets are integer labels and there are no outputs"
                )
            targets = target_matrix(targets, classes)
        gram = self.gram
        if not gram.widths:
            gram = Gram(retain=gram.retain, head_bias=gram.head_bias)
        gram.update(features, outputs, targets, weights)
        self._set(gram)

    @property
    def gram(self) -> Gram:
        """A Gram over the states, which it writes into."""
        return Gram.from_tensors(self._states())

    def _states(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in NAMES}

    def _set(self, gram: Gram) -> None:
        for name, value in gram.tensors().items():
            setattr(self, name, value)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw one value of ``compute``, or a list of several over steps; by default the present one.

        Args:
            val: what ``compute`` or ``forward`` returned, or a list of such values.
            ax: axes of matplotlib to draw in; by default a new figure.

        Returns:
            The new figure, which is None if ``ax`` is passed, and the axes.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        return self._plot(val, ax)

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add what another metric of this kind has seen, or its state; also after ``compute``.

        Raises:
            ValueError: this is neither a metric over a Gram nor a dictionary.
            DataError: the dictionary is not the state of a Gram, or its blocks do not match.
        """
        if isinstance(incoming_state, GramMetric):
            incoming_state = incoming_state._states()
        if not isinstance(incoming_state, dict):
            raise ValueError(f"incoming_state must be a metric over a Gram or its state, got {type(incoming_state).__name__}")
        other = Gram()
        other.load_state_dict(incoming_state)
        self._set(self.gram.merge(other))
        self._computed = None
        self._update_count = max(self._update_count, 1)

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any = None) -> None:
        """Move the sums of all processes to one pilot mean and add them up; see :meth:`lazyrich.Gram.reduce`."""
        gram = Gram()
        gram.load_state_dict(self._states())
        gram.reduce(Processes(group=process_group or self.process_group))
        self._set(gram)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> Any:
        """Move the states to another device, but keep their precision, whatever becomes of the module that holds the metric."""

        def moved(x: Tensor) -> Tensor:
            return x.to(fn(torch.empty(0, dtype=x.dtype, device=x.device)).device)

        return super()._apply(moved, (*exclude_state, *ON_CPU))


class LowRankMeasure(GramMetric):
    """D_LR from features and outputs; see :func:`lazyrich.functional.low_rank_measure`.

    Args:
        reference: "projection" (the paper), "balanced" or "outputs".
        rtol: output directions with a singular value of at most ``rtol`` × the largest are left out.
        corrected: compute the bias-corrected estimate instead of the plug-in estimate.
        kwargs: as for :class:`GramMetric`.

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
        """0-d float64; NaN if ``corrected`` and there are too few samples."""
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
        values = asdict(functional.neural_collapse(self.gram))
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items() if value is not None}


class KernelAlignment(GramMetric):
    """Linear CKA of two blocks of features: ``update(features_a, features_b)``. Against the features of the start it is S_init.

    Args:
        other: the block to compare with: "outputs", the second argument of ``update``, or "targets", the third, which gives the
            kernel-target alignment.
        kwargs: as for :class:`GramMetric`.
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
        return torch.tensor(float(type(self)._function(self.gram)), dtype=torch.float64)


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
