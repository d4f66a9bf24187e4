"""Mean and standard deviation over seeds, of which some could not be measured."""

from __future__ import annotations

import warnings

import numpy as np


def mean_and_sd(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sample standard deviation over the first axis, without the NaN.

    NaN where no value is known, or for the standard deviation fewer than two; NumPy alone would warn of that.

    >>> mean, sd = mean_and_sd(np.array([[1.0, 1.0, np.nan], [3.0, np.nan, np.nan]]))
    >>> mean.tolist(), sd.tolist()
    ([2.0, 1.0, nan], [1.4142135623730951, nan, nan])
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=0), np.nanstd(values, axis=0, ddof=1)
