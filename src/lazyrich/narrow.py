"""What is too wide for a Gram of its own is brought to fewer columns, keeping the inner products that the measures read."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import DataError
from .functional._eigen import eigh
from .gram import Gram

WIDTH_LIMIT = 4096  # features up to here are measured as they are
HELD_BYTES = 2**30  # rows of a wide layer are held up to here, then sketched
SKETCH_BLOCKS, SKETCH_BUCKETS = 8, 256
_CHUNK = 4096


def compressed_head(weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A narrow linear map whose outputs have the inner products of a head with very many outputs.

    The outputs ŴΦ̂, with Ŵ = [W b] and Φ̂ = [Φ 1], lie in a space of at most p + 1 dimensions. With ŴᵀŴ = V Λ Vᵀ the outputs
    Λ^{1/2} Vᵀ Φ̂ have the same singular values and span the same functions, so every measure that reads outputs gives the
    same value. No array of size C × C or n × C is formed.

    Args:
        weight: (C, p) of the head.
        bias: (C,) or None.

    Returns:
        map (p, k) and shift (k,), float64, k = min(C, p + 1): ``features @ map + shift`` takes the place of the outputs. Tell
        the Gram how many they stand for: ``Gram(num_outputs=C)``.

    Raises:
        DataError: shapes that do not match.

    Example:
        A thousand outputs of three features become four:

        >>> import torch
        >>> weight = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> bias = torch.ones(1000, dtype=torch.float64)
        >>> to_narrow, shift = compressed_head(weight, bias)
        >>> x = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
        >>> outputs, narrow = x @ weight.T + bias, x @ to_narrow + shift
        >>> narrow.shape, torch.allclose(narrow @ narrow.T, outputs @ outputs.T)
        (torch.Size([2, 4]), True)
    """
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        given = None if bias is None else tuple(bias.shape)
        raise DataError(f"weight must have shape (C, p) and bias (C,), got {tuple(weight.shape)} and {given}")
    p = weight.shape[1]
    device = torch.device("cpu") if weight.device.type == "mps" else weight.device
    inner = torch.zeros(p + 1, p + 1, dtype=torch.float64, device=device)  # ŴᵀŴ
    for start in range(0, len(weight), _CHUNK):
        rows = weight[start : start + _CHUNK].detach().to(device, torch.float64)
        last = torch.zeros(len(rows)) if bias is None else bias[start : start + _CHUNK].detach()
        augmented = torch.cat([rows, last.to(rows).unsqueeze(1)], dim=1)
        inner += augmented.T @ augmented
    values, vectors = eigh(inner)
    root = (vectors * values.clamp_min(0).sqrt()).flip(1)[:, : min(len(weight), p + 1)]
    return root[:p], root[p]


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


class NarrowGram:
    """Features and outputs in, a Gram of at most ``WIDTH_LIMIT`` features out.

    Features wider than that are held, and at the end replaced by as many as there are samples with the same inner products
    (exact, the n × n dual); if they become too many to hold, by a sketch.

    Args:
        gram: an empty Gram to fill.
        hold: whether rows may be held; processes that share the data must sketch at once.
        seed: of the sketch.
    """

    def __init__(self, gram: Gram, *, hold: bool = True, seed: int = 0) -> None:
        self.gram = gram
        self.width = 0
        self.reduction: str | None = None
        self.sketched = False
        self._hold = hold
        self._seed = seed
        self._sketch: Sketch | None = None
        self._held: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def update(self, features: Tensor, outputs: Tensor, weights: Tensor | None) -> None:
        """Adds a batch."""
        if self.width and features.shape[1] != self.width:
            raise DataError(
                f"the layer has {features.shape[1]} features in this batch and {self.width} before it; "
                'inputs of unlike size need pooling="average" or "positions"'
            )
        self.width = features.shape[1]
        if self.width <= WIDTH_LIMIT:
            self.gram.update(features, outputs, None, weights)
        elif self._sketch is None:
            self._held.append((features, outputs, weights))
            rows = sum(len(x) for x, _, _ in self._held)
            if not self._hold or rows > WIDTH_LIMIT or rows * self.width * features.element_size() > HELD_BYTES:
                self._begin_sketch()
        else:
            self._add_sketched(self._sketch, features, outputs, weights)

    def _begin_sketch(self) -> None:
        self._sketch = Sketch(self.width, seed=self._seed)
        self.sketched = True
        self.reduction = f"random projection to {SKETCH_BLOCKS * SKETCH_BUCKETS:,} of {self.width:,}"
        for held in self._held:
            self._add_sketched(self._sketch, *held)
        self._held = []

    def _add_sketched(self, sketch: Sketch, features: Tensor, outputs: Tensor, weights: Tensor | None) -> None:
        at_least_float = features.float() if features.element_size() < 4 else features
        self.gram.update(sketch(at_least_float), outputs, None, weights)

    def finish(self) -> Gram:
        """The filled Gram."""
        if not self._held:
            return self.gram
        x = torch.cat([features for features, _, _ in self._held])
        outputs = torch.cat([outputs for _, outputs, _ in self._held])
        weights = [w for _, _, w in self._held if w is not None]
        self._held = []
        self.gram.update(_dual(x), outputs, None, torch.cat(weights) if weights else None)
        self.reduction = f"exact, by the {len(x):,} × {len(x):,} kernel in place of {self.width:,} features"
        return self.gram


def _dual(x: Tensor) -> Tensor:
    """(n, p) -> (n, n) with the inner products of x about its mean."""
    x = x.float() if x.element_size() < 4 else x
    if not bool(torch.isfinite(x).all()):
        return x[:, : len(x)].fill_(torch.nan)  # the Gram names the error
    centred = x - x.mean(0)
    scale = centred.abs().amax().clamp_min(torch.finfo(x.dtype).tiny)
    centred /= scale
    values, vectors = eigh((centred @ centred.T).double())
    return (vectors * values.clamp_min(0).sqrt()).to(x.dtype) * scale
