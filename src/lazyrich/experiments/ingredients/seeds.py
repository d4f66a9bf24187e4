"""Randomness as a function of its purpose: the same seed and purpose give the same numbers, in whatever order they are drawn."""

from __future__ import annotations

import hashlib

import torch


def derived(seed: int, *purpose: object) -> int:
    """The seed for one purpose, from the seed of the run."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def generator(seed: int, *purpose: object) -> torch.Generator:
    """A random generator on the CPU for one purpose."""
    return torch.Generator().manual_seed(derived(seed, *purpose))
