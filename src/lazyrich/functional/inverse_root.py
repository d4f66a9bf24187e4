"""λ^{-1/2} as a short sum of resolvents: a formula for (B + t²)⁻¹ then also gives one for B^{-1/2}."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def inverse_root(low: float, high: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """Compute coefficients c and shifts t² with Σ c (λ + t²)⁻¹ ≈ λ^{-1/2} for all λ from ``low`` to ``high``.

    In λ^{-1/2} = (2/π) ∫₀^∞ dt/(λ + t²) substitute t = √low · sc(y), where sc is Jacobi's sn/cn with complementary modulus
    k' = (low/high)^{1/2}. The midpoint rule in y, from 0 to the quarter period K, has a relative error of at most 4 exp(-π² q/K).
    Gauss' transformation gives sn.

    Args:
        low, high: bounds of λ, above zero.
        tolerance: bound on the relative error.

    Returns:
        c and t², (q,) float64 each.

    Reference:
        Hale, Higham & Trefethen, SIAM J. Numer. Anal. 46 (2008) 2505, method 3.

    Example:
        >>> c, t2 = inverse_root(1.0, 100.0, 1e-9)
        >>> len(c), [round(float((c / (x + t2)).sum()), 9) for x in (1.0, 4.0, 25.0, 100.0)]
        (9, [1.0, 0.5, 0.2, 0.1])
    """
    modulus = math.sqrt(low / high)  # k'
    mean, other = 1.0, modulus
    moduli: list[float] = []
    while abs(mean - other) > 1e-15 * mean:
        mean, other, gap = (mean + other) / 2, math.sqrt(mean * other), (mean - other) / 2
        moduli.append(gap / mean)
    quarter = math.pi / (2 * mean)
    count = math.ceil(math.log(4 / tolerance) * quarter / math.pi**2)
    share = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    angle = 2.0 ** len(moduli) * math.pi / 2 * share
    for k in reversed(moduli):
        angle = (angle + (k * angle.sin()).asin()) / 2
    sn, cn = angle.sin(), angle.cos()
    dn = (cn.square() + (modulus * sn).square()).sqrt()
    return 2 * quarter * math.sqrt(low) / (math.pi * count) * dn / cn.square(), low * (sn / cn).square()
