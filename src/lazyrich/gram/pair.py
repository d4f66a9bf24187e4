"""Two blocks of features of the same samples, to compare their kernels."""

from __future__ import annotations

from torch import Tensor

from .accumulator import Accumulator
from .retained_rows import RETAINED_ROWS
from .state import State


class FeaturePair(Accumulator):
    """Streamed inner products within and between two blocks of features of the same samples.

    For example the features of a network now and at its start: ``functional.kernel_alignment(pair)`` is then S_init.

    Args:
        first, second: names of the blocks, for :meth:`mean`, :meth:`block` and error messages.
        retain, strata: as for :class:`lazyrich.Gram`.

    Example:
        >>> import torch
        >>> pair = FeaturePair()
        >>> pair.update(torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [0.0]]))
        >>> pair.block("features_a", "features_b", centered=True)
        tensor([[-1.]], dtype=torch.float64)
    """

    def __init__(
        self, first: str = "features_a", second: str = "features_b", *, retain: int = RETAINED_ROWS, strata: int = 0
    ) -> None:
        self.first, self.second = first, second
        super().__init__((first, second), State.empty(retain=retain, strata=strata))

    def update(self, first: Tensor, second: Tensor, weights: Tensor | None = None, strata: Tensor | None = None) -> None:
        """Add a batch. If an error is raised, the pair stays as it was.

        Args:
            first: (n, p) floating point.
            second: (n, q) floating point.
            weights: (n,) not negative. Only their ratios matter; none may exceed 1e100.
            strata: (n,) int64, the stratum of each row.

        Raises:
            NonFiniteError, DataError, TypeError: as for :meth:`lazyrich.Gram.update`.
        """
        self._add({self.first: first, self.second: second}, weights, strata)
