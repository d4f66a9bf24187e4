"""Bias and standard error of D_LR: the delete-one jackknife in closed form, on the rows that a Gram retains.

One formula serves every reference B^{-γ}: with h the outputs in the eigenbasis of B and A the covariance of features with
them,

    numerator = Tr(A B^{-γ} Aᵀ),   ‖reference‖² = Tr(B^{2-2γ}) - 2 mᵀB^{1-2γ}m + (mᵀB^{-γ}m)²,   m = ⟨1|h⟩

and B^{-γ} is a sum of resolvents (B + t²)⁻¹, one for γ = 1 and a handful for γ = ½. Deleting a sample of weight w
changes B and A by terms of rank one, δ = w/(1-w),

    A' = (1+δ)(A - δ x̃ h̃ᵀ),   B' = (1+δ)B - δ h hᵀ,   m' = (1+δ)m - δ h

so every resolvent follows from a handful of scalar products (Sherman & Morrison), and nothing is decomposed again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..gram import Gram
from ..gram.moments import PART_ROWS
from .inverse_root import inverse_root
from .span import Span

PAIR_ROWS = 512  # rows whose pairs are looked at
_PAIR_TOLERANCE = 1e-4  # of B^{-1/2} in what pairs add, a small part of the error
_MOST_WORK, _AT_ONCE = 2**24, 2**21  # rows · outputs · resolvents, in all and held at a time
_NORMAL = 1.959964  # 97.5 % quantile


@dataclass(frozen=True)
class Jackknife:
    """D_LR without its sampling bias, with its standard error and the degrees of freedom of that error."""

    corrected: float
    stderr: float
    freedom: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval with Student's quantile (Cornish-Fisher expansion, exact to 1 % from 3 degrees of freedom)."""
        z, v = _NORMAL, self.freedom
        quantile = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        quantile += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        return self.corrected - quantile * self.stderr, self.corrected + quantile * self.stderr


@dataclass(frozen=True)
class _Sample:
    """What is the same for every reference and cut: the retained samples, and ‖S_c‖² without each and without pairs of them.

    Features x̃ are measured from their mean, in a unit (a power of two) that brings ‖S_c‖_F near one; D_LR does not see it. They,
    and what enters second-order terms alone, are in the precision of the features' products.
    """

    lengths: Tensor  # (m,) ‖x̃‖²
    w: Tensor  # (m,) weights of which all samples' sum to one
    norm2: Tensor  # ‖S_c‖² without bias
    alignment: Tensor  # (m,) of which ‖S_c‖² without a sample follows
    kernel: Tensor  # (k, k) x̃ᵢ·x̃ⱼ of the first
    pairs: Tensor  # (k, k) the degenerate kernel of ‖S_c‖², relative to it
    outputs: Tensor  # (m, C) uncentred
    loadings: Tensor  # (p, C) covariance of x̃ and the outputs
    projected: Tensor  # (m, C) x̃ times that


@dataclass(frozen=True)
class _Rows:
    """The samples beside outputs in the eigenbasis of B, scaled to a largest eigenvalue of 1."""

    sample: _Sample
    h: Tensor  # (m, r) h, uncentred
    centred: Tensor  # (m, r) h̃
    share: float  # how many samples each stands for
    loadings: Tensor  # (p, r) A
    projected: Tensor  # (m, r) x̃A
    inner: Tensor  # (r, r) AᵀA
    mean: Tensor  # (r,) m
    eigenvalues: Tensor  # (r,) of B

    def of(self, some: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """h, h̃, x̃A and ‖x̃‖² of some of the samples."""
        return self.h[some], self.centred[some], self.projected[some], self.sample.lengths[: len(self.h)][some]


def jackknifed(gram: Gram, span: Span, power: float = 1.0) -> Jackknife | None:
    """The jackknife of D_LR with an unbiased ‖S_c‖_F², or None where there is too little to judge by.

    The bias is the mean of what the first-order term does not explain.
    """
    n = gram.effective_count
    if not gram.retain or n < 8:
        return None
    sample = gram.reading("jackknife", lambda: _sampled(gram))
    leverage = sample.w * (sample.outputs @ span.to_basis).square().sum(1)
    # The eigenvalues of B, over its largest, lie here without whatever sample.
    least = float(span.singular_values[span.rank - 1] / span.singular_values[0]) ** 2 * max(1 - float(leverage.max()), 1e-9)
    nodes = _resolvents(power, least, 1 / (1 - float(sample.w.max())), sample.w)
    rows = _rows(gram, sample, span, max(128, _MOST_WORK // (span.rank * max(len(nodes[0]), 1))))
    w, norm2, alignment = sample.w[: len(rows.h)], sample.norm2, sample.alignment[: len(rows.h)]
    delta = w / (1 - w)
    if norm2 <= 0 or bool((leverage[: len(w)] >= 1 - 1e-9).any()):
        return None  # a sample that alone carries a direction

    def kept_without(some: slice, delta: Tensor) -> Tensor:
        """1 - D_LR without each of some samples."""
        numerator, reference = _without(rows, some, nodes, power, delta)
        left = norm2 + 2 * delta / (1 + delta) * n / (n - 2) * (norm2 - alignment[some])
        return numerator / (left * reference).sqrt()

    found: list[tuple[Tensor, Tensor, Tensor]] = []
    step = max(1, _AT_ONCE // (span.rank * max(len(nodes[0]), 1)))
    for start in range(0, len(w), step):
        some = slice(start, start + step)
        with torch.enable_grad():  # each entry depends on its own sample alone, so this is the derivative of every one
            nothing = torch.zeros_like(delta[some], requires_grad=True)
            everything = kept_without(some, nothing)
            slope = torch.autograd.grad(everything.sum(), nothing)[0]
        found.append((everything.detach(), slope, kept_without(some, delta[some])))
    everything, slope, kept_out = (torch.cat(parts) for parts in zip(*found, strict=True))
    kept = everything[0]
    if not bool(torch.isfinite(kept_out).all()) or kept <= 0:
        return None
    bias = rows.share * ((1 - w) * (kept_out - kept - delta * slope)).sum()
    influence = (kept_out - kept) / delta
    squares = (1 - w) * (delta * (influence - (w * influence).sum() / w.sum())).square()
    variance = rows.share * squares.sum()
    spread = squares.square().sum() / squares.sum().square() - 1 / len(w)  # of the squares: how few samples decide
    freedom = 2 / max(float(spread) * len(w) / n, 2 / n)
    # The jackknife counts second-order variance twice; what is left is at least half (Efron & Stein 1981, Ann. Stat. 9).
    twice = kept.square() * _second_order_variance(rows, power)
    variance = torch.maximum(variance - twice, variance / 2)
    return Jackknife(float(1 - (kept - bias)), float(variance.sqrt()), max(freedom, 3.0))


def _sampled(gram: Gram) -> _Sample:
    covariance = gram.block("features", "features", centered=True)
    unit = 2.0 ** -round(math.log2(float(torch.linalg.matrix_norm(covariance))) / 2)
    norm2 = unbiased_squared_norm(covariance, gram.fourth_moment(), gram.effective_count) * unit**4
    blocks, w = gram.retained(unit)
    x = blocks["features"]
    lengths = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64).square()
    shape = torch.mul(covariance, unit**2, out=x.new_empty(covariance.shape))
    kernel = x[:PAIR_ROWS] @ x[:PAIR_ROWS].T
    along, spread = kernel, []
    for part in reversed(x.split(PAIR_ROWS)):  # the first, whose pairs are looked at, comes last
        along = part @ shape
        spread.insert(0, torch.linalg.vecdot(along, part).double())
    alignment = (torch.cat(spread) - w * lengths.square()) / (1 - w)
    pairs = norm_pairs(kernel, along @ x[:PAIR_ROWS].T, alignment[:PAIR_ROWS].to(kernel), norm2.to(kernel))
    loadings = gram.block("features", "outputs", centered=True) * unit
    projected = torch.cat([part.double() @ loadings for part in x.split(PART_ROWS)])
    return _Sample(lengths, w, norm2, alignment, kernel, pairs, blocks["outputs"], loadings, projected)


def norm_pairs(kernel: Tensor, along: Tensor, alignment: Tensor, norm2: Tensor) -> Tensor:
    """The second derivative of ‖S_c‖² in the weights of two samples, over 2‖S_c‖²: (x̃ᵢ·x̃ⱼ)² - 2x̃ᵢᵀSx̃ⱼ and what centres it."""
    return kernel.square().sub_(alignment - norm2).sub_(alignment.unsqueeze(1)).sub_(along, alpha=2).div_(norm2)


def _rows(gram: Gram, sample: _Sample, span: Span, most: int) -> _Rows:
    count = min(most, len(sample.w))
    scale = span.singular_values[: span.rank] / span.singular_values[0]
    basis = span.to_basis * scale
    h, mean = sample.outputs[:count] @ basis, span.basis_mean * scale
    loadings = sample.loadings @ basis
    return _Rows(
        sample=sample,
        h=h,
        centred=h - mean,
        share=gram.count / count,
        loadings=loadings,
        projected=sample.projected[:count] @ basis,
        inner=loadings.T @ loadings,
        mean=mean,
        eigenvalues=scale.square(),
    )


def _resolvents(power: float, low: float, high: float, like: Tensor, tolerance: float = 1e-9) -> tuple[Tensor, Tensor]:
    """c and t², (q,), such that Σ c (λ + t²)⁻¹ is λ^{-γ} for eigenvalues in these bounds; none for γ = 0."""
    if power == 0.5:
        coefficients, shifts = inverse_root(low, high, tolerance)
        return coefficients.to(like), shifts.to(like)
    found = like.new_ones(1 if power else 0)
    return found, torch.zeros_like(found)


def _without(rows: _Rows, some: slice, nodes: tuple[Tensor, Tensor], power: float, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Numerator and ‖reference‖² without each sample, (m,) each."""
    d = delta.unsqueeze(1)
    (h, c, xa, xx), inner, eigenvalues = rows.of(some), rows.inner, rows.eigenvalues
    mean = (1 + d) * rows.mean - d * h
    numerator = inner.diagonal() - 2 * d * xa * c + d.square() * xx.unsqueeze(1) * c.square()  # of ‖A - δ x̃ h̃ᵀ‖², each column
    if power == 0:
        hh, hbh, s = h.square().sum(1), (h.square() * eigenvalues).sum(1), mean.square().sum(1)
        square = (1 + delta).square() * eigenvalues.square().sum() - 2 * delta * (1 + delta) * hbh + (delta * hh).square()
        mbm = (1 + delta) * (mean.square() * eigenvalues).sum(1) - delta * (h * mean).sum(1).square()
        return (1 + delta).square() * numerator.sum(1), square - 2 * mbm + s.square()

    coefficients, shifts = nodes
    resolvent = 1 / ((1 + d) * eigenvalues + shifts[:, None, None])  # (q, m, r)
    v = resolvent * h
    kappa = delta / (1 - delta * (h * v).sum(2))
    along = (c * v).sum(2)
    through = (v @ inner * v).sum(2) - 2 * delta * (xa * v).sum(2) * along + delta.square() * xx * along.square()
    total = coefficients @ ((numerator * resolvent).sum(2) + kappa * through)
    s = coefficients @ ((mean.square() * resolvent).sum(2) + kappa * (mean * v).sum(2).square())
    if power == 1:
        reference = len(eigenvalues) - 2 * s + s.square()
    else:
        trace = (1 + delta) * eigenvalues.sum() - delta * h.square().sum(1)
        reference = trace - 2 * mean.square().sum(1) + s.square()
    return (1 + delta).square() * total, reference


def _second_order_variance(rows: _Rows, power: float) -> Tensor:
    """Variance of log(numerator) - log(norm2)/2 through pairs of samples: ½ Σ wᵢ²wⱼ² ψ(i,j)² over the degenerate kernel ψ.

    For a resolvent D and aᵢ = x̃ᵢh̃ᵢᵀ - A, bᵢ = hᵢhᵢᵀ - B, ψ is
    ⟨aᵢD, aⱼ⟩ - ⟨aᵢ, A D bⱼ D⟩ - ⟨aⱼ, A D bᵢ D⟩ + Tr(A D bᵢ D bⱼ D Aᵀ) - x̃ᵢᵀADh̃ⱼ - x̃ⱼᵀADh̃ᵢ,
    twice over the numerator, less that of ‖S_c‖², (x̃ᵢ·x̃ⱼ)² - 2x̃ᵢᵀSx̃ⱼ. (The constant is left out.)
    """
    m = min(len(rows.h), PAIR_ROWS)
    kernel = rows.sample.kernel[:m, :m]
    eigenvalues = rows.eigenvalues
    coefficients, shifts = _resolvents(power, float(eigenvalues[-1]), float(eigenvalues[0]), eigenvalues, _PAIR_TOLERANCE)
    weight = 1 / (eigenvalues + shifts.unsqueeze(1))  # (q, r), the diagonals of D
    flat = coefficients @ weight if power else torch.ones_like(eigenvalues)  # of B^{-γ}
    left = weight.square() * shifts.unsqueeze(1)  # of D - D B D
    rest = coefficients @ left if power else flat  # of B^{-γ} - Σ c D B D
    numerator = float((rows.inner.diagonal() * flat).sum())
    small = (*rows.of(slice(m))[:3], rows.inner, flat, rest, weight, left)
    h, c, xa, inner, flat, rest, weight, left = (x.to(kernel.dtype) for x in small)
    alone = -(xa * c * rest).sum(1)  # 0 with what follows for γ = 1, where D B D = D
    pairs, mixed = ((c * flat) @ c.T).mul_(kernel), (xa * flat) @ c.T
    for coefficient, d, e in zip(coefficients.tolist(), weight, left, strict=True):
        v = h * d
        through = v @ inner
        pairs.addcmul_(through @ v.T, h @ v.T, value=coefficient)
        mixed.addcmul_(xa @ v.T, c @ v.T, value=coefficient)
        alone += coefficient * (through * h * e).sum(1)
    pairs.sub_(mixed).sub_(mixed.T).add_(alone).add_(alone.unsqueeze(1))
    pairs.mul_(2 / numerator).sub_(rows.sample.pairs[:m, :m]).fill_diagonal_(0)
    pairs.sub_(pairs.sum(dtype=torch.float64) / (m * (m - 1))).fill_diagonal_(0)
    most = rows.sample.w[:m].max()
    w2 = (rows.sample.w[:m] / most).square().to(pairs)
    every = (rows.share * len(rows.h) / m) ** 2
    return 0.5 * every * most**4 * (w2 @ pairs.square_() @ w2).double()


def unbiased_squared_norm(covariance: Tensor, fourth_moment: float, n: float) -> Tensor:
    """tr(Σ²) without bias under any distribution, mean unknown (Himeno & Yamada 2014, J. Multivariate Anal. 130).

    ``covariance`` is the plug-in (divided by n), ``fourth_moment`` is Σ wᵢ²‖xᵢ-x̄‖⁴; with weights n is Kish's size.
    """
    unbiased = n / (n - 1)
    square = torch.linalg.matrix_norm(covariance).square() * unbiased**2
    q = fourth_moment * n**2 / (n - 1)
    trace = covariance.trace() * unbiased
    return (n - 1) / (n * (n - 2) * (n - 3)) * ((n - 1) * (n - 2) * square + trace.square() - n * q)
