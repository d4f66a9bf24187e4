"""The sums over rows: add a block of rows, move the sums to another pilot mean, read them.

All sums are float64. They are taken over rows of the stack ``h = [y | z]``: y are the features, z all other blocks side by side.
Both are measured from a *pilot mean*. Without this shift, a common offset of the features, which every ReLU network has, would
drown their covariance in rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

_CPU_PANEL, _PANEL = (
    128,
    1024,
)  # columns of one panel of a triangular product: narrow panels skip more, wide ones launch fewer kernels
PART_ROWS = 256  # rows that are copied to float64 at a time


@dataclass(eq=False)
class Moments:
    """Sums over rows about a pilot mean; the tensors are written in place.

    Attributes:
        pilot: (p + s,) the point that rows are measured from. Its first p entries are representable in the features' precision.
        sum: (p + s,) Σ w h.
        features: (p, p) Σ w y yᵀ; only the upper triangle is filled, see :meth:`second`.
        cross: (p, s) Σ w y zᵀ.
        small: (s, s) Σ w z zᵀ.
        quartic: (1,) Σ‖y‖⁴, without weights: it is read only where all of them are one.
        cubic: (p,) Σ‖y‖²y, without weights.
    """

    pilot: Tensor
    sum: Tensor
    features: Tensor
    cross: Tensor
    small: Tensor
    quartic: Tensor
    cubic: Tensor

    @classmethod
    def zeros(cls, width: int, small: int, device: torch.device) -> Moments:
        """Empty sums for p = ``width`` features and s = ``small`` other columns."""

        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        return cls(
            pilot=zeros(width + small),
            sum=zeros(width + small),
            features=zeros(width, width),
            cross=zeros(width, small),
            small=zeros(small, small),
            quartic=zeros(1),
            cubic=zeros(width),
        )

    @property
    def width(self) -> int:
        """p, the number of features."""
        return len(self.cubic)

    def mean(self, features: Tensor, small: Tensor, weights: Tensor) -> Tensor:
        """(p + s,) the mean of a block of rows, which may serve as the pilot."""
        share = weights / weights.sum()
        mean = (share.unsqueeze(0) @ features.double()).squeeze(0).to(features.dtype)
        return torch.cat([mean, share @ small])

    def add(self, features: Tensor, small: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Add a block of rows, and overwrite its features.

        Products of features with features are formed in the features' precision, all others in float64. No operation here
        makes the host wait for an accelerator.

        Args:
            features: (m, p) float32 or float64; overwritten by y divided by a power of two.
            small: (m, s) float64.
            weights: (m,) float64; None if all weights are one.

        Returns:
            (m,) ‖y‖², and the power of two, 0-d float64.
        """
        p, s, dtype = self.width, small.shape[1], features.dtype
        # A power of two scales the block to order one, so that squares neither overflow nor vanish in float32.
        low, high = torch.aminmax(features)
        largest = torch.maximum(high, -low).clamp_min(torch.finfo(dtype).tiny)
        scale = torch.exp2(-torch.frexp(largest).exponent.to(dtype))
        back = 1.0 / scale.double()
        y = torch.addcmul(-(self.pilot[:p].to(dtype) * scale), features, scale, out=features)
        z = small - self.pilot[p:]
        self._add_triangle(y, weights, back.square())
        linear, norm = self._linear(y, z, weights)
        self.cross.addcmul_(linear[:s].T, back)
        self.small.add_((z if weights is None else z * weights.unsqueeze(1)).T @ z)
        self.sum[:p].addcmul_(linear[s], back)
        self.sum[p:].add_(z.sum(0) if weights is None else weights @ z)
        self.cubic.addcmul_(linear[s + 1], back**3)
        self.quartic.addcmul_(norm @ norm, back**4)
        return norm.mul_(back.square()), back

    def restored(self, y: Tensor, back: Tensor) -> Tensor:
        """Features again from what :meth:`add` has made of them."""
        return torch.addcmul(self.pilot[: self.width], y.double(), back).to(y.dtype)

    def _linear(self, y: Tensor, z: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """All sums that are linear in y as one product, Σ [w z | w | ‖y‖²] yᵀ; and ‖y‖².

        On a CPU the rows are copied to float64 in parts, so that each copy stays in the cache.
        """
        m, s = z.shape
        rows = torch.empty(s + 2, m, dtype=torch.float64, device=y.device)
        if weights is None:
            rows[:s], rows[s] = z.T, 1.0
        else:
            rows[:s], rows[s] = (z * weights.unsqueeze(1)).T, weights
        linear, norm = rows.new_zeros(len(rows), self.width), rows[s + 1]
        most = PART_ROWS if y.device.type == "cpu" else m
        buffer = rows.new_empty(min(most, m), self.width)
        for start in range(0, m, most):
            some = slice(start, min(start + most, m))
            double = buffer[: some.stop - start].copy_(y[some])
            norm[some] = torch.linalg.vector_norm(double, dim=1).square()
            linear.addmm_(rows[:, some], double)
        return linear, norm

    def _add_triangle(self, y: Tensor, weights: Tensor | None, back: Tensor) -> None:
        """Add the upper triangle of Σ w y yᵀ, panel by panel: little more than half the operations of the complete product."""
        weighted = y
        if weights is not None:
            largest = weights.amax()  # divided out, so that very small weights do not vanish in float32
            weighted, back = y * (weights / largest).to(y.dtype).unsqueeze(1), back * largest
        for rows in self._panels():
            self.features[rows, rows.start :].addcmul_(weighted[:, rows].T @ y[:, rows.start :], back)

    def _panels(self) -> list[slice]:
        panel = _CPU_PANEL if self.features.device.type == "cpu" else _PANEL
        return [slice(start, min(start + panel, self.width)) for start in range(0, self.width, panel)]

    def second(self) -> Tensor:
        """(p, p) Σ w y yᵀ with both triangles, a new tensor."""
        product = self.features.clone()
        for rows in self._panels():
            corner = product[rows, rows]
            corner.copy_(corner.triu() + corner.triu(1).T)
            product[rows.stop :, rows].copy_(product[rows, rows.stop :].T)
        return product

    def covariance(self, rows: slice, columns: slice, weight_sum: float) -> Tensor:
        """Cov(hᵢ, hⱼ) for i in ``rows`` and j in ``columns``; each is one block of the stack. A new tensor."""
        features_twice = rows.start == columns.start == 0
        share = self.second().div_(weight_sum) if features_twice else self._product(rows, columns) / weight_sum
        return share.addr_(self.sum[rows] / weight_sum, self.sum[columns] / weight_sum, alpha=-1)

    def _product(self, rows: slice, columns: slice) -> Tensor:
        """Σ w hᵢ hⱼ, a view; not both blocks may be the features."""
        p = self.width
        if columns.start == 0:
            return self._product(columns, rows).T
        columns = slice(columns.start - p, columns.stop - p)
        return self.cross[:, columns] if rows.start == 0 else self.small[rows.start - p : rows.stop - p, columns]

    def along(self, d: Tensor) -> Tensor:
        """(p,) Σ w (y·d) y."""
        product = torch.zeros_like(d)
        for rows in self._panels():
            corner, right = self.features[rows, rows].triu(), self.features[rows, rows.stop :]
            product[rows] += corner @ d[rows] + d[rows] @ corner - corner.diagonal() * d[rows] + right @ d[rows.stop :]
            product[rows.stop :] += d[rows] @ right
        return product

    def about(self, shift: Tensor, weight: float) -> dict[str, Tensor]:
        """The sums of ``h + shift`` instead of ``h``, by name.

        Args:
            shift: (p + s,); its first p entries are d.
            weight: Σ w.
        """
        p, w = self.width, weight
        d, e = shift[:p], shift[p:]
        sum_d, sum_e, dd = self.sum[:p], self.sum[p:], d @ d
        both, across = torch.outer(sum_d, d), torch.outer(sum_e, e)
        norm, along = self.features.diagonal().sum(), self.along(d)
        return {
            "sum": self.sum + w * shift,
            "features": self.features + both + both.T + w * torch.outer(d, d),
            "cross": self.cross + torch.outer(sum_d, e) + torch.outer(d, sum_e) + w * torch.outer(d, e),
            "small": self.small + across + across.T + w * torch.outer(e, e),
            "quartic": self.quartic_about(d, w),
            "cubic": self.cubic + norm * d + 2 * along + 2 * (sum_d @ d) * d + dd * sum_d + w * dd * d,
        }

    def quartic_about(self, d: Tensor, weight: float) -> Tensor:
        """(1,) Σ‖y + d‖⁴; arguments as for :meth:`about`. All weights must be one."""
        norm, dd = self.features.diagonal().sum(), d @ d
        more = 4 * (self.along(d) @ d) + weight * dd**2 + 4 * (self.cubic @ d) + 2 * norm * dd
        return self.quartic + more + 4 * (self.sum[: self.width] @ d) * dd
