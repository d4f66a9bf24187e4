"""Metrics that see the data batch by batch."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

from .conftest import Implementation
from .designs import design, rotation

X = design(64, *range(1, 13))
F = X[:, :3]
VALUE = {"LowRankMeasure": 0.5, "KernelAlignment": 3 / math.sqrt(3 * 12)}  # 1 - sqrt(3/12), c/sqrt(pq)
both = pytest.mark.parametrize("name", list(VALUE))


@both
@pytest.mark.parametrize("sizes", [[64], [1] * 64, [63, 1], [1, 63], [7] * 9 + [1], [50, 10, 4]], ids=str)
def test_batch_sizes(implementation: Implementation, name: str, sizes: list[int]) -> None:
    """Batches of one sample and ragged last batches: the value of all samples at once."""
    metric = implementation[name]()
    for x, f in zip(X.split(sizes), F.split(sizes), strict=True):
        metric.update(x, f)
    assert float(metric.compute()) == pytest.approx(VALUE[name], abs=1e-9)


@both
@pytest.mark.parametrize("offset", [100.0, 1000.0])
def test_offset(implementation: Implementation, name: str, offset: float) -> None:
    """Batches in float32 with a common offset of the features: the same value."""
    metric = implementation[name]()
    for x, f in zip((X @ rotation(12)).split(7), F.split(7), strict=True):
        metric.update((x + offset).float(), f.float())
    assert float(metric.compute()) == pytest.approx(VALUE[name], abs=1e-4)


@both
def test_not_stale(implementation: Implementation, name: str) -> None:
    """compute, update, compute: the second is of all that was seen; after reset of nothing but what follows."""
    metric = implementation[name]()
    metric.update(X[:40], F[:40])
    metric.compute()
    metric.update(X[40:], F[40:])
    assert float(metric.compute()) == pytest.approx(VALUE[name], abs=1e-9)
    metric.reset()
    metric.update(X * 5 + 1, F)
    assert float(metric.compute()) == pytest.approx(VALUE[name], abs=1e-9)


@both
def test_copies(implementation: Implementation, name: str) -> None:
    """A pickled and a deep copy go on where the metric was, and do not write into it."""
    metric = implementation[name]()
    metric.update(X[:40], F[:40])
    before = float(metric.compute())
    for twin in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        twin.update(X[40:], F[40:])
        assert float(twin.compute()) == pytest.approx(VALUE[name], abs=1e-9)
    assert float(metric.compute()) == before


@both
def test_module_in_half_precision(implementation: Implementation, name: str) -> None:
    """A module that holds the metric is brought to half precision: the sums are not."""
    metric = implementation[name]()
    metric.update(X[:40] + 100, F[:40])
    torch.nn.ModuleList([metric]).half()
    metric.update(X[40:] + 100, F[40:])
    assert float(metric.compute()) == pytest.approx(VALUE[name], abs=1e-6)
