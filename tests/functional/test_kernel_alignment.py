import pytest
import reference
import torch

from lazyrich import DataError, DegenerateError, Gram, NonFiniteError
from lazyrich.functional import kernel_alignment, low_rank_measure, target_alignment
from lazyrich.gram import FeaturePair

g = torch.Generator().manual_seed(0)
A = torch.randn(200, 30, generator=g, dtype=torch.float64)
B = A[:, :12] @ torch.randn(12, 9, generator=g, dtype=torch.float64) + torch.randn(200, 9, generator=g, dtype=torch.float64)
EXPECTED = reference.cka(A.numpy(), B.numpy())


def test_against_the_reference():
    assert 0.1 < EXPECTED < 0.9
    assert kernel_alignment(A, B).item() == pytest.approx(EXPECTED, abs=1e-12)
    assert kernel_alignment(B, A).item() == pytest.approx(EXPECTED, abs=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_offsets_change_nothing(offset, dtype, tolerance):
    """A mean of 1,000 turns some packages' value into 1 or 0."""
    value = kernel_alignment((A + offset).to(dtype), (B - offset).to(dtype))
    assert value.item() == pytest.approx(EXPECTED, abs=tolerance)


def test_a_pair_filled_batch_by_batch():
    pair = FeaturePair("now", "then")
    for a, b in zip(A.split(7), B.split(7), strict=True):
        pair.update(a, b)
    assert kernel_alignment(pair).item() == pytest.approx(EXPECTED, abs=1e-12)
    with pytest.raises(TypeError, match="already holds both blocks"):
        kernel_alignment(pair, B)
    constant = FeaturePair("now", "then")
    constant.update(A, torch.ones(200, 1))
    with pytest.raises(DegenerateError, match="then are constant over the samples"):
        kernel_alignment(constant)


def test_a_gram_is_compared_with_the_block_that_is_named():
    gram = Gram()
    gram.update(A, A[:, :1], B)
    assert kernel_alignment(gram, other="targets").item() == pytest.approx(EXPECTED, abs=1e-12)
    with pytest.raises(TypeError, match="pass the Gram alone"):
        kernel_alignment(gram, B)


def test_invariances():
    rotation = torch.linalg.qr(torch.randn(30, 30, generator=g, dtype=torch.float64)).Q
    assert kernel_alignment(7 * A @ rotation, 1e-3 * B).item() == pytest.approx(EXPECTED, abs=1e-12)
    assert kernel_alignment(A, A @ rotation + 3).item() == pytest.approx(1, abs=1e-12)


def test_batches_of_any_size_and_weights():
    gram = Gram(retain=0)
    for a, b in zip(A.split(1), B.split(1), strict=True):
        gram.update(a, b)
    assert kernel_alignment(gram).item() == pytest.approx(EXPECTED, abs=1e-12)
    repeats = torch.tensor([1, 3] * 100)
    expected = reference.cka(A.repeat_interleave(repeats, 0).numpy(), B.repeat_interleave(repeats, 0).numpy())
    assert kernel_alignment(A, B, weights=repeats.double()).item() == pytest.approx(expected, abs=1e-12)


def test_is_one_minus_the_output_reference():
    assert kernel_alignment(A, B).item() == pytest.approx(1 - low_rank_measure(A, B, reference="outputs").item(), abs=1e-9)


def test_rounding_takes_no_value_above_one():
    """The same kernel up to scale: unclamped, a third of these come out a little above."""
    draws = [torch.randn(20, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in range(30)]
    values = torch.stack([kernel_alignment(x, 3 * x) for x in draws])
    assert values.max() <= 1
    assert values.min() > 1 - 1e-14


def test_weights_of_targets():
    repeats = torch.tensor([1, 3] * 100)
    expected = reference.cka(A.repeat_interleave(repeats, 0).numpy(), B.repeat_interleave(repeats, 0).numpy())
    assert target_alignment(A, B, weights=repeats.double()).item() == pytest.approx(expected, abs=1e-12)
    with pytest.raises(DataError, match="needs targets"):
        target_alignment(A)


def test_targets():
    labels = torch.arange(200) % 4
    one_hot = torch.nn.functional.one_hot(labels).double()
    assert target_alignment(A, labels).item() == pytest.approx(reference.cka(A.numpy(), one_hot.numpy()), abs=1e-12)
    assert target_alignment(A, one_hot).item() == target_alignment(A, labels).item()
    assert target_alignment(A, B[:, 0]).item() == pytest.approx(reference.cka(A.numpy(), B[:, :1].numpy()), abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "error", "match"),
    [
        (A, B[:50], DataError, "features_b must have shape"),
        (A, torch.ones(200, 2), DegenerateError, "features_b are constant"),
        (torch.ones(200, 2), B, DegenerateError, "features_a are constant"),
        (A, B / 0, NonFiniteError, "features_b hold NaN or infinity"),
        (A, None, DataError, "needs features_b"),
    ],
)
def test_errors(a, b, error, match):
    with pytest.raises(error, match=match):
        kernel_alignment(a, b)
