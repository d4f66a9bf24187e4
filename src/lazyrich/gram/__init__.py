"""One Gram matrix, filled in one pass; every measure is computed from it."""

from .gram import Gram
from .retained_rows import RETAINED_ROWS

__all__ = ["RETAINED_ROWS", "Gram"]
