"""How a head's outputs are returned by the model: found by value on the user's own batch, and checked again on every batch.

A relation is accepted only where the values show it: a returned tensor equals the outputs (up to a cast, a reshape, a transposed
layout, a selection of rows or columns), or is their softmax, one increasing function of all entries, the outputs plus one
constant vector, or their mean over positions. Shape and order are no evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import torch
from torch import Tensor

from .calls import FEW_ROWS, Call

CHECKED_ROWS = 8  # of every batch after the first
LEAST_ENTRIES = 32  # distinct values that must be in order before an unknown function counts as increasing
MOST_REORDERED = 1024  # columns that are looked for in another order
MOST_POSITIONS = 64  # from the first on, and the last one, that are tried one by one
MOST_DIMENSIONS = 5  # layouts of more dimensions are not searched
MEASURED_AS_RETURNED = ("selected columns", "a constant vector added")
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "softplus": torch.nn.functional.softplus, "exponential": torch.exp,
    "logarithm of the sigmoid": torch.nn.functional.logsigmoid, "positive part": torch.relu,
}  # fmt: skip


@dataclass(frozen=True)
class Relation:
    """One returned tensor as a function of a head's outputs.

    Attributes:
        tensor: which of the returned tensors.
        kind: how its entries follow from the outputs: "as it is", "softmax", "increasing function (sigmoid)", …
        rows: which rows it holds: "all", "mean" over positions, "position" (one of every sample), "subset".
        order: the order of its dimensions in which it is like the outputs.
        columns: which columns of the outputs it holds, in its own order; None: all.
        position: the one position of every sample that it holds, where that is the same for all; None: found by value.
        also: other returned tensors that hold more of the rows.
    """

    tensor: int
    kind: str
    rows: str
    order: tuple[int, ...]
    columns: tuple[int, ...] | None = None
    position: int | None = None
    also: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = {"all": "", "mean": ", mean over positions", "position": ", selected positions", "subset": ", selected rows"}
        return self.kind + where[self.rows]

    def arranged(self, x: Tensor) -> Tensor:
        """The returned tensor with one row for each row that it holds and one column for each of its columns."""
        width = None if self.columns is None else len(self.columns)
        x = x.permute(self.order)
        return x.reshape(-1, x.shape[-1] if width is None else width)


def relation(call: Call, returned: Sequence[Tensor], tensor: int) -> Relation | None:
    """How one returned tensor follows from the outputs of a call; None where the values do not show it."""
    y, width = returned[tensor].detach(), call.shape[-1]
    if y.numel() == 0 or call.outputs.numel() == 0:
        return None
    for rows, order, columns in _layouts(y, call):
        values = y.permute(order).reshape(-1, columns)
        for position, pair in _pairs(call, values, rows):
            kind = _kind(*pair)
            if kind is not None:
                chosen = None if kind[1] == tuple(range(width)) else kind[1]
                return Relation(tensor, kind[0], rows, order, chosen, position)
    return None


def _pairs(call: Call, values: Tensor, rows: str) -> Iterator[tuple[int | None, tuple[Tensor, Tensor]]]:
    """Rows of the outputs with what may be returned of them; of one position of every sample each position is tried."""
    pair = _paired(call, values, rows)
    if pair is not None:
        yield None, pair
    if rows == "position":
        outputs = call.outputs.flatten(1, -2)
        if len(outputs) == len(values):
            for position in (*range(min(outputs.shape[1], MOST_POSITIONS)), -1):
                yield position, (outputs[:FEW_ROWS, position], values[:FEW_ROWS])


def holds(found: Relation, call: Call, returned: Sequence[Tensor]) -> bool:
    """Whether a relation that was found on the first batch is true of some rows of this one."""
    if found.tensor >= len(returned):
        return False
    y = returned[found.tensor].detach()
    if y.ndim != len(found.order):
        return False
    if call.outputs.numel() == 0 or y.numel() == 0:
        return call.outputs.numel() == y.numel()
    width = call.shape[-1] if found.columns is None else len(found.columns)
    if y.numel() % width:
        return False
    if found.kind == "as it is" and found.rows == "all" and y.shape == call.outputs.shape and y.ndim == 2:
        step = max(1, len(y) // CHECKED_ROWS)
        few = y[::step]
        if torch.equal(_as(call.outputs[::step], few), few):  # the usual case, at once
            return True
    values = y.permute(found.order).reshape(-1, width)
    if found.position is not None:
        outputs = call.outputs.flatten(1, -2)
        if len(outputs) != len(values) or not -1 <= found.position < outputs.shape[1]:
            return False
        outputs = outputs[:, found.position]
    else:
        pair = _paired(call, values, found.rows, CHECKED_ROWS)
        if pair is None:
            return False
        outputs, values = pair
    if found.columns is not None:
        outputs = outputs[:, list(found.columns)]
    kind = _kind(outputs, values, enough=2)
    return kind is not None or _constant(values)


def positions(call: Call, values: Tensor) -> Tensor | None:
    """(samples,) at which position of every sample the outputs are the returned row; None where not all are found.

    Where several positions of a sample have these outputs, the last that fits all samples, else the first.
    """
    if not call.whole or len(call.shape) < 3:
        return None
    outputs = call.outputs.flatten(1, -2)
    if len(outputs) != len(values):
        return None
    matching = _equal(_as(outputs, values), values.unsqueeze(1)).all(-1)
    if not bool(matching.any(1).all()):
        return None
    always = matching.all(0).nonzero()[:, 0]
    return always[-1].expand(len(matching)) if len(always) else matching.int().argmax(1)


def subset(call: Call, values: Tensor) -> Tensor | None:
    """(rows,) which rows of the outputs the returned rows are; None where one is not among them."""
    if not call.whole:
        return None
    outputs = _as(call.outputs.flatten(0, -2), values)
    ours, theirs = _hashed(outputs), _hashed(values)
    order = ours.argsort(stable=True)
    place = torch.searchsorted(ours[order], theirs).clamp_max(len(order) - 1)
    rows = order[place]
    return rows if bool((outputs[rows] == values).all()) else None


def _layouts(y: Tensor, call: Call) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Which rows a tensor of this shape may hold, in which order of its dimensions, with how many columns."""
    n, width, lead = call.num_rows, call.shape[-1], call.shape[:-1]
    natural = tuple(range(y.ndim))
    orders = [natural]
    if 1 < y.ndim <= MOST_DIMENSIONS:
        orders += [order for order in permutations(natural) if order != natural]
    if y.numel() % n == 0 and 1 <= y.numel() // n <= width:
        columns = y.numel() // n
        for order in orders:
            shape = tuple(y.shape[k] for k in order)
            if order == natural or shape[:-1] == lead or torch.Size(shape[:-1]).numel() == n:
                yield "all", order, columns
    if y.ndim < 1 or y.shape[-1] != width or not call.whole:
        return
    rows = y.numel() // width
    if rows < n and len(lead) > 1 and rows == lead[0]:
        yield "mean", natural, width
        yield "position", natural, width
    if rows < n:
        yield "subset", natural, width


def _paired(call: Call, values: Tensor, rows: str, most: int = FEW_ROWS) -> tuple[Tensor, Tensor] | None:
    """Some rows of the outputs, and what is returned of them."""
    if rows == "mean":
        outputs = call.outputs.flatten(1, -2)[:most]
        return outputs.double().mean(1).to(values.dtype), values[:most]
    if rows == "position":
        place = positions(call, values)
        if place is None:
            return None
        outputs = call.outputs.flatten(1, -2)
        return outputs[torch.arange(len(place), device=outputs.device), place], values
    if rows == "subset":
        chosen = subset(call, values)
        return None if chosen is None else (call.outputs.flatten(0, -2)[chosen], values)
    outputs = call.outputs.flatten(0, -2)
    if len(values) != call.num_rows:
        return None
    index = torch.linspace(0, len(outputs) - 1, min(most, len(outputs)), device=outputs.device).long()
    return outputs[index], values[index]


def _kind(outputs: Tensor, values: Tensor, enough: int = LEAST_ENTRIES) -> tuple[str, tuple[int, ...]] | None:
    """How (rows, columns) returned values follow from (rows, C) outputs, and which columns they are."""
    finite = torch.isfinite(outputs).all(1)  # what is not finite has an error of its own
    if bool(finite.any()) and not bool(finite.all()):
        outputs, values = outputs[finite], values[finite]
    width = outputs.shape[1]
    every = tuple(range(width))
    if values.shape[1] < width:
        columns = _columns(outputs, values)
        return None if columns is None else ("selected columns", columns)
    seen = ~(torch.isneginf(values) | (values == torch.finfo(values.dtype).min))  # classes that a mask has ruled out
    if bool(seen.any()) and bool(_equal(_as(outputs, values), values)[seen].all()):
        return "as it is", every
    if not bool(seen.all()) or _constant(values):
        return None
    if 1 < width <= MOST_REORDERED and (columns := _columns(outputs, values)) is not None:
        return "selected columns", columns
    x, y = outputs.double(), values.double()
    close = _closeness(outputs, values)
    if len(x) > 1 and not _constant(outputs) and close(y, x + (y - x).mean(0)):
        return "a constant vector added", every
    scale = float((x * y).sum() / x.square().sum().clamp_min(torch.finfo(torch.float64).tiny))
    if scale and close(y, scale * x):
        return "increasing function (a multiple)", every
    if width > 1:
        if close(y, x.softmax(1)) or _is_softmax(x, y, close.tolerance):
            return "softmax", every
        normalised = bool((y.exp().sum(1) - 1).abs().max() < 0.05)
        if normalised and (close(y, x.log_softmax(1)) or _same_shape(x, y, close.tolerance)):
            return "logarithm of the softmax", every
    for name, function in _FUNCTIONS.items():
        if close(y, function(x)):
            return f"increasing function ({name})", every
    return ("increasing function", every) if _increasing(x, y, close.tolerance, enough) else None


class _closeness:  # noqa: N801 - a function with a tolerance
    """Equality up to the rounding of the coarser of two dtypes."""

    def __init__(self, outputs: Tensor, values: Tensor) -> None:
        eps = max(torch.finfo(x.dtype).eps for x in (outputs, values))
        self.tolerance = (64 if eps < 1e-6 else 4) * eps

    def __call__(self, y: Tensor, expected: Tensor) -> bool:
        size = float(torch.maximum(y.abs(), expected.abs()).max())
        return bool(((y - expected).abs() <= self.tolerance * (0.05 * size + expected.abs())).all())


def _same_shape(x: Tensor, y: Tensor, tolerance: float) -> bool:
    """Whether each row of y is that of x times one positive number for all rows, up to a constant of the row."""
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    scale = float((x * y).sum() / x.square().sum().clamp_min(torch.finfo(torch.float64).tiny))
    size = float(y.abs().max())
    return scale > 0 and size > 0 and bool(((y - scale * x).abs() <= tolerance * max(size, 1.0)).all())


def _is_softmax(x: Tensor, y: Tensor, tolerance: float) -> bool:
    """Whether y is the softmax of x times one number, also over some of the entries where the others are ruled out."""
    if bool((y < 0).any()) or bool(((y.sum(1) - 1).abs() > 64 * tolerance).any()):
        return False
    seen = y > 0
    if bool(seen.all()):
        return _same_shape(x, y.log(), tolerance)
    share = seen.double() / seen.sum(1, keepdim=True).clamp_min(1)
    x, log = x * seen, torch.where(seen, y, 1.0).log()
    x, log = (x - (x * share).sum(1, keepdim=True)) * seen, (log - (log * share).sum(1, keepdim=True)) * seen
    scale = float((x * log).sum() / x.square().sum().clamp_min(torch.finfo(torch.float64).tiny))
    size = float(log.abs().max())
    return scale > 0 and size > 0 and bool(((log - scale * x).abs() <= tolerance * max(size, 1.0)).all())


def _increasing(x: Tensor, y: Tensor, tolerance: float, enough: int) -> bool:
    """Whether all entries of y are one increasing function of those of x, and not one constant."""
    x, y = x.flatten(), y.flatten()
    if len(x.unique()) < enough or not bool(torch.isfinite(y).all()):
        return False
    y = y[x.argsort()]
    size = float(y.abs().max())
    return bool((y.diff() >= -tolerance * size).all()) and float(y[-1] - y[0]) > tolerance * size


def _columns(outputs: Tensor, values: Tensor) -> tuple[int, ...] | None:
    """Which columns of the outputs the returned ones are, in their order."""
    outputs = _as(outputs, values)
    chosen = []
    for column in values.T:
        if len(values) > 1 and bool((column == column[0]).all()):
            return None
        same = _equal(outputs, column.unsqueeze(1)).all(0).nonzero()[:, 0]
        if not len(same):
            return None
        chosen.append(int(same[0]))
    return tuple(chosen) if len(set(chosen)) == len(chosen) else None


def _constant(values: Tensor) -> bool:
    return bool((values == values[0, 0]).all())


def _equal(a: Tensor, b: Tensor) -> Tensor:
    """Where two tensors hold the same values, NaN included: what is not finite has an error of its own."""
    return (a == b) | (a.isnan() & b.isnan())


def _as(outputs: Tensor, values: Tensor) -> Tensor:
    """The outputs in the dtype and on the device of what is returned."""
    return outputs.to(values.device, values.dtype)


def _hashed(x: Tensor) -> Tensor:
    """(rows,) a 64-bit hash of each row of floating-point numbers."""
    words = (x.double() + 0.0).view(torch.int64)  # -0.0 equals 0.0
    factors = 2 * torch.arange(1, words.shape[1] + 1, device=x.device) * 0x2545F491 + 1
    mixed = words * factors
    return (mixed ^ (mixed >> 29)).sum(1)


def combined(relations: Sequence[Relation], width: int) -> Relation:
    """Several returned tensors that hold columns of the same outputs, as one.

    The first that holds all columns is taken. Columns that are spread over several tensors and together are all columns count as
    the outputs themselves.
    """
    if all(found.rows == "subset" for found in relations) and len(relations) > 1:
        return replace(relations[0], also=tuple(found.tensor for found in relations[1:]))
    for found in relations:
        if found.columns is None:
            return found
    held = {column for found in relations for column in found.columns or ()}
    if len(relations) > 1 and held == set(range(width)):
        return replace(relations[0], kind="as it is, columns over several tensors")
    return relations[0]
