"""Two blocks of features of the same samples."""

import copy

import pytest
import torch
from together import Together
from torch.testing import assert_close

from lazyrich import DataError, NonFiniteError
from lazyrich.functional import standard_error
from lazyrich.gram import FeaturePair

N = 2500
g = torch.Generator().manual_seed(0)
A = torch.randn(N, 12, generator=g, dtype=torch.float64) + 30
B = A[:, :5] @ torch.randn(5, 7, generator=g, dtype=torch.float64) + torch.randn(N, 7, generator=g, dtype=torch.float64)
W = torch.rand(N, generator=g, dtype=torch.float64)
NAMES = ("features_a", "features_b")


def filled(a, b, weights=None, size=300):
    pair = FeaturePair()
    for rows in torch.arange(len(a)).split(size):
        pair.update(a[rows], b[rows], None if weights is None else weights[rows])
    return pair


@pytest.mark.parametrize("weights", [None, W], ids=["equal weights", "weights"])
def test_against_plain_formulas(weights):
    pair = filled(A, B, weights)
    covariance = torch.cov(torch.cat([A, B], dim=1).T, correction=0, aweights=weights)
    parts = {"features_a": slice(0, 12), "features_b": slice(12, 19)}
    for first in NAMES:
        for second in NAMES:
            expected = covariance[parts[first], parts[second]]
            assert_close(pair.block(first, second, centered=True), expected, rtol=1e-10, atol=1e-11)
    share = torch.full((N,), 1 / N, dtype=torch.float64) if weights is None else weights / weights.sum()
    assert_close(pair.mean("features_b"), share @ B)
    assert pair.count == N
    assert pair.widths == {"features_a": 12, "features_b": 7}


def test_batch_sizes_change_no_bit():
    first, second = filled(A, B, size=1), filled(A, B, size=N)
    for name in NAMES:
        assert torch.equal(first.block("features_a", name), second.block("features_a", name))


def test_rounding_of_each_block():
    pair = filled(A.float(), B.bfloat16().float())
    pair.update(A[:5].float(), B[:5].bfloat16())
    assert (pair.eps("features_a"), pair.eps("features_b")) == (2**-23, 2**-7)


@pytest.mark.parametrize("weights", [None, W], ids=["equal weights", "weights"])
def test_reduced_is_the_whole(weights):
    parts = [filled(A[rank::2], B[rank::2], None if weights is None else weights[rank::2]) for rank in range(2)]
    together = filled(A, B, weights)
    for pair in Together(3).reduce([*parts, FeaturePair()]):
        assert pair.count == N
        for first in NAMES:
            for second in NAMES:
                expected = together.block(first, second, centered=True)
                assert_close(pair.block(first, second, centered=True), expected, rtol=1e-10, atol=1e-11)


def test_the_error_of_processes_is_that_of_one():
    """Contiguous parts: each process retains rows of its own, and the largest of all stay."""
    parts, together = [filled(A[:900], B[:900]), filled(A[900:], B[900:])], filled(A, B)
    for pair in Together(2).reduce(parts):
        assert len(pair.retained().weights) == pair.retain == 1024
        assert standard_error("kernel_alignment", pair) == pytest.approx(standard_error("kernel_alignment", together), rel=0.05)


def test_strata():
    labels = torch.arange(N) % 3
    pair = FeaturePair(strata=3)
    pair.update(A, B, W, labels)
    assert pair.strata_rows.tolist() == [834.0, 833.0, 833.0]
    assert torch.equal(pair.block(*NAMES), filled(A, B, W).block(*NAMES))
    with pytest.raises(DataError, match="strata must be passed"):
        pair.update(A, B, W)


def test_errors():
    pair = FeaturePair("features", "features of the start")
    with pytest.raises(
        DataError, match=r"features of the start must have shape \(n, width\), with n = 10 as the length of features"
    ):
        pair.update(A[:10], B[:5])
    with pytest.raises(NonFiniteError, match="features of the start hold NaN or infinity in batch 0"):
        pair.update(A, B / 0)
    with pytest.raises(TypeError, match="features must be floating point"):
        pair.update(A.int(), B)
    with pytest.raises(DataError, match="no samples"):
        pair.mean("features")
    pair.update(A, B)
    before = copy.deepcopy(pair)
    with pytest.raises(DataError, match="widths of the blocks must stay the same"):
        pair.update(A, A)
    assert torch.equal(pair.block("features", "features of the start"), before.block("features", "features of the start"))
    with pytest.raises(DataError, match="no block 'outputs' was passed to update"):
        pair.block("features", "outputs")
