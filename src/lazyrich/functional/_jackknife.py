"""Bias and standard error of D_LR: the delete-one jackknife in closed form, on the rows that a Gram retains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..gram import Gram
from ._span import Span

PAIR_ROWS = 512  # rows whose pairs are looked at
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
class _Rows:
    """The retained samples, features from their mean and outputs in a basis g in which B = I."""

    x: Tensor  # (m, p) x̃
    g: Tensor  # (m, r) g, uncentred
    centred: Tensor  # (m, r) g̃
    w: Tensor  # (m,) weights of which all samples' sum to one
    share: float  # how many samples each stands for
    covariance: Tensor  # (p, p) S_c of all samples
    loadings: Tensor  # (p, r) G = covariance of features with g
    mean: Tensor  # (r,) u = ⟨1|g⟩


def jackknifed(gram: Gram, span: Span) -> Jackknife | None:
    """The jackknife of D_LR with an unbiased ‖S_c‖_F², or None where there is too little to judge by.

    In the basis g, where B = I, deleting sample i (weight w) scales what is left by 1 + δ, δ = w/(1-w):

        Cov' = (1+δ)(Cov - δ x̃ g̃ᵀ),  B'⁻¹ = (I + κ g gᵀ)/(1+δ),  κ = w/(1 - w‖g‖²),  u' = (1+δ)u - δ g

    so the numerator ‖Cov B^{-1/2}‖² and s = u'ᵀB'⁻¹u' (with ‖QPQ‖² = r - 2s + s²) follow from a handful of scalar
    products for each sample. The bias is the mean of what the first-order term does not explain.
    """
    n = gram.effective_count
    if not gram.retain or n < 8:
        return None
    rows = _rows(gram, span)
    norm2 = unbiased_squared_norm(rows.covariance, gram.fourth_moment(), n)
    numerator, s, r = rows.loadings.square().sum(), rows.mean.square().sum(), span.rank
    x, g, w, u = rows.x, rows.g, rows.w, rows.mean
    x_loadings, g_loadings = x @ rows.loadings, g @ rows.loadings.T
    xx = x.square().sum(1)
    xg, xc = (x_loadings * g).sum(1), (x_loadings * rows.centred).sum(1)
    gg, gc, cc = g.square().sum(1), (g * rows.centred).sum(1), rows.centred.square().sum(1)
    ug, explained = g @ u, g_loadings.square().sum(1)
    leverage = w * gg
    if norm2 <= 0 or numerator <= 0 or bool((leverage >= 1 - 1e-9).any()):  # a sample that alone carries a direction
        return None

    delta, kappa = w / (1 - w), w / (1 - leverage)
    numerator_out = (1 + delta) * (
        numerator
        - 2 * delta * xc
        + delta.square() * xx * cc
        + kappa * (explained - 2 * delta * xg * gc + delta.square() * xx * gc.square())
    )
    s_out = (
        (1 + delta).square() * s
        - 2 * (1 + delta) * delta * ug
        + delta.square() * gg
        + kappa * ((1 + delta) * ug - delta * gg).square()
    ) / (1 + delta)
    reference, reference_out = r - 2 * s + s.square(), r - 2 * s_out + s_out.square()
    alignment = (((x @ rows.covariance) * x).sum(1) - w * xx.square()) / (1 - w)
    norm2_out = norm2 + 2 * w * n / (n - 2) * (norm2 - alignment)
    if bool((norm2_out <= 0).any()):
        return None

    kept = numerator / (norm2 * reference).sqrt()  # 1 - D_LR
    kept_out = numerator_out / (norm2_out * reference_out).sqrt()
    first_order = kept * (
        (2 * xc - explained - numerator) / numerator
        - (alignment - norm2) / norm2
        - (s - 1) * (2 * ug - s - ug.square()) / reference
    )
    bias = rows.share * ((1 - w) * (kept_out - kept + delta * first_order)).sum()
    influence = (kept_out - kept) / delta
    squares = (1 - w) * (delta * (influence - (w * influence).sum() / w.sum())).square()
    variance = rows.share * squares.sum()
    spread = squares.square().sum() / squares.sum().square() - 1 / len(w)  # of the squares: how few samples decide
    freedom = 2 / max(float(spread) * len(w) / n, 2 / n)
    # The jackknife counts second-order variance twice; what is left is at least half (Efron & Stein 1981, Ann. Stat. 9).
    twice = kept.square() * _second_order_variance(rows, numerator, norm2, alignment)
    variance = torch.maximum(variance - twice, variance / 2)
    return Jackknife(float(1 - (kept - bias)), float(variance.sqrt()), max(freedom, 3.0))


def _rows(gram: Gram, span: Span) -> _Rows:
    blocks, w = gram.retained()
    g = blocks["outputs"] @ span.to_basis
    return _Rows(
        x=blocks["features"],
        g=g,
        centred=g - span.basis_mean,
        w=w,
        share=gram.count / len(w),
        covariance=gram.block("features", "features", centered=True),
        loadings=gram.block("features", "outputs", centered=True) @ span.to_basis,
        mean=span.basis_mean,
    )


def _second_order_variance(rows: _Rows, numerator: Tensor, norm2: Tensor, alignment: Tensor) -> Tensor:
    """Variance of log(numerator) - log(norm2)/2 through pairs of samples: ½ Σ wᵢ²wⱼ² ψ(i,j)² over the degenerate kernel ψ.

    With e = x̃g̃ᵀ - (Gg)gᵀ, ψ is ⟨eᵢ,eⱼ⟩ - x̃ᵢᵀGg̃ⱼ - x̃ⱼᵀGg̃ᵢ twice over the numerator, less that of ‖S_c‖², (x̃ᵢ·x̃ⱼ)² - 2x̃ᵢᵀSx̃ⱼ.
    """
    m = min(len(rows.w), PAIR_ROWS)
    x, g, c, w, alignment = (t[:m] for t in (rows.x, rows.g, rows.centred, rows.w, alignment))
    kernel, across = x @ x.T, (x @ rows.loadings) @ g.T
    mixed = across * (c @ g.T)
    explained = g @ (rows.loadings.T @ rows.loadings) @ g.T
    residual = kernel * (c @ c.T) - mixed - mixed.T + explained * (g @ g.T)
    mean_term = (x @ rows.loadings) @ c.T
    squares = kernel.square() - alignment.unsqueeze(1) - alignment + norm2 - 2 * (x @ rows.covariance) @ x.T
    pairs = 2 * (residual - mean_term - mean_term.T) / numerator - squares / norm2
    off_diagonal = 1 - torch.eye(m, dtype=x.dtype, device=x.device)
    pairs = (pairs - (pairs * off_diagonal).sum() / off_diagonal.sum()) * off_diagonal
    every = (rows.share * len(rows.w) / m) ** 2
    return 0.5 * every * (w.square() @ pairs.square() @ w.square())


def unbiased_squared_norm(covariance: Tensor, fourth_moment: float, n: float) -> Tensor:
    """tr(Σ²) without bias under any distribution, mean unknown (Himeno & Yamada 2014, J. Multivariate Anal. 130).

    ``covariance`` is the plug-in (divided by n), ``fourth_moment`` is Σ wᵢ²‖xᵢ-x̄‖⁴; with weights n is Kish's size.
    """
    unbiased = covariance * (n / (n - 1))
    q = fourth_moment * n**2 / (n - 1)
    return (n - 1) / (n * (n - 2) * (n - 3)) * ((n - 1) * (n - 2) * unbiased.square().sum() + unbiased.trace().square() - n * q)
