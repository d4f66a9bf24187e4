"""Randomness as a function of its purpose: the same seed and purpose give the same numbers, in whatever order they are drawn."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import torch

Seeds = int | str | Sequence[int]


def seed_numbers(seeds: Seeds) -> tuple[int, ...]:
    """The seeds that are meant.

    Args:
        seeds: a count N, which means 0 to N - 1; the numbers themselves; or a text: a count, or numbers and ranges such as
            ``"100-104"`` or ``"0,3,7"``. One number alone is a count, so ``"7-7"`` is the one seed 7.

    Raises:
        ValueError: there are none; one is negative or occurs twice; the text has another form.

    >>> seed_numbers(3), seed_numbers("100-102"), seed_numbers("0,3,7"), seed_numbers([5])
    ((0, 1, 2), (100, 101, 102), (0, 3, 7), (5,))
    """
    if isinstance(seeds, str) and not seeds.strip().isdigit():
        parts = [re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip()) for part in seeds.split(",")]
        if None in parts:
            raise ValueError(f"seeds must be a count such as 3, or numbers such as 100-104 or 0,3,7, got {seeds!r}")
        numbers = tuple(n for part in parts if part for n in range(int(part[1]), int(part[2] or part[1]) + 1))
    elif isinstance(seeds, (int, str)):
        if int(seeds) < 1:
            raise ValueError(f"seeds must be at least 1, got {seeds}")
        numbers = tuple(range(int(seeds)))
    else:
        numbers = tuple(int(seed) for seed in seeds)
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise ValueError(f"seeds must be different numbers from 0, and at least one, got {seeds!r}")
    return numbers


def seed_text(numbers: Sequence[int]) -> str:
    """Seeds by their numbers; numbers in a row as a range.

    >>> seed_text((0, 1, 2)), seed_text((100, 101)), seed_text((0, 3, 4)), seed_text((7,))
    ('0-2', '100-101', '0,3-4', '7-7')
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    ranges = [str(first) if first == last and len(runs) > 1 else f"{first}-{last}" for first, last in runs]
    return ",".join(ranges)


def typed_seeds(numbers: Sequence[int]) -> int | str:
    """The shortest form in which these seeds can be typed: a count where they are 0 to N - 1, else the numbers.

    >>> typed_seeds((0, 1, 2)), typed_seeds((100, 101))
    (3, '100-101')
    """
    return len(numbers) if tuple(numbers) == tuple(range(len(numbers))) else seed_text(numbers)


def derived(seed: int, *purpose: object) -> int:
    """The seed for one purpose, from the seed of the run."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def generator(seed: int, *purpose: object) -> torch.Generator:
    """A random generator on the CPU for one purpose."""
    return torch.Generator().manual_seed(derived(seed, *purpose))


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed the generators that a step on this device draws from; ``torch.manual_seed`` also seeds others, which takes longer."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
