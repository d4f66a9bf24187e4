"""Which function of a head's outputs some returned values are, by value: what is proved, and what could be so by chance.

Values of a few rows, or values that hardly vary, are near to many functions of many layers. A function counts as proved where
values that have nothing to do with the outputs would not be as near to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CHANCE = 1e-6  # that values which have nothing to do with the outputs satisfy as many equations as nearly
LEAST_EXPLAINED = 8.0  # times its residual a function of the outputs must vary over the rows
LEAST_LEVELS = 32  # values in order that show an unknown function, or as much evidence by fewer, because they repeat
LEAST_VARIED = 0.01  # of the largest value: what an unknown function must vary over the rows
MOST_REORDERED = 1024  # columns that are looked for in another order
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "softplus": torch.nn.functional.softplus, "exponential": torch.exp,
    "logarithm of the sigmoid": torch.nn.functional.logsigmoid, "positive part": torch.relu,
}  # fmt: skip


@dataclass(frozen=True)
class Function:
    """How returned values follow from outputs.

    Attributes:
        kind: "as it is", "softmax", "increasing function (sigmoid)", …
        columns: which columns of the outputs they are, in their own order; None: all.
        constants: the numbers of the function as the first batch has them: a multiple, a temperature, the vector added.
    """

    kind: str
    columns: tuple[int, ...] | None = None
    constants: tuple[float, ...] = ()


def function_of(outputs: Tensor, values: Tensor, rows: str = "all", known: Function | None = None) -> Function | None:
    """How (rows, columns) returned values follow from (rows, C) outputs.

    Args:
        outputs, values: of the same rows.
        rows: which they are. Means may be rounded otherwise than the model's; and functions without a name are looked for in all
            rows alone, because the largest over positions is often in the order of the mean.
        known: what an earlier batch has proved: values that do not contradict it are enough.
    """
    finite = torch.isfinite(outputs).all(1)  # what is not finite has an error of its own
    if bool(finite.any()) and not bool(finite.all()):
        outputs, values = outputs[finite], values[finite]
    width = outputs.shape[1]
    if values.shape[1] < width:
        columns = _columns(outputs, values)
        return None if columns is None else Function("selected columns", columns)
    cast = cast_like(outputs, values)
    if torch.equal(cast, values):
        return Function("as it is")
    ruled_out = torch.isneginf(values) | (values == torch.finfo(values.dtype).min)  # classes, by a mask
    if not bool(ruled_out.all()) and bool((same_values(cast, values) | ruled_out).all()):
        return Function("as it is")
    if bool(ruled_out.any()) or is_constant(values):
        return None
    if 1 < width <= MOST_REORDERED and (columns := _columns(outputs, values)) is not None:
        return Function("selected columns", columns)
    fit = _Fit(outputs, values, known)
    if rows == "mean" and fit("as it is", fit.x):
        return Function("as it is")
    return _softmax(fit) or _increasing(fit) or _shifted(fit) or (_in_order(fit) if rows == "all" else None)


class _Fit:
    """Whether returned values are some function of the outputs, up to the rounding of the coarser of two dtypes."""

    def __init__(self, outputs: Tensor, values: Tensor, known: Function | None) -> None:
        self.x, self.y, self.known = outputs.double(), values.double(), known
        self.eps = max(torch.finfo(x.dtype).eps for x in (outputs, values))
        self.tolerance = (64 if self.eps < 1e-6 else 4) * self.eps

    def is_known(self, kind: str) -> bool:
        """Whether an earlier batch has proved this kind of function."""
        return self.known is not None and self.known.kind.startswith(kind)

    def constants(self, kind: str) -> Tensor | None:
        """The constants that an earlier batch has shown for this kind."""
        found = self.known.constants if self.known is not None and self.is_known(kind) else ()
        return torch.tensor(found, dtype=torch.float64, device=self.x.device) if found else None

    def __call__(self, kind: str, expected: Tensor, *, unknowns: int = 0) -> bool:
        """Whether the values are ``expected``, for which so many numbers were taken from the values themselves."""
        size = float(torch.maximum(self.y.abs(), expected.abs()).max())
        residual = (self.y - expected).abs()
        if not bool((residual <= self.tolerance * (0.05 * size + expected.abs())).all()):
            return False
        return self.proved(kind, _varying(expected), residual, size, unknowns)

    def proved(self, kind: str, variation: Tensor, residual: Tensor, size: float, unknowns: int) -> bool:
        """Whether a fit is evidence: proved before, or none that other outputs would reach by chance.

        They would where few numbers are compared, or where what is compared hardly varies.
        """
        if self.is_known(kind):
            return True
        spread, worst = float(variation.abs().max()), max(float(residual.max()), self.eps / 2 * size)
        equations = residual.numel() - unknowns
        return spread >= LEAST_EXPLAINED * worst > 0 and equations * math.log(spread / worst) >= -math.log(CHANCE)


def _multiple(x: Tensor, y: Tensor) -> float:
    """The number by which x must be multiplied to be as near to y as possible."""
    return float((x * y).sum() / x.square().sum().clamp_min(torch.finfo(torch.float64).tiny))


def _softmax(fit: _Fit) -> Function | None:
    """The softmax or its logarithm, of the outputs times one number, also over some entries where the others are ruled out."""
    x, y = fit.x, fit.y
    if x.shape[1] == 1:
        return None
    if bool((y >= 0).all()) and bool(((y.sum(1) - 1).abs() <= 64 * fit.tolerance).all()):
        kind, plain, seen = "softmax", x.softmax(1), y > 0
    elif bool(((y.exp().sum(1) - 1).abs() <= min(64 * fit.tolerance, 0.05)).all()):
        kind, plain, seen = "logarithm of the softmax", x.log_softmax(1), torch.ones_like(y, dtype=torch.bool)
    else:
        return None
    known = fit.constants(kind)
    saturated = int(((y <= fit.tolerance) | (y >= 1 - fit.tolerance)).sum()) if kind == "softmax" else 0  # which show little
    if (known is None or abs(float(known) - 1) <= fit.tolerance) and fit(kind, plain, unknowns=len(x) + saturated):
        return Function(kind, constants=(1.0,))
    y = torch.where(seen, y, 1.0).log() if kind == "softmax" else y
    share = seen.double() / seen.sum(1, keepdim=True)
    x, y = (x - (x * share).sum(1, keepdim=True)) * seen, (y - (y * share).sum(1, keepdim=True)) * seen
    scale = _multiple(x, y) if known is None else float(known)
    residual, size = (y - scale * x).abs(), max(float(y.abs().max()), 1.0)
    if scale <= 0 or not bool((residual <= fit.tolerance * size).all()):
        return None
    unknowns = len(x) + (abs(scale - 1) > fit.tolerance)
    return Function(kind, constants=(scale,)) if fit.proved(kind, _varying(y), residual, size, unknowns) else None


def _increasing(fit: _Fit) -> Function | None:
    """An increasing function that is known by name, or a multiple."""
    kind = "increasing function"
    for name, function in _FUNCTIONS.items():
        if fit(kind, function(fit.x)):
            return Function(f"{kind} ({name})")
    known = fit.constants(kind)
    scale = _multiple(fit.x, fit.y) if known is None else float(known)
    if scale and fit(kind, scale * fit.x, unknowns=1):
        return Function(f"{kind} (a multiple)", constants=(scale,))
    return None


def _shifted(fit: _Fit) -> Function | None:
    """The outputs plus one vector."""
    known = fit.constants("a constant vector added")
    vector = (fit.y - fit.x).mean(0) if known is None else known
    if is_constant(fit.x) or not fit("a constant vector added", fit.x + vector, unknowns=len(vector)):
        return None
    return Function("a constant vector added", constants=tuple(vector.tolist()))


def _in_order(fit: _Fit) -> Function | None:
    """An increasing function that has no name: the values are in the order of the outputs, which they were not by chance."""
    x, order = fit.x.flatten().sort()
    y, least = fit.y.flatten()[order], fit.tolerance * float(fit.y.abs().max())
    if not bool(torch.isfinite(y).all()) or not bool((y.diff() >= -least).all()):
        return None
    if fit.known is None or fit.known.kind != "increasing function":
        step = fit.tolerance * float(x.abs().max())
        if step == 0 or float(_varying(fit.y).abs().max()) < max(LEAST_EXPLAINED * least, LEAST_VARIED * float(y.abs().max())):
            return None  # on small differences any smooth function is in order or in the opposite order
        levels = torch.unique_consecutive((x / step).floor(), return_inverse=True)[1]
        first = torch.searchsorted(levels, torch.arange(int(levels[-1]) + 1, device=x.device))
        sizes = torch.unique_consecutive((y[first].cummax(0).values / least).floor(), return_counts=True)[1].double()
        orders = torch.lgamma(sizes.sum() + 1) - torch.lgamma(sizes + 1).sum()  # the logarithm of how many there are
        if float(orders) < math.lgamma(LEAST_LEVELS + 1):
            return None
    return Function("increasing function")


def _varying(x: Tensor) -> Tensor:
    """What varies over the rows; over all entries where there is one row."""
    return x - (x.mean(0) if len(x) > 1 else x.mean())


def _columns(outputs: Tensor, values: Tensor) -> tuple[int, ...] | None:
    """Which columns of the outputs the returned ones are, in their order."""
    outputs = cast_like(outputs, values)
    chosen = []
    for column in values.T:
        if len(values) > 1 and bool((column == column[0]).all()):
            return None
        same = same_values(outputs, column.unsqueeze(1)).all(0).nonzero()[:, 0]
        if not len(same):
            return None
        chosen.append(int(same[0]))
    return tuple(chosen) if len(set(chosen)) == len(chosen) else None


def is_constant(values: Tensor) -> bool:
    """Whether all entries are one number."""
    return bool((values == values[0, 0]).all())


def same_values(a: Tensor, b: Tensor) -> Tensor:
    """Where two tensors hold the same values, NaN included: what is not finite has an error of its own."""
    return (a == b) | (a.isnan() & b.isnan())


def cast_like(outputs: Tensor, values: Tensor) -> Tensor:
    """The outputs in the dtype and on the device of what is returned."""
    return outputs.to(values.device, values.dtype)
