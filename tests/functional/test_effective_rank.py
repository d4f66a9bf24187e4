import pytest
import reference
import torch

from lazyrich import DegenerateError, Gram
from lazyrich.functional import effective_rank, participation_ratio, rankme, stable_rank

RANKS = {
    "effective_rank": effective_rank,
    "participation_ratio": participation_ratio,
    "stable_rank": stable_rank,
    "rankme": rankme,
}
every = pytest.mark.parametrize("name", RANKS)


def features(n=150, p=20, offset=0.0, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, p, generator=g, dtype=torch.float64) * torch.linspace(2, 0.1, p, dtype=torch.float64)
    return (x + offset).to(dtype)


def test_a_solver_that_does_not_converge_is_tried_another_way(monkeypatch):
    """Eigenvalues alone and eigenvectors too are what LAPACK may fail at."""

    def fails(matrix):
        raise torch.linalg.LinAlgError("did not converge")

    x, expected = features(), reference.ranks(features().numpy())["effective_rank"]
    monkeypatch.setattr(torch.linalg, "eigvalsh", fails)
    assert effective_rank(x) == pytest.approx(expected, rel=1e-9)


@pytest.fixture(scope="module")
def x():
    return torch.randn(1000, 1024, generator=torch.Generator().manual_seed(0))


class TestKnownNumbers:
    """Of torch.randn(1000, 1024) with seed 0, known from other implementations."""

    def test_rankme(self, x):
        assert rankme(x) == pytest.approx(814.36, abs=0.005)

    def test_entropy_rank_of_the_covariance(self, x):
        """613.47 is the figure with RankMe's 1e-7 in every share, 613.05 the definition's."""
        assert effective_rank(x, eps=1e-7) == pytest.approx(613.47, abs=0.005)
        assert effective_rank(x) == pytest.approx(reference.ranks(x.double().numpy())["effective_rank"], abs=1e-6)
        assert effective_rank(x) == pytest.approx(613.05, abs=0.005)

    def test_a_gram_in_single_precision(self, x):
        gram = Gram()
        gram.update(x)
        assert rankme(gram) == pytest.approx(814.36, abs=0.005)


@every
class TestEvery:
    @pytest.mark.parametrize("shape", [(150, 20), (10, 30), (2, 5), (40, 1)])
    @pytest.mark.parametrize("offset", [0.0, 3.0])
    def test_against_numpy(self, name, shape, offset):
        x = features(*shape, offset=offset)
        assert RANKS[name](x) == pytest.approx(reference.ranks(x.numpy())[name], rel=1e-7)

    def test_isotropic_features_have_full_rank(self, name):
        x = torch.linalg.qr(features(100, 8) - features(100, 8).mean(0)).Q
        assert RANKS[name](3 * x) == pytest.approx(8, rel=1e-5)

    def test_a_gram_in_batches_and_weights(self, name):
        x = features()
        gram, repeated = Gram(), x.repeat_interleave(torch.tensor([1, 2, 3] * 50), 0)
        for rows, weights in zip(x.split(11), torch.tensor([1.0, 2.0, 3.0] * 50).split(11), strict=True):
            gram.update(rows, weights=weights)
        assert RANKS[name](gram) == pytest.approx(reference.ranks(repeated.numpy())[name], rel=1e-7)

    def test_whole_weights_are_repetitions(self, name):
        x, times = features(), torch.tensor([1, 2, 3] * 50)
        expected = reference.ranks(x.repeat_interleave(times, 0).numpy())[name]
        assert RANKS[name](x, weights=times.double()) == pytest.approx(expected, rel=1e-7)

    def test_arguments_are_left_alone(self, name):
        x = features(offset=5)
        kept = x.clone()
        RANKS[name](x)
        assert torch.equal(x, kept)

    def test_scale(self, name):
        assert RANKS[name](1e-8 * features()) == pytest.approx(RANKS[name](features()), rel=1e-9)


@pytest.mark.parametrize("name", ["effective_rank", "participation_ratio"])
@pytest.mark.parametrize("offset", [1.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_offsets_do_not_change_the_centred_ranks(name, offset, dtype):
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    assert RANKS[name](features(offset=offset, dtype=dtype)) == pytest.approx(RANKS[name](features()), rel=tolerance)


def test_dead_features():
    for function in (effective_rank, participation_ratio):
        with pytest.raises(DegenerateError, match="features are constant"):
            function(torch.full((10, 3), 2.5))
    for function in (stable_rank, rankme):
        assert function(torch.full((10, 3), 2.5)) == pytest.approx(1, rel=1e-5)
        with pytest.raises(DegenerateError, match="features are all zero"):
            function(torch.zeros(10, 3))


def test_rankme_of_an_offset_in_single_precision():
    """The raw singular values under the offset's are the covariance's, and no rounding of it."""
    x = features(offset=1e4, dtype=torch.float32)
    gram = Gram(retain=0)
    gram.update(x)
    assert rankme(gram) == pytest.approx(reference.ranks(x.double().numpy())["rankme"], rel=1e-5)


@every
def test_what_a_gram_keeps_is_forgotten_with_more_rows(name):
    x, gram = features(), Gram(retain=0)
    gram.update(x[:60])
    RANKS[name](gram)
    gram.update(x[60:])
    assert RANKS[name](gram) == pytest.approx(RANKS[name](x), rel=1e-9)


def _rotated(p, alpha, n=1500):
    """Features of unlike strength i^-α, each spread over all columns."""
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, p, generator=g) * torch.arange(1, p + 1) ** -alpha @ torch.linalg.qr(torch.randn(p, p, generator=g)).Q


def _low_rank(r, p, offset=0.0):
    g = torch.Generator().manual_seed(r)
    return torch.randn(1500, r, generator=g) @ torch.randn(r, p, generator=g) + offset * torch.randn(p, generator=g)


@pytest.mark.parametrize(
    ("x", "tolerance"),
    [
        *[(_low_rank(r, p, offset), 2e-4) for r in (2, 3) for p in (64, 512) for offset in (0.0, 3.0)],
        (_low_rank(10, 300), 2e-4),
        (torch.relu(_low_rank(30, 200)), 1e-4),
        (_rotated(200, 0.5), 1e-6),
        (_rotated(200, 1.0), 1e-5),
    ],
)
def test_rankme_of_single_precision_is_that_of_the_singular_values(x, tolerance):
    """From tensors and from a pass: the products' rounding is no direction."""
    gram = Gram()
    for rows in x.split(400):
        gram.update(rows)
    expected = reference.ranks(x.double().numpy())["rankme"]
    assert rankme(gram) == pytest.approx(expected, rel=tolerance)
    assert rankme(x) == pytest.approx(expected, rel=tolerance)


def test_rankme_does_not_count_the_rounding_of_half_precision():
    """Rank 3 in bfloat16: the rank of the features before they were rounded, to 1 %, and not that of their rounding."""
    x = _low_rank(3, 300)
    expected = reference.ranks(x.double().numpy())["rankme"]
    assert reference.ranks(x.bfloat16().double().numpy())["rankme"] > 1.1 * expected
    gram = Gram()
    gram.update(x.bfloat16())
    assert rankme(gram) == pytest.approx(expected, rel=0.01)
    assert rankme(x.bfloat16()) == pytest.approx(expected, rel=0.01)
