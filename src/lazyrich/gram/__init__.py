"""One Gram matrix, filled in one pass; every measure is computed from it."""

from .gram import Gram

__all__ = ["Gram"]
