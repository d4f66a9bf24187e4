"""Bias and standard error of D_LR: the delete-one jackknife in closed form, on the rows that a Gram retains.

One formula serves every reference B^{-γ}. Let h be the outputs in the eigenbasis of B, and A the covariance of the features with
them:

    numerator = Tr(A B^{-γ} Aᵀ),   ‖reference‖² = Tr(B^{2-2γ}) - 2 mᵀB^{1-2γ}m + (mᵀB^{-γ}m)²,   m = ⟨1|h⟩

B^{-γ} is a sum of resolvents (B + t²)⁻¹: one for γ = 1, a handful for γ = ½. Deleting a sample of weight w changes B and A by
terms of rank one, with δ = w/(1-w):

    A' = (1+δ)(A - δ x̃ h̃ᵀ),   B' = (1+δ)B - δ h hᵀ,   m' = (1+δ)m - δ h

The balanced reference of a head with a bias has the covariance B_c of the outputs in place of B. It changes as B does where h is
(1+δ)^½ h̃ and m is 0.

Therefore every resolvent follows from a few scalar products (Sherman & Morrison), and nothing is decomposed again. How the rows
were drawn, and what each of them stands for, is in :mod:`lazyrich.functional.retained_design`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..gram import Gram
from ..gram.moments import PART_ROWS
from ..gram.retained_rows import RetainedRows
from .influence import FEW, ONE_DECIDES, Influence, interval
from .inverse_root import inverse_root
from .retained_design import Design, unbiased_squared_norm
from .retained_features import PAIR_ROWS, retained_features
from .span import Span

_PAIR_TOLERANCE = 1e-4  # relative error of B^{-1/2} in the second-order variance, which is a small part of the error
_MOST_WORK, _AT_ONCE = 2**24, 2**21  # rows · outputs · resolvents: in total, and in memory at a time
_ONE_WEIGHS = 0.5  # share of one row in the sum of squared influences above which a note says so
_STEP = 1e-3  # of a second difference, as a share of a stratum's weight


@dataclass(frozen=True)
class Jackknife:
    """What the retained rows say about D_LR.

    Attributes:
        corrected, stderr: bias-corrected estimate and its standard error; None where ``note`` says why.
        freedom: degrees of freedom of the error.
        effective_rows, influence: of the retained rows.
        note: why there is no error, or what a reader of it must know; None where there is nothing to say.
    """

    corrected: float | None = None
    stderr: float | None = None
    freedom: float = math.inf
    effective_rows: float | None = None
    influence: Influence | None = None
    note: str | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval around ``corrected``."""
        return None if self.corrected is None or self.stderr is None else interval(self.corrected, self.stderr, self.freedom)


@dataclass(frozen=True)
class _Sample:
    """The retained samples, and ‖S_c‖² without each of them and without pairs of them: the same for every reference and cut.

    The features x̃ are measured from their mean, in a unit (a power of two) that brings ‖S_c‖_F close to one. D_LR does not depend
    on the unit. They and everything that enters second-order terms only are in the precision of the features' products.
    """

    retained: RetainedRows  # x̃ (m, p) and the uncentred outputs (m, C) among them
    strata_rows: Tensor
    design: Design
    lengths: Tensor  # (m,) ‖x̃‖²
    norm2: Tensor  # unbiased estimate of ‖S_c‖²
    alignment: Tensor  # (m,) from which ‖S_c‖² without a sample follows
    kernel: Tensor  # (k, k) x̃ᵢ·x̃ⱼ of the first k = PAIR_ROWS samples
    pairs: Tensor  # (k, k) the degenerate kernel of ‖S_c‖², divided by it
    loadings: Tensor  # (p, C) covariance of x̃ and the outputs
    projected: Tensor  # (m, C) x̃ times the loadings
    mean: Tensor  # (C,) of the outputs

    def design_of(self, count: int) -> Design:
        """How the first samples were drawn."""
        return self.design if count == len(self.lengths) else Design.of(self.retained.first(count), self.strata_rows)


@dataclass(frozen=True)
class _Rows:
    """The samples with their outputs in the eigenbasis of B, scaled to a largest eigenvalue of 1."""

    sample: _Sample
    h: Tensor  # (m, r) h, uncentred; h̃ where the reference is that of a head with a bias
    centred: Tensor  # (m, r) h̃
    design: Design  # of these rows
    loadings: Tensor  # (p, r) A
    projected: Tensor  # (m, r) x̃A
    inner: Tensor  # (r, r) AᵀA
    mean: Tensor  # (r,) m
    eigenvalues: Tensor  # (r,) of B
    free_constant: bool  # whether the reference is that of a head with a bias

    def of(self, some: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return h, h̃, x̃A and ‖x̃‖² of some of the samples."""
        return self.h[some], self.centred[some], self.projected[some], self.sample.lengths[: len(self.h)][some]


def jackknifed(gram: Gram, span: Span, power: float = 1.0) -> Jackknife:
    """Compute the jackknife of D_LR with an unbiased ‖S_c‖_F².

    The bias is the mean of the part that the first-order term does not explain.
    """
    n = gram.effective_count
    if not gram.retain:
        return Jackknife()
    if n < FEW:
        return Jackknife(note=f"no error, because it takes {FEW} samples and there are effectively {n:.3g}")
    sample = gram.reading("jackknife", lambda: _sampled(gram))
    h = _functions(sample, span)
    leverage = sample.design.w * h.square().sum(1)
    if span.centred:
        leverage = leverage / (1 - sample.design.w)
    # Whichever sample is deleted, the eigenvalues of B, divided by its largest one, lie between these bounds.
    least = float(span.singular_values[span.rank - 1] / span.singular_values[0]) ** 2 * max(1 - float(leverage.max()), 1e-9)
    nodes = _resolvents(power, least, 1 / (1 - float(sample.design.w.max())), sample.design.w)
    rows = _rows(sample, span, h, max(128, _MOST_WORK // (span.rank * max(len(nodes[0]), 1))))
    if (why := rows.design.too_few()) is not None:
        return Jackknife(note=why)
    design, norm2, alignment = rows.design, sample.norm2, sample.alignment[: len(rows.h)]
    w, delta = design.w, design.w / (1 - design.w)
    if norm2 <= 0 or bool((leverage[: len(w)] >= 1 - 1e-9).any()):
        return Jackknife(note="no error, because one sample alone has an output direction")
    further = n / (n - 2) if design.strata is None else 1.0

    def alignment_without(some: slice, delta: Tensor) -> Tensor:
        """1 - D_LR without each of some samples."""
        numerator, reference = _without(rows, some, nodes, power, delta)
        left = norm2 + 2 * delta / (1 + delta) * further * (norm2 - alignment[some])
        return numerator / (left * reference).sqrt()

    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    step = max(1, _AT_ONCE // (span.rank * max(len(nodes[0]), 1)))
    for start in range(0, len(w), step):
        some = slice(start, start + step)
        with torch.enable_grad():  # each entry depends on its own sample alone, so this is the derivative of every one
            nothing = torch.zeros_like(delta[some], requires_grad=True)
            complete = alignment_without(some, nothing)
            slope = torch.autograd.grad(complete.sum(), nothing)[0]
        parts.append((complete.detach(), slope, alignment_without(some, delta[some])))
    complete, slope, without = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    value = complete[0]  # 1 - D_LR of all samples
    if not bool(torch.isfinite(without).all()) or value <= 0:
        return Jackknife(note="no error, because D_LR without one of the samples cannot be computed")
    curvature = (without - value - delta * slope) / delta.square()
    bias = design.total(w.square() * design.factor * (curvature - _curvature_of_strata(rows, value, power)))
    moves = design.moves((value - without) / delta)
    influence = Influence(moves, design.stands_for, sample.retained.sample.keys[: len(moves)], n)
    # The jackknife counts the second-order variance twice; at least half remains (Efron & Stein 1981, Ann. Stat. 9).
    variance, second_order = influence.variance, float(value.square() * _second_order_variance(rows, power))
    stderr = max(variance - second_order, variance / 2) ** 0.5
    return _judged(float(1 - (value - bias)), stderr, influence)


def _judged(corrected: float, stderr: float, influence: Influence) -> Jackknife:
    """The estimate where it can be trusted; else why there is none."""
    effective, share, note = influence.effective_rows, influence.largest_share, None
    if share > ONE_DECIDES:
        note = f"no error, because one row has {share:.0%} of the squared influences: look at that row, or measure more"
    elif not -3 * stderr <= corrected <= 1:
        note = (
            f"no error, because {corrected:.3f} ± {stderr:.3f}, the corrected value, is impossible: too few samples; measure more"
        )
    if note is not None:
        return Jackknife(effective_rows=effective, influence=influence, note=note)
    if share > _ONE_WEIGHS:
        note = f"one row has {share:.0%} of the squared influences: the error is a guess; measure more"
    return Jackknife(corrected, stderr, influence.freedom, effective, influence, note)


def _sampled(gram: Gram) -> _Sample:
    own = retained_features(gram)
    x, design, lengths, spread = own.features, own.design, own.lengths, own.spread
    w = design.w
    kernel = x[:PAIR_ROWS] @ x[:PAIR_ROWS].T
    norm2 = unbiased_squared_norm(gram, design, x, lengths, spread, own.unit)
    alignment = (spread - w * lengths.square()) / (1 - w)
    pairs = norm_pairs(kernel, own.along @ x[:PAIR_ROWS].T, alignment[:PAIR_ROWS].to(kernel), norm2.to(kernel))
    loadings = gram.block("features", "outputs", centered=True) * own.unit
    projected = torch.cat([part.double() @ loadings for part in x.split(PART_ROWS)])
    mean = gram.mean("outputs")
    return _Sample(own.rows, gram.strata_rows, design, lengths, norm2, alignment, kernel, pairs, loadings, projected, mean)


def norm_pairs(kernel: Tensor, along: Tensor, alignment: Tensor, norm2: Tensor) -> Tensor:
    """Second derivative of ‖S_c‖² in the weights of two samples, over 2‖S_c‖²: (x̃ᵢ·x̃ⱼ)² - 2x̃ᵢᵀSx̃ⱼ, centred."""
    return kernel.square().sub_(alignment - norm2).sub_(alignment.unsqueeze(1)).sub_(along, alpha=2).div_(norm2)


def _rows(sample: _Sample, span: Span, h: Tensor, most: int) -> _Rows:
    count = min(most, len(sample.lengths))
    scale = span.singular_values[: span.rank] / span.singular_values[0]
    basis = span.to_basis * scale
    h, mean = h[:count] * scale, span.basis_mean * scale
    loadings = sample.loadings @ basis
    return _Rows(
        sample=sample,
        h=h,
        centred=h if span.centred else h - mean,
        design=sample.design_of(count),
        loadings=loadings,
        projected=sample.projected[:count] @ basis,
        inner=loadings.T @ loadings,
        mean=mean,
        eigenvalues=scale.square(),
        free_constant=span.centred,
    )


def _functions(sample: _Sample, span: Span) -> Tensor:
    """(m, r) the basis of the span at the samples."""
    outputs = sample.retained.blocks["outputs"]
    return (outputs - sample.mean if span.centred else outputs) @ span.to_basis


def _resolvents(power: float, low: float, high: float, like: Tensor, tolerance: float = 1e-9) -> tuple[Tensor, Tensor]:
    """Coefficients c and shifts t², (q,), with Σ c (λ + t²)⁻¹ = λ^{-γ} for eigenvalues between the bounds; none for γ = 0."""
    if power == 0.5:
        coefficients, shifts = inverse_root(low, high, tolerance)
        return coefficients.to(like), shifts.to(like)
    coefficients = like.new_ones(1 if power else 0)
    return coefficients, torch.zeros_like(coefficients)


def _without(rows: _Rows, some: slice, nodes: tuple[Tensor, Tensor], power: float, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the numerator and ‖reference‖² without each sample, (m,) each."""
    d = delta.unsqueeze(1)
    (h, c, xa, xx), inner, eigenvalues = rows.of(some), rows.inner, rows.eigenvalues
    mean = (1 + d) * rows.mean - d * h
    if rows.free_constant:
        h, mean = h * (1 + d).sqrt(), torch.zeros_like(h)
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
    """Compute the variance of log(numerator) - log(norm2)/2 that comes from pairs of samples: ½ Σ wᵢ²wⱼ² ψ(i,j)².

    Here ψ is the degenerate kernel. For a resolvent D, with aᵢ = x̃ᵢh̃ᵢᵀ - A and bᵢ = hᵢhᵢᵀ - B, the numerator contributes
    ⟨aᵢD, aⱼ⟩ - ⟨aᵢ, A D bⱼ D⟩ - ⟨aⱼ, A D bᵢ D⟩ + Tr(A D bᵢ D bⱼ D Aᵀ) - x̃ᵢᵀADh̃ⱼ - x̃ⱼᵀADh̃ᵢ, times 2 and divided by the numerator;
    where B is a covariance, h̃ᵢᵀDAᵀADh̃ⱼ is added, because B_c itself is curved in the weights.
    The contribution of ‖S_c‖², (x̃ᵢ·x̃ⱼ)² - 2x̃ᵢᵀSx̃ⱼ, is subtracted. Constants are left out.
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
    alone = -(xa * c * rest).sum(1)  # for γ = 1, where D B D = D, this and the terms added below are 0
    pairs, mixed = ((c * flat) @ c.T).mul_(kernel), (xa * flat) @ c.T
    for coefficient, d, e in zip(coefficients.tolist(), weight, left, strict=True):
        v = h * d
        through = v @ inner
        pairs.addcmul_(through @ v.T, h @ v.T + float(rows.free_constant), value=coefficient)
        mixed.addcmul_(xa @ v.T, c @ v.T, value=coefficient)
        alone += coefficient * (through * h * e).sum(1)
    pairs.sub_(mixed).sub_(mixed.T).add_(alone).add_(alone.unsqueeze(1))
    pairs.mul_(2 / numerator).sub_(rows.sample.pairs[:m, :m]).fill_diagonal_(0)
    design = rows.sample.design_of(m)
    if design.strata is None:
        pairs.sub_(pairs.sum(dtype=torch.float64) / (m * (m - 1)))
    else:
        design.centre_pairs(pairs)
    pairs.fill_diagonal_(0)
    largest = design.w.max()  # divided out, so that the squares do not vanish in float32
    w2 = ((design.w / largest).square() * design.stands_for).to(pairs)
    return 0.5 * largest**4 * (w2 @ pairs.square_() @ w2).double()


def _curvature_of_strata(rows: _Rows, value: Tensor, power: float) -> Tensor:
    """(m,) the curvature towards the mean of each row's stratum, by a second difference; 0 where there is one stratum."""
    design, strata = rows.design, rows.design.strata
    curvature = torch.zeros_like(design.w)
    if strata is None:
        return curvature
    for stratum in strata.unique():
        among = strata == stratum
        share = (design.w * design.stands_for)[among]
        towards, step = _Direction.of(rows, among, share / share.sum()), _STEP * share.sum()
        ends = towards.after(rows, step, power) + towards.after(rows, -step, power)
        curvature[among] = (ends - 2 * value) / (2 * step.square())
    return curvature


@dataclass(frozen=True)
class _Direction:
    """The moments of some rows: the direction in which all moments move where these rows lose weight."""

    features: Tensor  # (p,) mean of x̃
    outputs: Tensor  # (r,) mean of h; where the reference is that of a head with a bias, of h̃
    cross: Tensor  # (p, r) of x̃ and h, uncentred
    second: Tensor  # (r, r) of h
    alignment: Tensor

    @classmethod
    def of(cls, rows: _Rows, among: Tensor, share: Tensor) -> _Direction:
        h, x = rows.h[among], rows.sample.retained.blocks["features"][: len(rows.h)][among].double()
        shared, alignment = h * share.unsqueeze(1), rows.sample.alignment[: len(rows.h)][among]
        return cls(share @ x, share @ h, x.T @ shared, h.T @ shared, share @ alignment)

    def after(self, rows: _Rows, step: Tensor, power: float) -> Tensor:
        """1 - D_LR after a step away from these rows."""
        mean = (1 + step) * rows.mean - step * self.outputs
        loadings = (1 + step) * rows.loadings - step * self.cross + step * torch.outer(self.features, mean)
        second = (1 + step) * torch.diag(rows.eigenvalues) - step * self.second
        if rows.free_constant:
            second, mean = second - torch.outer(mean, mean), torch.zeros_like(mean)
        strengths, basis = torch.linalg.eigh(second)
        norm2 = rows.sample.norm2
        left = norm2 + 2 * step / (1 + step) * (norm2 - self.alignment)
        root, mean = strengths ** (-power / 2), basis.T @ mean
        reference = root.unsqueeze(1) * (torch.diag(strengths) - torch.outer(mean, mean)) * root
        return (loadings @ basis * root).square().sum() / (left.sqrt() * torch.linalg.matrix_norm(reference))
