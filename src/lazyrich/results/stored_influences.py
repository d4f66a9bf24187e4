"""The influences of an evaluation as arrays, which are stored in one file: at most 30 kB for 1,024 rows and three measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..functional.influence import Influence


def packed(influences: Mapping[str, Influence]) -> dict[str, np.ndarray]:
    """Arrays by the names of measure and attribute; those that are equal to the ones of the measure before are left out."""
    arrays: dict[str, np.ndarray] = {}
    before: dict[str, np.ndarray] = {}
    for measure, influence in influences.items():
        own = {name: np.asarray(x) for name, x in vars(influence).items()}
        arrays |= {f"{measure} {name}": x for name, x in own.items() if not np.array_equal(x, before.get(name, np.nan))}
        before = own
    return arrays


def unpacked(arrays: Mapping[str, np.ndarray]) -> dict[str, Influence]:
    """The inverse of :func:`packed`."""
    parts: dict[str, dict[str, Any]] = {}
    latest: dict[str, Any] = {}
    for name, x in arrays.items():
        measure, attribute = name.split(" ")
        latest = parts.setdefault(measure, dict(latest))
        latest[attribute] = torch.from_numpy(x) if x.ndim else float(x)
    return {measure: Influence(**attributes) for measure, attributes in parts.items()}
