"""The Gram matrix of features, outputs and targets, filled in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import DataError
from .accumulator import Accumulator
from .retained_rows import RETAINED_ROWS
from .state import BLOCK_ROWS, State

BLOCKS = ("features", "outputs", "targets")


class Gram(Accumulator):
    """Streamed, mergeable, resumable inner products of features, outputs and targets.

    The stack of functions is ``h(x) = [features | outputs | targets]``. Of n samples a Gram holds

    * the sums of ``w``, ``w²``, ``w·h``, ``w·h·hᵀ`` and ``‖Φ‖⁴`` about a pilot mean. The last one is needed for the unbiased
      estimate of ``‖cov Φ‖_F²``;
    * a random sample of at most ``retain`` rows, on which the delete-one jackknife is evaluated. Large rows are retained more
      surely than small ones.

    Products of features with features are formed in the precision of the activations (float32 for half types). Everything that
    involves outputs or targets is formed in float64, because a singular value that is computed from a product is only as accurate
    as the *root* of the product's rounding, and the rank of the outputs is decided on such values. All sums are float64.

    Rows are summed in blocks of fixed size whatever the sizes of the batches. Batches of one sample are therefore as fast as one
    batch of all samples, and give the same bits. Memory is O((p + C)²), independent of n. On an accelerator the host waits for no
    batch: whether all values are finite is checked when the sums are read.

    Args:
        retain: number of rows that are retained for the jackknife. They are chosen by their size and by a hash of their content
            (:mod:`lazyrich.gram.retained_rows`) or number, so the choice depends neither on the sizes of the batches nor on a
            random generator. With ``0`` there are no error bars.
        strata: number of strata. The rows of each are then a sample of their own, as where classes are weighed to count equally.
        num_outputs: the number of outputs that the block of outputs represents, if they were compressed to fewer columns with the
            same inner products (see ``functional.compressed_head``).
        head_bias: whether the outputs are ``features @ weight.T + bias`` with a bias that is free. The constant function then
            costs no features, and the balanced reference leaves it out.
        dtypes: block -> the dtype in which the network computed it, if the tensors that are passed have a finer one.

    Example:
        >>> import torch
        >>> gram = Gram()
        >>> gram.update(torch.tensor([[1.0], [3.0]]))
        >>> gram.update(torch.tensor([[5.0]]))
        >>> gram.mean("features"), gram.block("features", "features", centered=True)
        (tensor([3.], dtype=torch.float64), tensor([[2.6667]], dtype=torch.float64))
    """

    def __init__(
        self,
        *,
        retain: int = RETAINED_ROWS,
        strata: int = 0,
        num_outputs: int | None = None,
        head_bias: bool = True,
        dtypes: Mapping[str, torch.dtype] | None = None,
    ) -> None:
        if retain < 0 or strata < 0:
            raise ValueError(f"retain and strata must be 0 or more, got retain={retain}, strata={strata}")
        super().__init__(BLOCKS, State.empty(retain=retain, strata=strata, num_outputs=num_outputs, head_bias=head_bias))
        for name, dtype in (dtypes or {}).items():
            self._state.counts["eps"][BLOCKS.index(name)] = torch.finfo(dtype).eps

    def update(
        self,
        features: Tensor,
        outputs: Tensor | None = None,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
        strata: Tensor | None = None,
        numbers: Tensor | None = None,
    ) -> None:
        """Add a batch. If an error is raised, the Gram stays as it was.

        Args:
            features: (n, p) floating point.
            outputs: (n, C) floating point.
            targets: (n, T), one-hot or real.
            weights: (n,) not negative. Only their ratios matter; none may exceed 1e100.
            strata: (n,) int64, the stratum of each row.
            numbers: (n,) int64, not 0, which identify the rows. Which rows are retained then depends on them in place of the
                content, so that Grams of the same rows at several times retain nearly the same ones, and differences of their
                estimates have paired errors.

        Raises:
            NonFiniteError: NaN or infinity in the batch. On an accelerator it is raised when the sums are read.
            DataError: lengths or widths that do not match, or weights that are negative or not finite.
            TypeError: features or outputs that are not floating point.
        """
        self._add({"features": features, "outputs": outputs, "targets": targets}, weights, strata, numbers)

    def merge(self, other: Gram) -> Gram:
        """Add what ``other`` has seen (another process, an earlier run) to this Gram, and return this Gram.

        Raises:
            DataError: the blocks or dtypes do not match, or ``other`` is this Gram.
        """
        if other is self:
            raise DataError("a Gram cannot be merged into itself, because every sample would count twice")
        if not other.widths:
            return self
        if self.widths and self.widths != other.widths:
            raise DataError(f"cannot merge a Gram with blocks of widths {other.widths} into one with {self.widths}")
        if self.widths and self.product_eps != other.product_eps:
            raise DataError("cannot merge products in float32 with products in float64: the features had different dtypes")
        if len(self._state.strata_rows) != len(other._state.strata_rows):
            raise DataError("cannot merge Grams with different numbers of strata")
        if self.widths and self.head_bias != other.head_bias:
            raise DataError("cannot merge the Gram of a head with a bias into that of a head without")
        self._flush()
        other._flush()
        self._readings.clear()
        if not self.count:
            self._state = other._state.copy()
        elif other.count:
            self._state.merge(other._state)
        return self

    def map_targets(self, matrix: Tensor, shift: Tensor) -> None:
        """Replace the targets t of all rows by ``matrix @ t + shift``, as if the rows had come with those.

        Args:
            matrix: (T', T).
            shift: (T',).

        Example:
            >>> import torch
            >>> gram = Gram()
            >>> gram.update(torch.tensor([[1.0], [2.0]]), targets=torch.tensor([[0.0], [1.0]]))
            >>> gram.map_targets(torch.tensor([[-1.0], [1.0]]), torch.tensor([1.0, 0.0]))
            >>> gram.block("targets", "targets")
            tensor([[0.5000, 0.0000],
                    [0.0000, 0.5000]], dtype=torch.float64)
        """
        state, columns = self._ready(), self._columns("targets")
        old, p, device = state.moments, state.moments.width, state.device
        start, width = columns.start - p, old.small.shape[0] - (columns.stop - columns.start)
        linear = torch.zeros(width + len(matrix), old.small.shape[0], dtype=torch.float64, device=device)
        linear[:start, :start] = torch.eye(start, dtype=torch.float64, device=device)
        linear[start:, start:] = matrix.to(linear)
        widths = [int(w) for w in state.counts["widths"]]
        new = state.with_blocks([*widths[:2], len(matrix)], state.pending.features.dtype, device)
        new.moments = replace(
            old,
            pilot=torch.cat([old.pilot[:p], linear @ old.pilot[p:]]),
            sum=torch.cat([old.sum[:p], linear @ old.sum[p:]]),
            cross=old.cross @ linear.T,
            small=linear @ old.small @ linear.T,
        )
        new.moments.pilot[p + start :] += shift.to(linear)
        new.retained = replace(state.retained, small=state.retained.small @ linear.T)
        new.retained.small[:, start:] += shift.to(linear)
        new.first_bad_batch, new.spread, new.strata_rows = state.first_bad_batch, state.spread, state.strata_rows
        self._state = new
        self._readings.clear()

    # --- saving --------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """The complete state by name: the tensors themselves, which the Gram writes into, not copies.

        After the first batch their shapes do not change. ``counts`` and ``pending_weights`` are on the CPU.
        """
        return self._state.tensors()

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Gram:
        """A Gram that continues to write into the tensors of :meth:`tensors`.

        Raises:
            DataError: these are not the tensors of a Gram.
        """
        gram = cls(retain=0)
        gram._state = State.from_tensors(tensors)
        return gram

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of :meth:`tensors`, for ``torch.save``; ``torch.load`` reads it with ``weights_only=True``."""
        return self._state.copy().tensors()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a copy of what :meth:`state_dict` returned, as if there had been no interruption.

        Raises:
            DataError: this is not the state of a Gram; nothing changes.
        """
        self._state = State.from_tensors(state).copy()
        self._readings.clear()

    # --- reading -------------------------------------------------------------------------------------------------

    @property
    def num_outputs(self) -> int:
        """Number of outputs of the network; larger than the width of the block if the outputs were compressed."""
        return int(self._state.counts["num_outputs"]) or self.widths.get("outputs", 0)

    @property
    def head_bias(self) -> bool:
        """Whether the head has a bias."""
        return not self._state.counts["no_head_bias"]

    @property
    def feature_rounding(self) -> float:
        """Bound on the rounding of the products that is left in the covariance of the features, relative to that covariance."""
        covariance = self.block("features", "features", centered=True)
        return self.product_eps * BLOCK_ROWS**0.5 * float(self.squares_about_pilot.sum() / covariance.diagonal().sum())

    @property
    def squares_about_pilot(self) -> Tensor:
        """(p,) mean square of each feature about the pilot mean, from which the products were formed."""
        return self._ready().moments.features.diagonal() / self.weight_sum

    def fourth_moment(self) -> float:
        """Σ‖Φᵢ - Φ̄‖⁴ over n²; all weights must be one.

        Raises:
            DataError: there are weights.
        """
        state = self._ready()
        if not state.uniform:
            raise DataError("the fourth moment of weighted rows is not summed; estimate it from the retained rows")
        d = -state.moments.sum[self._columns("features")] / state.weight_sum
        return float(state.moments.quartic_about(d, state.weight_sum)) / state.weight_sum**2
