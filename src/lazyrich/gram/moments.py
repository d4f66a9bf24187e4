"""The sums that a Gram keeps: added up block by block, moved to another pilot mean, read.

All are float64 and taken over rows of the stack ``h = [y | z]``, features and all else, each measured from a *pilot mean*.
Without that shift a common offset of the features, which every ReLU network has, would drown their covariance in rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

NAMES = ("sum", "features", "cross", "small", "quartic", "cubic", "square")
_CPU_PANEL, _PANEL = 128, 1024  # columns of a triangular product taken at a time: smaller skips more, larger launches less
PART_ROWS = 256  # rows that are copied to float64 at a time


class Moments:
    """Sums over rows about a pilot mean.

    Args:
        width: p, columns of the features.
        small: columns of all else (outputs and targets).

    Attributes:
        pilot: (p + s,) what rows are measured from; the part of the features is representable in their precision.
        sum: (p + s,) Σ w h.
        features: (p, p) Σ w y yᵀ, of which only the upper triangle is filled: see :meth:`second`.
        cross: (p, s) Σ w y zᵀ.
        small: (s, s) Σ w z zᵀ.
        quartic, cubic, square: (1,) Σ w²‖y‖⁴, (p,) Σ w²‖y‖²y, (p + 1,) Σ w²[y | ‖y‖²].
    """

    def __init__(self, width: int, small: int, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.pilot, self.sum = zeros(width + small), zeros(width + small)
        self.features, self.cross, self.small = zeros(width, width), zeros(width, small), zeros(small, small)
        self.quartic, self.cubic, self.square = zeros(1), zeros(width), zeros(width + 1)

    @classmethod
    def over(cls, pilot: Tensor, sums: dict[str, Tensor]) -> Moments:
        """Moments that go on writing into these tensors."""
        moments = object.__new__(cls)
        moments.pilot = pilot
        moments.__dict__.update({name: sums[name] for name in NAMES})
        return moments

    def tensors(self) -> dict[str, Tensor]:
        """The sums by name, without the pilot."""
        return {name: getattr(self, name) for name in NAMES}

    @property
    def width(self) -> int:
        """p, columns of the features."""
        return len(self.cubic)

    def start(self, features: Tensor, small: Tensor, weights: Tensor) -> None:
        """Takes the mean of the first rows for the pilot."""
        share = weights / weights.sum()
        mean = (share.unsqueeze(0) @ features.double()).squeeze(0).to(features.dtype)
        self.pilot.copy_(torch.cat([mean, share @ small]))

    def add(self, features: Tensor, small: Tensor, weights: Tensor | None) -> None:
        """Adds a block of rows, and leaves something else in their place.

        Products of features with features are formed in the features' precision, all others in float64. Nothing here waits
        for an accelerator.

        Args:
            features: (m, p) float32 or float64; overwritten.
            small: (m, s) float64; overwritten.
            weights: (m,) float64; None: all one.
        """
        p, s, dtype = self.width, small.shape[1], features.dtype
        # A power of two brings the block to order one: squares neither overflow nor vanish in float32.
        low, high = torch.aminmax(features)
        largest = torch.maximum(high, -low).clamp_min(torch.finfo(dtype).tiny)
        scale = torch.exp2(-torch.frexp(largest).exponent.to(dtype))
        back = 1.0 / scale.double()
        y = torch.addcmul(-(self.pilot[:p].to(dtype) * scale), features, scale, out=features)
        z = small.sub_(self.pilot[p:])
        self._add_triangle(y, weights, back.square())
        linear, norm, w2norm = self._linear(y, z, weights)
        self.cross.addcmul_(linear[:s].T, back)
        self.small.add_((z if weights is None else z * weights.unsqueeze(1)).T @ z)
        self.sum[:p].addcmul_(linear[s], back)
        self.sum[p:].add_(z.sum(0) if weights is None else weights @ z)
        self.cubic.addcmul_(linear[s + 1], back**3)
        self.square[:p].addcmul_(linear[s if weights is None else s + 2], back)
        self.square[p:].addcmul_(w2norm.sum(), back**2)
        self.quartic.addcmul_(w2norm @ norm, back**4)

    def _linear(self, y: Tensor, z: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """All that is linear in y as one product, Σ [w z | w | w²‖y‖² | w²] yᵀ (the last only with weights), ‖y‖² and w²‖y‖².

        On a CPU rows are taken in parts whose copy in float64 stays in its cache.
        """
        m, s = z.shape
        rows = torch.empty(s + (2 if weights is None else 3), m, dtype=torch.float64, device=y.device)
        if weights is None:
            rows[:s], rows[s] = z.T, 1.0
        else:
            rows[:s], rows[s], rows[s + 2] = (z * weights.unsqueeze(1)).T, weights, weights.square()
        linear, norm, w2norm = rows.new_zeros(len(rows), self.width), rows.new_empty(m), rows[s + 1]
        most = PART_ROWS if y.device.type == "cpu" else m
        room = rows.new_empty(min(most, m), self.width)
        for start in range(0, m, most):
            some = slice(start, min(start + most, m))
            double = room[: some.stop - start].copy_(y[some])
            norm[some] = torch.linalg.vector_norm(double, dim=1).square()
            w2norm[some] = norm[some] if weights is None else rows[s + 2, some] * norm[some]
            linear.addmm_(rows[:, some], double)
        return linear, norm, w2norm

    def _add_triangle(self, y: Tensor, weights: Tensor | None, back: Tensor) -> None:
        """The upper triangle of Σ w y yᵀ, panel by panel: little more than half of the whole product."""
        weighted = y
        if weights is not None:
            most = weights.amax()  # so that very small weights survive float32
            weighted, back = y * (weights / most).to(y.dtype).unsqueeze(1), back * most
        for rows in self._panels():
            self.features[rows, rows.start :].addcmul_(weighted[:, rows].T @ y[:, rows.start :], back)

    def _panels(self) -> list[slice]:
        panel = _CPU_PANEL if self.features.device.type == "cpu" else _PANEL
        return [slice(start, min(start + panel, self.width)) for start in range(0, self.width, panel)]

    def second(self) -> Tensor:
        """(p, p) Σ w y yᵀ, both triangles; a new tensor."""
        whole = self.features.clone()
        for rows in self._panels():
            corner = whole[rows, rows]
            corner.copy_(corner.triu() + corner.triu(1).T)
            whole[rows.stop :, rows].copy_(whole[rows, rows.stop :].T)
        return whole

    def along(self, d: Tensor) -> Tensor:
        """(p,) Σ w (y·d) y."""
        found = torch.zeros_like(d)
        for rows in self._panels():
            corner, right = self.features[rows, rows].triu(), self.features[rows, rows.stop :]
            found[rows] += corner @ d[rows] + d[rows] @ corner - corner.diagonal() * d[rows] + right @ d[rows.stop :]
            found[rows.stop :] += d[rows] @ right
        return found

    def about(self, shift: Tensor, weight: float, squared_weight: float, along: Tensor) -> dict[str, Tensor]:
        """The sums of ``h + shift`` in place of ``h``, by name.

        Args:
            weight, squared_weight: Σ w, Σ w².
            along: (p,) Σ w²(y·d)y, d the features' part of the shift.
        """
        p, w, w2 = self.width, weight, squared_weight
        d, e = shift[:p], shift[p:]
        sum_d, sum_e, square, norm = self.sum[:p], self.sum[p:], self.square[:p], self.square[p]
        dd = d @ d
        both, across = torch.outer(sum_d, d), torch.outer(sum_e, e)
        return {
            "sum": self.sum + w * shift,
            "features": self.features + both + both.T + w * torch.outer(d, d),
            "cross": self.cross + torch.outer(sum_d, e) + torch.outer(d, sum_e) + w * torch.outer(d, e),
            "small": self.small + across + across.T + w * torch.outer(e, e),
            "quartic": self.quartic_about(d, w2, along),
            "cubic": self.cubic + norm * d + 2 * along + 2 * (square @ d) * d + dd * square + w2 * dd * d,
            "square": self.square + torch.cat([w2 * d, (2 * (square @ d) + w2 * dd).reshape(1)]),
        }

    def quartic_about(self, d: Tensor, squared_weight: float, along: Tensor) -> Tensor:
        """(1,) Σ w²‖y + d‖⁴; the arguments as of :meth:`about`."""
        p, dd = self.width, d @ d
        more = 4 * (along @ d) + squared_weight * dd**2 + 4 * (self.cubic @ d) + 2 * self.square[p] * dd
        return self.quartic + more + 4 * (self.square[:p] @ d) * dd
