"""Features brought to fewer columns by a random projection, and D_LR of them with the error that this makes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gram import Gram
from .span import Span

SKETCH_BLOCKS, SKETCH_BUCKETS = 8, 256


class Sketch:
    """A seeded sparse random projection R with E[R Rᵀ] = I (Kane & Nelson, J. ACM 61, 2014).

    Each of ``blocks`` blocks of columns is a projection of its own: every feature goes to one bucket of the block with a
    random sign. The blocks are independent, so products between different blocks estimate without bias, and their spread
    tells the error.
    """

    def __init__(self, width: int, *, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (SKETCH_BLOCKS, width)
        self.bucket = torch.randint(SKETCH_BUCKETS, shape, generator=generator, dtype=torch.int64)
        self.sign = torch.randint(2, shape, generator=generator, dtype=torch.int8) * 2 - 1

    def __call__(self, x: Tensor) -> Tensor:
        """(n, width) -> (n, blocks · buckets)."""
        self.bucket, self.sign = self.bucket.to(x.device), self.sign.to(x.device)
        found = x.new_zeros(len(x), SKETCH_BLOCKS, SKETCH_BUCKETS)
        for block in range(SKETCH_BLOCKS):
            found[:, block].scatter_add_(1, self.bucket[block].expand(len(x), -1), x * self.sign[block])
        return found.flatten(1) / SKETCH_BLOCKS**0.5


def unprojected_norm(covariance: Tensor) -> Tensor:
    """‖S_c‖_F² without what the projection adds to it: blocks of it are independent, so E⟨K_a, K_b⟩ = ‖K‖² for a ≠ b."""
    pairs = _block_pairs(covariance)
    return (pairs.sum() - pairs.trace()) * SKETCH_BLOCKS / (SKETCH_BLOCKS - 1)


def unprojected_low_rank(gram: Gram, span: Span, strength: Tensor, reference_norm: Tensor) -> tuple[float, float]:
    """D_LR and its standard error from the projection alone: the jackknife over the projection's blocks.

    ``strength`` and ``reference_norm`` are of the reference kernel in the basis of the span.
    """
    pairs = _block_pairs(gram.block("features", "features", centered=True))
    loadings = gram.block("features", "outputs", centered=True) @ span.to_basis * strength
    shares = loadings.square().sum(1).reshape(SKETCH_BLOCKS, -1).sum(1)  # of the numerator

    def kept(blocks: Tensor) -> Tensor:
        count = int(blocks.sum())
        chosen = pairs[blocks][:, blocks]
        norm2 = (chosen.sum() - chosen.trace()) * SKETCH_BLOCKS**2 / (count * (count - 1))
        return shares[blocks].sum() * SKETCH_BLOCKS / count / (norm2.sqrt() * reference_norm)

    everything = torch.ones(SKETCH_BLOCKS, dtype=torch.bool, device=pairs.device)
    without = torch.stack(
        [kept(everything & (torch.arange(SKETCH_BLOCKS, device=pairs.device) != b)) for b in range(SKETCH_BLOCKS)]
    )
    spread = (SKETCH_BLOCKS - 1) / SKETCH_BLOCKS * (without - without.mean()).square().sum()
    return float(1 - kept(everything)), float(spread.sqrt())


def _block_pairs(covariance: Tensor) -> Tensor:
    """(blocks, blocks) squared norms of the parts of S_c."""
    size = len(covariance) // SKETCH_BLOCKS
    return covariance.square().reshape(SKETCH_BLOCKS, size, SKETCH_BLOCKS, size).sum((1, 3))
