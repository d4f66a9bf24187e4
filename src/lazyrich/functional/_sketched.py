"""D_LR of features that were brought to fewer columns by a random projection, with the error that this makes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gram import Gram
from ..narrow import SKETCH_BLOCKS
from ._span import Span


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
