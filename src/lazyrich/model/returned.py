"""How a head's outputs are returned by the model: found by value on the user's own batch, and checked again on every batch.

A relation is accepted only where the values show it: a returned tensor equals the outputs (up to a cast, a reshape, a transposed
layout, a selection of rows or columns), or is their softmax, one increasing function of all entries, the outputs plus one
constant vector, or their mean over positions. Shape and order are no evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import torch
from torch import Tensor

from .calls import FEW_ROWS, Call
from .functions import Function, cast_like, function_of, is_constant, same_values

CHECKED_ROWS = 8  # of every batch after the first
MOST_POSITIONS = 64  # from the first on, and the last one, that are tried one by one
MOST_DIMENSIONS = 5  # layouts of more dimensions are not searched
MEASURED_AS_RETURNED = ("selected columns", "a constant vector added")
WEAK = ("a constant vector added", "increasing function")  # taken only where nothing else fits in any layout


@dataclass(frozen=True)
class Relation:
    """One returned tensor as a function of a head's outputs.

    Attributes:
        tensor: which of the returned tensors.
        function: how its entries follow from the outputs, and which columns of them it holds.
        rows: which rows it holds: "all", "mean" over positions, "position" (one of every sample), "subset".
        order: the order of its dimensions in which it is like the outputs.
        position: the one position of every sample that it holds, where that is the same for all; None: found by value.
        also: other returned tensors that hold more of the rows.
    """

    tensor: int
    function: Function
    rows: str
    order: tuple[int, ...]
    position: int | None = None
    also: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = {"all": "", "mean": ", mean over positions", "position": ", selected positions", "subset": ", selected rows"}
        return self.function.kind + where[self.rows]

    def arranged(self, x: Tensor) -> Tensor:
        """The returned tensor with one row for each row that it holds and one column for each of its columns."""
        width = None if self.function.columns is None else len(self.function.columns)
        x = x.permute(self.order)
        return x.reshape(-1, x.shape[-1] if width is None else width)


def relation(call: Call, returned: Sequence[Tensor], tensor: int) -> Relation | None:
    """How one returned tensor follows from the outputs of a call; None where the values do not show it."""
    y = returned[tensor].detach()
    if y.numel() == 0 or call.outputs.numel() == 0:
        return None
    weak = None
    for rows, order, columns in _layouts(y, call):
        values = y.permute(order).reshape(-1, columns)
        for position, pair in _pairs(call, values, rows):
            function = function_of(*pair, rows)
            if function is not None:
                found = Relation(tensor, function, rows, order, position)
                if function.kind not in WEAK:
                    return found
                weak = weak or found
    return weak


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
    width = call.shape[-1] if found.function.columns is None else len(found.function.columns)
    if y.numel() % width:
        return False
    if found.function.kind == "as it is" and found.rows == "all" and y.shape == call.outputs.shape and y.ndim == 2:
        step = max(1, len(y) // CHECKED_ROWS)
        few = y[::step]
        if torch.equal(cast_like(call.outputs[::step], few), few):  # the usual case, at once
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
    if found.function.columns is not None:
        outputs = outputs[:, list(found.function.columns)]
    return is_constant(values) or function_of(outputs, values, found.rows, found.function) is not None


def positions(call: Call, values: Tensor) -> Tensor | None:
    """(samples,) at which position of every sample the outputs are the returned row; None where not all are found.

    Where several positions of a sample have these outputs, the last that fits all samples, else the first.
    """
    if not call.whole or len(call.shape) < 3:
        return None
    outputs = call.outputs.flatten(1, -2)
    if len(outputs) != len(values):
        return None
    matching = same_values(cast_like(outputs, values), values.unsqueeze(1)).all(-1)
    if not bool(matching.any(1).all()):
        return None
    always = matching.all(0).nonzero()[:, 0]
    return always[-1].expand(len(matching)) if len(always) else matching.int().argmax(1)


def subset(call: Call, values: Tensor) -> Tensor | None:
    """(rows,) which rows of the outputs the returned rows are; None where one is not among them."""
    if not call.whole:
        return None
    outputs = cast_like(call.outputs.flatten(0, -2), values)
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
        if found.function.columns is None:
            return found
    held = {column for found in relations for column in found.function.columns or ()}
    if len(relations) > 1 and held == set(range(width)):
        return replace(relations[0], function=replace(relations[0].function, kind="as it is, columns over several tensors"))
    return relations[0]
