"""Mean and standard deviation over seeds, of which some could not be measured."""

from __future__ import annotations

import numpy as np


def mean(values: np.ndarray) -> np.ndarray:
    """Over the first axis, of those that are finite; NaN where none is.

    >>> mean(np.array([[1.0, np.nan], [3.0, np.nan]])).tolist()
    [2.0, nan]
    """
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)


def sd(values: np.ndarray) -> np.ndarray:
    """The same, of a sample; NaN where fewer than two are finite.

    >>> sd(np.array([[1.0, 1.0], [3.0, np.nan]])).tolist()
    [1.4142135623730951, nan]
    """
    known = np.isfinite(values)
    squares = np.where(known, values - mean(values), 0) ** 2
    return np.sqrt(squares.sum(0) / np.where(known.sum(0) > 1, known.sum(0) - 1, np.nan))
