"""Reading JSON files. A file may be damaged, or written by something else, so every value in it is checked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import DataError

Stored = TypeVar("Stored")


def parsed(text: str) -> Any:
    """The content of a JSON text. Python would also read ``NaN``, ``Infinity`` and numbers that overflow; none is a result.

    Raises:
        ValueError, RecursionError: it is not JSON, or a number is not finite.

    >>> parsed('{"low_rank": NaN}')
    Traceback (most recent call last):
    ...
    ValueError: NaN is not a finite number
    """
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it is not JSON, or a number is not finite; the message names the file.
        FileNotFoundError: it does not exist.
    """
    try:
        return parsed(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # bytes, syntax, numbers with too many digits; too many nested brackets
        raise DataError(f"{path} is not JSON: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that describes the results in its folder.

    Raises:
        DataError: it is damaged; the message names the file.
        FileNotFoundError: it does not exist.
    """
    try:
        values = read_json(path)
    except DataError as error:
        raise DataError(f"{error}; it is damaged: delete its folder to start over") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is damaged: delete its folder to start over")
    return values


def number(name: str, value: Any) -> float:
    """A number as float.

    Raises:
        DataError: the value is not a number, or too large for a float.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{name} must be a number, got {value!r:.80}")
    try:
        return float(value)
    except OverflowError as error:
        raise DataError(f"{name} is too large") from error


def typed(kind: type[Stored], values: Any) -> Stored:
    """A dataclass of plain values, each of the type that its field declares.

    Raises:
        DataError: a value has another type, or ``values`` is not a dictionary.
        TypeError: a field is unknown or missing.

    >>> from lazyrich.functional import NeuralCollapse
    >>> typed(NeuralCollapse, {"nc1": 1, "nc2_equinorm": 0.5, "nc2_equiangular": 0.25, "nc3": None}).nc1
    1.0
    """
    if not isinstance(values, dict):
        raise DataError(f"{kind.__name__} must be an object, got {values!r:.80}")
    declared = get_type_hints(kind)
    return kind(**{name: plain_value(name, value, declared.get(name)) for name, value in values.items()})


def plain_fields(kind: type) -> dict[str, Any]:
    """The fields of a dataclass that hold a number, a text or None, with their types.

    >>> from lazyrich.functional import LowRankEstimate
    >>> list(plain_fields(LowRankEstimate))[:3]
    ['value', 'corrected', 'stderr']
    """
    plain = {int, float, str, type(None)}
    return {name: hint for name, hint in get_type_hints(kind).items() if plain.issuperset(_alternatives(hint))}


def plain_value(name: str, value: Any, declared: Any) -> Any:
    """A value of a declared type; an integer is also a float.

    Raises:
        DataError: the value has another type, or is too large.
    """
    allowed = _alternatives(declared)
    if value is None and type(None) in allowed:
        return None
    if float in allowed:
        return number(name, value)
    if type(value) not in allowed:
        raise DataError(f"{name} cannot be {value!r:.80}")
    if type(value) is int:
        number(name, value)  # raises an error if it is too large for a float
    return value


def _alternatives(declared: Any) -> tuple[Any, ...]:
    return get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)
