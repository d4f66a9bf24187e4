"""Neural collapse, NC1 to NC4."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from .conftest import Implementation
from .designs import OFFSETS, normal, refused, rotation


def read(found: Any, name: str) -> float:
    """One of the measures, from an attribute or an entry."""
    return float(found[name] if isinstance(found, Mapping) else getattr(found, name))


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("name", ["nc1", "nc2_equinorm", "nc2_equiangular", "nc3", "nc4"])
def test_exact_collapse(implementation: Implementation, classes: int, name: str) -> None:
    """Class means at a simplex, no spread, the head the means themselves: all 0."""
    simplex = (torch.eye(classes, dtype=torch.float64) - 1 / classes) @ rotation(classes)
    labels = torch.arange(20 * classes) % classes
    head = {"head_weight": 2 * simplex, "head_bias": -14 * simplex.sum(1)}
    found = implementation["neural_collapse"](simplex[labels] + 7, labels, **head)
    assert read(found, name) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("offset", [0.0, *OFFSETS])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_nc1(implementation: Implementation, offset: float, dtype: torch.dtype) -> None:
    """Means at ±a, deviations ±s on the same axis: Tr(Σ_W Σ_B⁺)/C = s²/(2a²), whatever the offset."""
    a, s = 3.0, 0.5
    x = torch.tensor([[a + s, 0], [a - s, 0], [-a + s, 0], [-a - s, 0]], dtype=torch.float64)
    found = implementation["neural_collapse"]((x + offset).to(dtype), torch.tensor([0, 0, 1, 1]))
    assert read(found, "nc1") == pytest.approx(s**2 / a**2 / 2, rel=1e-3)


def test_deviations_beside_the_means(implementation: Implementation) -> None:
    """Deviations orthogonal to the class means do not count in Tr(Σ_W Σ_B⁺): 0."""
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert read(implementation["neural_collapse"](x, torch.tensor([0, 0, 1, 1])), "nc1") == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("name", "value"), [("nc2_equinorm", 0.5), ("nc2_equiangular", (2 * (2 / 3) + 4 * (1 / 3)) / 6)])
def test_norms_and_angles(implementation: Implementation, name: str, value: float) -> None:
    """Class means (±1, 0), (0, ±3): norms 1, 1, 3, 3; cosines -1, -1 and four times 0, to be -1/3."""
    x = torch.tensor([[1.0, 0], [-1, 0], [0, 3], [0, -3]], dtype=torch.float64).repeat(2, 1)
    assert read(implementation["neural_collapse"](x, torch.arange(8) % 4), name) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(("bias", "value"), [(0.0, 0.0), (9.0, 0.5)])
def test_bias_of_the_head(implementation: Implementation, bias: float, value: float) -> None:
    """By its weight alone the head is right everywhere; with a bias of 9 it says class 1 always, so half disagree."""
    x = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]], dtype=torch.float64)
    head = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    given = {"head_weight": head, "head_bias": torch.tensor([0.0, bias], dtype=torch.float64)}
    assert read(implementation["neural_collapse"](x, labels, **given), "nc4") == value


@pytest.mark.parametrize("seed", range(3))
def test_invariances(implementation: Implementation, seed: int) -> None:
    """Scale, shift, rotation and order change neither NC1 nor NC2: values of the same features as they are."""
    a, s = 3.0, 0.5
    x = torch.tensor([[a + s, 0], [a - s, 0], [-a + s, 0], [-a - s, 0]], dtype=torch.float64)
    order = normal(4, seed=seed).argsort()
    found = implementation["neural_collapse"]((7 * x @ rotation(2, seed) - 5)[order], torch.tensor([0, 0, 1, 1])[order])
    assert read(found, "nc1") == pytest.approx(s**2 / a**2 / 2, rel=1e-9)
    assert read(found, "nc2_equinorm") == pytest.approx(0, abs=1e-9)


FEATURES, LABELS = normal(20, 6), torch.arange(20) % 4
BAD: dict[str, tuple[torch.Tensor, torch.Tensor, dict[str, int]]] = {
    "a class without samples": (FEATURES, LABELS.masked_fill(LABELS == 2, 1), {"num_classes": 4}),
    "a label above the classes": (FEATURES, LABELS, {"num_classes": 3}),
    "a label below zero": (FEATURES, LABELS - 1, {"num_classes": 4}),
    "NaN": (FEATURES.index_fill(0, torch.tensor([5]), math.nan), LABELS, {"num_classes": 4}),
    "one class": (FEATURES, LABELS * 0, {"num_classes": 1}),
}


@pytest.mark.parametrize("case", BAD)
def test_no_answer(implementation: Implementation, case: str) -> None:
    """An empty class, labels out of range, NaN, a single class: no number."""
    features, labels, named = BAD[case]
    collapse = implementation["neural_collapse"]
    assert refused(lambda: read(collapse(features, labels, **named), "nc1"))
