"""Sums over batches of rows, filled in one pass; every measure is computed from them."""

from .accumulator import update_together
from .gram import Gram
from .pair import FeaturePair
from .retained_rows import RETAINED_ROWS

__all__ = ["RETAINED_ROWS", "FeaturePair", "Gram", "update_together"]
