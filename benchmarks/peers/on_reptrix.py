"""reptrix."""

from __future__ import annotations

import numpy as np
from reptrix.alpha import get_alpha  # pyright: ignore[reportMissingImports]
from reptrix.rankme import get_rankme  # pyright: ignore[reportMissingImports]
from torch import Tensor

PACKAGE = "reptrix"


def rankme(features: Tensor) -> float:
    return get_rankme(features)


def alpha_req(features: Tensor, fit_range: tuple[int, int] | None = None) -> float:
    if fit_range is None:
        return get_alpha(features)[0]
    first, last = fit_range
    return get_alpha(features, fit_range=np.arange(first - 1, last))[0]  # it counts from 0
