"""A random projection of features to fewer columns, and D_LR of the projected features with the error of the projection."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gram import Gram
from .span import Span

SKETCH_BLOCKS, SKETCH_BUCKETS = 8, 256


class Sketch:
    """A seeded sparse random projection R with E[R Rᵀ] = I (Kane & Nelson, J. ACM 61, 2014).

    Its columns are ``SKETCH_BLOCKS`` blocks of ``SKETCH_BUCKETS`` buckets. In each block, every feature is added to one bucket
    with a random sign. The blocks are independent projections. So products of different blocks are unbiased estimates, and
    their spread measures the error.

    Args:
        width: number of features.
        seed: of the buckets and signs.
    """

    def __init__(self, width: int, *, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (SKETCH_BLOCKS, width)
        self.bucket = torch.randint(SKETCH_BUCKETS, shape, generator=generator, dtype=torch.int64)
        self.sign = torch.randint(2, shape, generator=generator, dtype=torch.int8) * 2 - 1

    def __call__(self, x: Tensor) -> Tensor:
        """Project (n, width) features to (n, blocks · buckets)."""
        self.bucket, self.sign = self.bucket.to(x.device), self.sign.to(x.device)
        projected = x.new_zeros(len(x), SKETCH_BLOCKS, SKETCH_BUCKETS)
        for block in range(SKETCH_BLOCKS):
            projected[:, block].scatter_add_(1, self.bucket[block].expand(len(x), -1), x * self.sign[block])
        return projected.flatten(1) / SKETCH_BLOCKS**0.5


def unprojected_norm(covariance: Tensor) -> Tensor:
    """‖S_c‖_F² without the bias of the projection: its blocks are independent, so E⟨K_a, K_b⟩ = ‖K‖² for a ≠ b."""
    pairs = _block_pairs(covariance)
    return (pairs.sum() - pairs.trace()) * SKETCH_BLOCKS / (SKETCH_BLOCKS - 1)


def unprojected_low_rank(gram: Gram, span: Span, strength: Tensor, reference_norm: Tensor) -> tuple[float, float]:
    """D_LR, and the standard error that comes from the projection only, by the jackknife over the projection's blocks.

    Args:
        gram: holds the projected features and the outputs.
        span: of the outputs.
        strength: (r,) roots of the reference kernel's eigenvalues in the basis of the span.
        reference_norm: norm of the centred reference kernel.
    """
    pairs = _block_pairs(gram.block("features", "features", centered=True))
    loadings = gram.block("features", "outputs", centered=True) @ span.to_basis * strength
    shares = loadings.square().sum(1).reshape(SKETCH_BLOCKS, -1).sum(1)  # of the numerator

    def alignment(blocks: Tensor) -> Tensor:
        """1 - D_LR from some of the blocks."""
        count = int(blocks.sum())
        chosen = pairs[blocks][:, blocks]
        norm2 = (chosen.sum() - chosen.trace()) * SKETCH_BLOCKS**2 / (count * (count - 1))
        return shares[blocks].sum() * SKETCH_BLOCKS / count / (norm2.sqrt() * reference_norm)

    every = torch.ones(SKETCH_BLOCKS, dtype=torch.bool, device=pairs.device)
    index = torch.arange(SKETCH_BLOCKS, device=pairs.device)
    without = torch.stack([alignment(every & (index != block)) for block in range(SKETCH_BLOCKS)])
    spread = (SKETCH_BLOCKS - 1) / SKETCH_BLOCKS * (without - without.mean()).square().sum()
    return float(1 - alignment(every)), float(spread.sqrt())


def _block_pairs(covariance: Tensor) -> Tensor:
    """(blocks, blocks) squared norms of the parts of S_c that belong to two blocks."""
    size = len(covariance) // SKETCH_BLOCKS
    return covariance.square().reshape(SKETCH_BLOCKS, size, SKETCH_BLOCKS, size).sum((1, 3))
