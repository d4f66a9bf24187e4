"""Names of numbers in files and series: those of a layer, and those that earlier versions wrote."""

from __future__ import annotations

from typing import Any

RENAMED = {  # in files of schema version 3, and in series of that time
    "spectral_exponent": "alpha_req",
    "initial_alignment": "s_init",
    "squared_parameter_norm": "parameter_norm",
    "squared_parameter_distance": "parameter_distance",
    "D_LR": "low_rank",
}


def layer_value(measure: str, layer: str) -> str:
    """The name of a layer's number.

    >>> layer_value("low_rank", "blocks.0.fc")
    'low_rank of blocks.0.fc'
    """
    return f"{measure} of {layer}"


def split_layer_value(name: str) -> tuple[str, str | None]:
    """Measure and layer of a number; the layer is None where the number is not one of a layer.

    >>> split_layer_value("low_rank of blocks.0.fc"), split_layer_value("low_rank")
    (('low_rank', 'blocks.0.fc'), ('low_rank', None))
    """
    measure, of, layer = name.partition(" of ")
    return measure, layer if of else None


def current_name(name: str) -> str:
    """The name that a number has today.

    >>> current_name("spectral_exponent"), current_name("D_LR of fc1"), current_name("nc1")
    ('alpha_req', 'low_rank of fc1', 'nc1')
    """
    measure, layer = split_layer_value(name)
    measure = RENAMED.get(measure, measure)
    return measure if layer is None else layer_value(measure, layer)


def renamed(values: dict[str, Any]) -> dict[str, Any]:
    """The same values under the names of today."""
    return {current_name(str(name)): value for name, value in values.items()}
