"""The grid of a sweep: fields of a setup by their dotted names, each with its values."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..._support.text import did_you_mean
from ...errors import DataError
from ..setup import Setup


@dataclass(frozen=True)
class Point:
    """One point of the grid.

    Attributes:
        values: (dotted name, value), in the order of the grid; empty for a sweep without a grid.
    """

    values: tuple[tuple[str, Any], ...]

    @property
    def cells(self) -> dict[str, str]:
        """Dotted name -> the value as it would be typed."""
        return {name: shown(value) for name, value in self.values}

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.cells.items())

    @property
    def folder(self) -> str:
        """A folder name for the point: unusual characters become dashes."""
        return re.sub(r"[^\w.+=,-]", "-", ",".join(f"{name}={value}" for name, value in self.cells.items()))

    def applied(self, setup: Setup) -> Setup:
        """The setup with these values. If only ``steps`` changes, the steps in ``evaluate`` stay, up to the new last step.

        Raises:
            ValueError: a value is not valid in this setup.
        """
        parts: dict[str, dict[str, Any]] = {}
        for name, value in self.values:
            part, _, field = name.rpartition(".")
            parts.setdefault(part, {})[field] = value
        changes = parts.pop("", {})
        changes |= {part: replace(getattr(setup, part), **values) for part, values in parts.items()}
        if "steps" in changes and "evaluate" not in changes:
            changes["evaluate"] = tuple(step for step in setup.evaluate if step <= changes["steps"])
        return replace(setup, **changes)


def read_grid(words: Sequence[str], setups: Mapping[str, Setup]) -> dict[Point, dict[str, Setup]]:
    """Every combination of the values, with the setup of each condition at that point.

    Args:
        words: ``field=value,value…``, as on the command line; without any there is one point, where nothing is changed. Join the
            values of a field that holds several by ``+``; ``none`` is None or no values.
        setups: condition -> setup, whose fields are varied.

    Raises:
        DataError: a word of another form; an unknown field; a value of another type or out of range; a field or a value named
            twice; conditions that become the same. The message names it and lists the alternatives.

    Example:
        >>> from lazyrich.experiments import Digits, Loss, Mlp, Optimizer, Setup
        >>> setup = Setup(Digits(), Mlp(), Loss(), Optimizer(), steps=10)
        >>> grid = read_grid(["optimizer.rate=0.1,1e-2", "model.width=64"], {"plain": setup})
        >>> print(*grid, sep="; ")
        optimizer.rate=0.1, model.width=64; optimizer.rate=0.01, model.width=64
        >>> tuple(setups["plain"].optimizer.rate for setups in grid.values())
        (0.1, 0.01)
    """
    axes: dict[str, list[Any]] = {}
    for word in words:
        name, equals, values = word.partition("=")
        if not equals or not name:
            raise DataError(f"grid: {word!r} is not FIELD=VALUE,VALUE…, such as optimizer.rate=0.01,0.1 without spaces")
        if name in axes:
            raise DataError(f"grid: {name} is named twice: put all its values into one list")
        axes[name] = _axis(name, values, setups)
    points = [Point(tuple(zip(axes, values, strict=True))) for values in product(*axes.values())]
    return {point: _applied(point, setups) for point in points}


def _axis(name: str, text: str, setups: Mapping[str, Setup]) -> list[Any]:
    """The values of one field; each may occur once."""
    kinds = [_kind(name, condition, setup) for condition, setup in setups.items()]  # all conditions must have it
    values: list[Any] = []
    for item in text.split(","):
        if not item.strip():
            raise DataError(f"grid: a value is empty in '{name}={text}': write {name}=VALUE,VALUE… without spaces")
        value = _parsed(name, item.strip(), kinds[0])
        if value in values:
            raise DataError(f"grid: {name} takes {shown(value)} twice in {text!r}")
        values.append(value)
    return values


def _applied(point: Point, setups: Mapping[str, Setup]) -> dict[str, Setup]:
    """The setups at one point."""
    applied: dict[str, Setup] = {}
    for condition, setup in setups.items():
        try:
            applied[condition] = point.applied(setup)
        except ValueError as error:
            raise DataError(f"grid: {point} cannot be set in the condition {condition!r}: {error}") from error
        same = next((other for other in applied if other != condition and applied[other] == applied[condition]), None)
        if same is not None and setups[same] != setups[condition]:
            raise DataError(
                f"grid: at {point} the conditions {same!r} and {condition!r} are the same run, because they "
                "differ in no other field: choose one of them with conditions="
            )
    return applied


def _names(setup: Setup) -> list[str]:
    """The dotted names of all fields."""
    names = []
    for field in fields(setup):
        part = getattr(setup, field.name)
        names += [f"{field.name}.{inner.name}" for inner in fields(part)] if is_dataclass(part) else [field.name]
    return names


def _kind(name: str, condition: str, setup: Setup) -> Any:
    """The declared type of a field."""
    known = _names(setup)
    if name in known:
        part, _, field = name.rpartition(".")
        return get_type_hints(type(getattr(setup, part)) if part else Setup)[field]
    inner = [other for other in known if other.startswith(f"{name}.")]
    if inner:
        raise DataError(f"grid: {name} is not one value but several: vary one of {', '.join(inner)}")
    part = name.partition(".")[0]
    same_part = [other for other in known if other.startswith(f"{part}.")]
    same_field = [other for other in known if other.rpartition(".")[2] == name]
    hint = f"; did you mean {same_field[0]}?" if same_field else did_you_mean(name, known)
    where = f"the condition {condition!r}"
    if is_dataclass(getattr(setup, part, None)):
        where += f", whose {part} is {type(getattr(setup, part)).__name__}"
    raise DataError(f"grid: no field {name!r} in {where}{hint} There are: {', '.join(same_part or known)}")


def _parsed(name: str, text: str, kind: Any) -> Any:
    """The value of a text in a field of this type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if text == "none" and type(None) in inner:
            return None
        return _parsed(name, text, next(part for part in inner if part is not type(None)))
    if origin is Literal:
        if text not in inner:
            raise DataError(f"grid: {name} must be one of {', '.join(inner)}, got {text!r}{did_you_mean(text, inner)}")
        return text
    if origin is tuple:
        parts = [] if text == "none" else text.split("+")
        if inner[-1] is not Ellipsis and len(parts) != len(inner):
            raise DataError(f"grid: {name} holds {len(inner)} values, joined by +, got {text!r}")
        return tuple(_parsed(name, part, inner[0]) for part in parts)
    if kind is bool:
        if text not in ("true", "false"):
            raise DataError(f"grid: {name} must be true or false, got {text!r}")
        return text == "true"
    if kind is str:
        return text
    try:
        value = kind(text)
    except ValueError as error:
        raise DataError(f"grid: {name} must be a {'whole ' * (kind is int)}number, got {text!r}") from error
    if not math.isfinite(value):
        raise DataError(f"grid: {name} must be finite, got {text!r}")
    return value


def shown(value: Any) -> str:
    """A value as it would be typed.

    >>> shown(0.5), shown(True), shown((0.9, 0.99)), shown(()), shown("sgd")
    ('0.5', 'true', '0.9+0.99', 'none', 'sgd')
    """
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return "+".join(map(shown, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
