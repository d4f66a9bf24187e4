"""Randomness as a function of what it is for: the same seed and purpose give the same draw, whatever was drawn before."""

from __future__ import annotations

import hashlib

import torch


def derived(seed: int, *purpose: object) -> int:
    """A seed of its own for each purpose."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def generator(seed: int, *purpose: object) -> torch.Generator:
    """A generator on the CPU for one purpose."""
    return torch.Generator().manual_seed(derived(seed, *purpose))
