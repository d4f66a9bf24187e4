import math
import warnings
from dataclasses import replace

import pytest
import torch
from cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import d_lr
from torch.testing import assert_close

from lazyrich import DataError, DegenerateError, Gram, NonFiniteError, RankWarning
from lazyrich.functional import jackknife, low_rank_estimate, low_rank_measure
from lazyrich.functional.low_rank import LowRankEstimate, _features_of, _measure, isotropic_reference
from lazyrich.functional.span import directions_of, span_of

one = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


def orthonormal(n, k, *, centred, seed=0):
    """(n, k) columns orthonormal in L², orthogonal to the constant function if ``centred``."""
    x = torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if centred:
        x = x - x.mean(0)
    return torch.linalg.qr(x).Q * math.sqrt(n)


def test_there_are_at_least_thirty_cases():
    assert len(CASES) >= 30


@one
def test_float64_matches_the_reference(case):
    value = low_rank_measure(case.features, case.outputs, weights=case.weights, rtol=case.rtol)
    assert value.dtype == torch.float64
    assert value.ndim == 0
    assert value.item() == pytest.approx(d_lr(case.features, case.outputs, case.weights, rtol=case.rtol), abs=1e-10)


@one
def test_float32_matches_the_reference(case):
    x, f = case.features.float(), case.outputs.float()
    value = low_rank_measure(x, f, weights=case.weights, rtol=case.rtol)
    assert value.item() == pytest.approx(d_lr(x, f, case.weights, eps=2.0**-23, rtol=case.rtol), abs=1e-5)


@one
@pytest.mark.parametrize("head_bias", [True, False])
@pytest.mark.parametrize(("reference", "power"), [("balanced", 0.5), ("outputs", 0.0)])
def test_other_references_match(case, reference, power, head_bias):
    options = {"rtol": case.rtol, "head_bias": head_bias}
    value = low_rank_measure(case.features, case.outputs, weights=case.weights, reference=reference, **options)
    expected = d_lr(case.features, case.outputs, case.weights, power=power, **options)
    assert value.item() == pytest.approx(expected, abs=1e-9)


@one
def test_ridge_matches(case):
    value = low_rank_measure(case.features, case.outputs, weights=case.weights, rtol=0.1, ridge=True)
    expected = d_lr(case.features, case.outputs, case.weights, rtol=0.1, ridge=True)
    assert value.item() == pytest.approx(expected, abs=1e-9)


class TestClosedForms:
    def test_orthonormal_centred_features_as_outputs_give_zero(self):
        x = orthonormal(100, 6, centred=True)
        assert low_rank_measure(x, x).item() == pytest.approx(0, abs=1e-12)

    def test_one_function_is_zero_however_far_the_first_rows_lie(self):
        """In float32, with first rows that are no guide to the mean, rounding may pass below zero, and is no fault."""
        t = torch.randn(1024 * 600, 1, generator=torch.Generator().manual_seed(8)) * 0.01 + 1
        t[:1024] = 0
        for v in torch.randn(4, 1, 4, generator=torch.Generator().manual_seed(9)):
            assert low_rank_measure(t * v, t * v[:, :1]).item() == pytest.approx(0, abs=1e-4)

    def test_one_hot_outputs_with_turned_features_give_zero(self):
        outputs = torch.nn.functional.one_hot(torch.arange(60) % 6).double()
        rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
        assert low_rank_measure(outputs @ rotation, outputs).item() == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize(("p", "r"), [(4, 1), (20, 5), (64, 10), (30, 30)])
    def test_isotropic_features_give_one_minus_root_r_over_p(self, p, r):
        x = orthonormal(200, p, centred=True)
        assert low_rank_measure(x, x[:, :r]).item() == pytest.approx(1 - math.sqrt(r / p), abs=1e-12)
        assert low_rank_estimate(x, x[:, :r]).isotropic == pytest.approx(1 - math.sqrt(r / p), abs=1e-12)

    def test_isotropic_reference_uses_the_centred_rank(self):
        x = orthonormal(200, 16, centred=True)
        outputs = torch.cat([x[:, :4], torch.ones(200, 1, dtype=torch.float64)], dim=1)  # the span holds 1
        estimate = low_rank_estimate(x, outputs)
        assert estimate.rank == 5
        assert estimate.isotropic == pytest.approx(1 - math.sqrt(4 / 16), abs=1e-12)
        assert estimate.value == pytest.approx(1 - math.sqrt(4 / 16), abs=1e-12)

    def test_unrelated_outputs_give_one(self):
        x = orthonormal(200, 8, centred=True)
        assert low_rank_measure(x[:, :5], x[:, 5:]).item() == pytest.approx(1, abs=1e-12)

    def test_isotropic_reference_counts_directions_by_default(self):
        x = orthonormal(200, 16, centred=True)
        gram = Gram()
        gram.update(x, x[:, :2] * torch.tensor([3.0, 1.0], dtype=torch.float64))
        span = span_of(gram, "outputs")
        assert isotropic_reference(span, 16) == pytest.approx(1 - math.sqrt(2 / 16), abs=1e-12)
        assert isotropic_reference(span, 16, 0.0) == pytest.approx(1 - 10 / (4 * math.sqrt(82)), abs=1e-12)

    @pytest.mark.parametrize("tail", [0.0, 0.3, 1.0, 5.0])
    def test_two_block_spectrum(self, tail):
        """r directions of strength 1 that the outputs use and p - r of strength t: 1 - sqrt(r/(r + (p-r)t²))."""
        r, p = 5, 25
        x = orthonormal(200, p, centred=True) * torch.tensor([1.0] * r + [tail] * (p - r), dtype=torch.float64).sqrt()
        assert low_rank_measure(x, x[:, :r]).item() == pytest.approx(1 - math.sqrt(r / (r + (p - r) * tail**2)), abs=1e-12)

    @pytest.mark.parametrize("mean", [0.0, 0.5, 2.0, 30.0])
    def test_an_output_with_a_mean_spans_less_of_the_centred_space(self, mean):
        """Outputs (g₁ + m, g₂): QP_ĤQ has eigenvalues 1 and 1/(1 + m²) on isotropic features."""
        x = orthonormal(100, 2, centred=True)
        a = 1 / (1 + mean**2)
        value = low_rank_measure(x, x + torch.tensor([mean, 0.0], dtype=torch.float64))
        assert value.item() == pytest.approx(1 - (1 + a) / (math.sqrt(2) * math.sqrt(1 + a**2)), abs=1e-12)

    def test_references_on_anisotropic_outputs(self):
        """Features with covariance diag(s) and outputs with singular values s: balanced is exact, the others are not."""
        s = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
        x = orthonormal(100, 3, centred=True)
        features, outputs = x * s.sqrt(), x * s
        assert low_rank_measure(features, outputs, reference="balanced").item() == pytest.approx(0, abs=1e-12)
        projection = 1 - s.sum() / (s.norm() * math.sqrt(3))
        assert low_rank_measure(features, outputs).item() == pytest.approx(projection.item(), abs=1e-12)
        kernel = 1 - (s**3).sum() / (s.norm() * (s**2).norm())
        assert low_rank_measure(features, outputs, reference="outputs").item() == pytest.approx(kernel.item(), abs=1e-12)

    @pytest.mark.parametrize("bias", [0.0, 3.0, -7.0])
    def test_minimum_norm_features_behind_a_head_bias(self, bias):
        """f = ΦWᵀ + b with ‖Φ‖² + ‖W‖² least: ΦΦᵀ = (F_cF_cᵀ)^½, whatever the bias; without a bias ΦΦᵀ = (FFᵀ)^½."""
        g = torch.Generator().manual_seed(0)
        centred = torch.randn(200, 4, generator=g, dtype=torch.float64) * torch.tensor([5.0, 2.0, 1.0, 0.5])
        centred = centred - centred.mean(0)
        outputs = centred + bias * torch.tensor([1.0, 1.0, 0.3, -0.2], dtype=torch.float64)
        for free, functions in ((True, centred), (False, outputs)):
            u, s, _ = torch.linalg.svd(functions, full_matrices=False)
            features = u * s.sqrt() @ torch.linalg.qr(torch.randn(9, 4, generator=g, dtype=torch.float64)).Q.T
            estimate = low_rank_estimate(features, outputs, reference="balanced", head_bias=free)
            assert estimate.value == pytest.approx(0, abs=1e-9)
            assert low_rank_measure(features, outputs, reference="balanced", head_bias=free).item() == estimate.value
            other = low_rank_measure(features, outputs, reference="balanced", head_bias=not free).item()
            assert (other > 0.005) == (bias != 0)

    @pytest.mark.parametrize("bias", [0.0, 3.0, -7.0])
    def test_a_gram_carries_the_flag(self, bias):
        """Three orthonormal functions as features and as outputs, W = I: 0 with a head bias; without one, the constant counts."""
        x = orthonormal(100, 3, centred=True)
        for free in (True, False):
            gram = Gram(head_bias=free)
            gram.update(x, x + bias)
            value = low_rank_measure(gram, reference="balanced").item()
            assert value == pytest.approx(d_lr(x, x + bias, power=0.5, head_bias=free), abs=1e-9)
            assert (value > 0.05) == (bias != 0 and not free)
            assert value == low_rank_measure(Gram.from_tensors(gram.tensors()), reference="balanced").item()
        other = Gram()
        other.update(x, x)
        with pytest.raises(TypeError, match=r"build it by Gram\(head_bias=False\)"):
            low_rank_measure(other, reference="balanced", head_bias=False)
        with pytest.raises(DataError, match="a head with a bias into that of a head without"):
            gram.merge(other)

    def test_the_share_of_the_constant_function(self):
        """Of outputs (g₁ + m, g₂) the span is that of (g₁ + m)/√(1 + m²) and g₂: it holds m²/(1 + m²) of the constant."""
        x = orthonormal(100, 2, centred=True)
        for mean in (0.0, 1.0, 7.0):
            estimate = low_rank_estimate(x, x + torch.tensor([mean, 0.0], dtype=torch.float64))
            assert estimate.constant_share == pytest.approx(mean**2 / (1 + mean**2), abs=1e-12)

    def test_references_agree_on_isotropic_outputs(self):
        x = orthonormal(100, 12, centred=True) * torch.linspace(1, 3, 12, dtype=torch.float64)
        outputs = orthonormal(100, 12, centred=True)[:, :4] * 7
        values = [low_rank_measure(x, outputs, reference=name).item() for name in ("projection", "balanced", "outputs")]
        assert values == pytest.approx([values[0]] * 3, abs=1e-12)


network = st.fixed_dictionaries(
    {
        "n": st.integers(4, 60),
        "p": st.integers(1, 20),
        "c": st.integers(1, 6),
        "seed": st.integers(0, 10**6),
    }
)


def drawn(shape, *, isotropic=False):
    g = torch.Generator().manual_seed(shape["seed"])
    x = torch.randn(shape["n"], shape["p"], generator=g, dtype=torch.float64)
    if not isotropic:
        x = x * torch.rand(shape["p"], generator=g, dtype=torch.float64).add(0.05)
    w = torch.randn(shape["p"], shape["c"], generator=g, dtype=torch.float64)
    f = x @ w + torch.randn(shape["n"], shape["c"], generator=g, dtype=torch.float64) + 0.3
    return x, f, g


class TestInvariances:
    @given(network, st.floats(1e-6, 1e6), st.floats(-100, 100))
    @settings(deadline=None, max_examples=60)
    def test_scale_and_shift_of_features(self, shape, scale, shift):
        x, f, g = drawn(shape)
        moved = scale * (x + shift * torch.randn(shape["p"], generator=g, dtype=torch.float64))
        assert_close(low_rank_measure(moved, f), low_rank_measure(x, f), rtol=0, atol=1e-8)

    @given(network)
    @settings(deadline=None, max_examples=60)
    def test_orthogonal_maps_of_features(self, shape):
        x, f, g = drawn(shape)
        rotation = torch.linalg.qr(torch.randn(shape["p"], shape["p"], generator=g, dtype=torch.float64)).Q
        assert_close(low_rank_measure(x @ rotation, f), low_rank_measure(x, f), rtol=0, atol=1e-10)

    @given(network)
    @settings(deadline=None, max_examples=60)
    def test_invertible_maps_of_outputs(self, shape):
        x, f, g = drawn(shape)
        mix = torch.linalg.qr(torch.randn(shape["c"], shape["c"], generator=g, dtype=torch.float64)).Q
        mix = mix * torch.rand(shape["c"], generator=g, dtype=torch.float64).add(0.1)
        assert_close(low_rank_measure(x, f @ mix), low_rank_measure(x, f), rtol=0, atol=1e-9)

    @given(network, st.floats(-50, 50))
    @settings(deadline=None, max_examples=60)
    def test_constants_added_to_outputs_when_the_span_holds_one(self, shape, constant):
        x, f, _ = drawn(shape)
        f = torch.cat([f, torch.ones(shape["n"], 1, dtype=torch.float64)], dim=1)
        shifted = f.clone()
        shifted[:, :-1] += constant
        assert_close(low_rank_measure(x, shifted), low_rank_measure(x, f), rtol=0, atol=1e-8)

    @given(network)
    @settings(deadline=None, max_examples=60)
    def test_between_zero_and_one_and_order_free(self, shape):
        x, f, g = drawn(shape)
        value = low_rank_measure(x, f)
        assert 0 <= value <= 1
        order = torch.randperm(shape["n"], generator=g)
        rounding = 1e-13 * torch.linalg.cond(f.double()).square().item()  # B⁺ magnifies by cond(B)
        assert_close(low_rank_measure(x[order], f[order]), value, rtol=0, atol=1e-12 + rounding)

    @given(network)
    @settings(deadline=None, max_examples=40)
    def test_whole_weights_are_repetitions(self, shape):
        x, f, g = drawn(shape)
        times = torch.randint(1, 4, (shape["n"],), generator=g)
        repeated = low_rank_measure(x.repeat_interleave(times, 0), f.repeat_interleave(times, 0))
        assert_close(low_rank_measure(x, f, weights=times.double()), repeated, rtol=0, atol=1e-10)


class TestRank:
    """Peers' mistake 2: the rank taken with the accumulator's precision, not the activations'."""

    @pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")  # beside a mean of 1,000, rtol = 0.1 leaves little
    @pytest.mark.parametrize("offset", [0.0, 1.0, 30.0, 1000.0])
    @pytest.mark.parametrize("n", [500, 5000])
    def test_logits_that_sum_to_zero_have_one_rank_less(self, offset, n):
        g = torch.Generator().manual_seed(3)
        x = torch.randn(n, 64, generator=g)
        logits = x @ torch.randn(64, 10, generator=g) + offset * torch.randn(10, generator=g)
        logits = logits - logits.mean(1, keepdim=True)  # in float32, so the sum is zero but for rounding
        estimate = low_rank_estimate(x, logits)
        assert estimate.rank == 9

    @pytest.mark.parametrize(
        ("dtype", "cut"),
        [
            (torch.float64, 1e-7),  # of products: the root of their own rounding
            (torch.float32, 50 * 2.0**-23 / math.sqrt(2)),  # of the two outputs' root mean square
            (torch.float16, 4 * 2.0**-10 / math.sqrt(2)),
            (torch.bfloat16, 4 * 2.0**-7 / math.sqrt(2)),
        ],
    )
    def test_where_the_default_cut_lies(self, dtype, cut):
        """Of two outputs the second is a little stronger than the cut, or a little weaker."""
        signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64).repeat(3, 1)
        for strength, rank in ((1.15 * cut, 2), (0.85 * cut, 1)):
            gram = Gram()
            gram.update(signs.to(dtype), (signs * torch.tensor([1, strength], dtype=torch.float64)).to(dtype))
            assert span_of(gram, "outputs").rank == rank

    def test_the_cut_follows_the_root_mean_square_of_all_outputs(self):
        """Strengths 1, 1/4 and next to nothing: a root mean square of sqrt((1 + 1/16)/3)."""
        signs = torch.tensor([[a, b, c] for a in (1.0, -1) for b in (1.0, -1) for c in (1.0, -1)])
        cut = 50 * 2.0**-23 * math.sqrt((1 + 1 / 16) / 3)
        for strength, rank in ((1.05 * cut, 3), (0.95 * cut, 2)):
            gram = Gram()
            gram.update(signs, signs * torch.tensor([1, 0.25, strength]))
            assert span_of(gram, "outputs").rank == rank

    @pytest.mark.parametrize("rtol", [0.0, 1e-9, 0.1])
    def test_where_a_given_cut_lies(self, rtol):
        """Relative to the largest, and never under what float64 products can tell from rounding."""
        signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
        cut = max(rtol, 1e-7)
        for strength, rank in ((1.15 * cut, 2), (0.85 * cut, 1)):
            gram = Gram()
            gram.update(signs, 5 * signs * torch.tensor([1, strength], dtype=torch.float64))
            assert span_of(gram, "outputs", rtol).rank == rank

    def test_compressed_outputs_are_judged_by_the_number_that_they_stand_for(self):
        """The root mean square of 200 outputs is a tenth of that of the two that they were brought to."""
        signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
        outputs = (signs * torch.tensor([1, 1e-6], dtype=torch.float64)).float()
        for count, rank in ((None, 1), (200, 2)):
            gram = Gram(num_outputs=count)
            gram.update(signs.float(), outputs)
            assert span_of(gram, "outputs").rank == rank

    @pytest.mark.parametrize(("p", "weak", "warns"), [(100, 5e-4, True), (100, 0.05, True), (324, 5e-4, False)])
    def test_a_band_may_disagree_by_two_hundredths(self, p, weak, warns):
        """1 - sqrt(4/p) against 1 - sqrt(3/p): 0.027 and 0.015; at every cut, or at the highest alone."""
        x = orthonormal(400, p, centred=True)
        outputs = x[:, :4] * torch.tensor([1, 1, 1, weak], dtype=torch.float64)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimate = low_rank_estimate(x, outputs)
        assert [w.category for w in caught] == [RankWarning] * warns
        assert all(w.filename == __file__ for w in caught)  # it points to who asked
        assert (estimate.warning is not None) == warns

    def test_weak_outputs_are_kept_and_the_band_warns(self):
        x = orthonormal(400, 20, centred=True)
        outputs = x[:, :4] * torch.tensor([1.0, 1.0, 5e-3, 5e-4], dtype=torch.float64)
        with pytest.warns(RankWarning, match="depends on weak output directions"):
            estimate = low_rank_estimate(x, outputs)
        assert estimate.rank == 4
        expected = {1e-3: 1 - math.sqrt(3 / 20), 1e-2: 1 - math.sqrt(2 / 20), 1e-1: 1 - math.sqrt(2 / 20)}
        assert estimate.band == pytest.approx(expected, abs=1e-12)
        assert estimate.warning is not None
        assert "D_LR = 0.553 depends" in estimate.warning
        assert "directions: 0.613 at rtol 0.001, 0.684 at rtol 0.01, 0.684 at rtol 0.1. Report" in estimate.warning

    def test_a_band_that_agrees_is_silent(self):
        x = orthonormal(400, 20, centred=True)
        assert low_rank_estimate(x, x[:, :4]).warning is None  # a warning would be an error here


class TestCorrection:
    """True values follow from the population: covariance diag(λ), outputs the first C features plus a mean."""

    @pytest.mark.parametrize("heavy", [False, True])
    @pytest.mark.parametrize("n", [64, 128, 512])
    def test_bias_is_removed_and_the_error_is_right(self, n, heavy):
        p, c, tail = 128, 4, 0.12
        scale = torch.cat([torch.ones(c), torch.full((p - c,), tail)]).double()
        truth = 1 - math.sqrt(c / (c + (p - c) * tail**4))
        g = torch.Generator().manual_seed(n + heavy)
        plug_in, corrected, inside, errors = [], [], 0, []
        for _ in range(100):
            x = torch.randn(n, p, generator=g, dtype=torch.float64) * scale
            if heavy:  # elliptical with Student tails of 10 degrees of freedom
                chi = torch.randn(n, 10, generator=g, dtype=torch.float64).square().mean(1, keepdim=True)
                x = x / chi.sqrt() * math.sqrt(0.8)
            estimate = low_rank_estimate(x, x[:, :c])
            plug_in.append(estimate.value)
            if estimate.interval is not None:
                corrected.append(estimate.corrected)
                errors.append(estimate.stderr)
                inside += estimate.interval[0] < truth < estimate.interval[1]
        assert len(corrected) >= 97  # the others say why there is no error
        bias = sum(corrected) / len(corrected) - truth
        assert abs(bias) < 0.004
        assert sum(plug_in) / 100 - truth > 3 * abs(bias)
        assert inside >= 85  # of 100; the benchmark has the full table
        spread = torch.tensor(corrected).std().item()
        assert 0.75 < sum(errors) / len(errors) / spread < 1.5

    @pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")
    @pytest.mark.parametrize("head_bias", [True, False])
    @pytest.mark.parametrize(("reference", "power"), [("projection", 1.0), ("balanced", 0.5), ("outputs", 0.0)])
    def test_the_closed_form_is_the_delete_one_jackknife(self, reference, power, head_bias):
        """Against a loop that leaves each sample out in turn and measures again."""
        g = torch.Generator().manual_seed(0)
        n, p, c = 40, 12, 3
        x = torch.randn(n, p, generator=g, dtype=torch.float64) * torch.linspace(1, 0.2, p, dtype=torch.float64) + 3
        f = (
            x[:, :c] @ torch.randn(c, c, generator=g, dtype=torch.float64)
            + torch.randn(n, c, generator=g, dtype=torch.float64) * 0.1
        )

        def kept(x, f):  # 1 - D_LR with the unbiased norm, straight from the definitions
            n = len(x)
            xc, fc = x - x.mean(0), f - f.mean(0)
            b, a = (fc.T @ fc if head_bias and power == 0.5 else f.T @ f) / n, xc.T @ fc / n
            values, vectors = torch.linalg.eigh(b)
            inverse = vectors * values**-power @ vectors.T  # B^{-γ}
            m = inverse @ (fc.T @ fc / n)
            return torch.trace(inverse @ a.T @ a), (m @ m).trace()

        everything = kept(x, f)
        # Himeno & Yamada by the definition with unbiased covariance
        s = (x - x.mean(0)).T @ (x - x.mean(0)) / (n - 1)
        q = (x - x.mean(0)).square().sum(1).square().sum() / (n - 1)
        norm2 = (n - 1) / (n * (n - 2) * (n - 3)) * ((n - 1) * (n - 2) * (s @ s).trace() + s.trace() ** 2 - n * q)
        inner = ((x - x.mean(0)) @ (x - x.mean(0)).T).square()
        theta = everything[0] / (norm2 * everything[1]).sqrt()
        leave_out, first = [], []
        for i in range(n):
            keep = torch.arange(n) != i
            numerator, flat = kept(x[keep], f[keep])
            closeness = (inner[i].sum() - inner[i, i]) / (n - 1)
            norm2_out = norm2 + 2 / (n - 2) * (norm2 - closeness)
            leave_out.append(numerator / (norm2_out * flat).sqrt())
            first.append(closeness)
        leave_out = torch.stack(leave_out)
        estimate = low_rank_estimate(x, f, reference=reference, head_bias=head_bias)
        spread = ((n - 1) / n * (leave_out - leave_out.mean()).square().sum()).sqrt().item()
        assert spread / math.sqrt(2) <= estimate.stderr * (1 + 1e-9)  # at most half is counted twice
        assert estimate.stderr < spread
        # the linear term of the norm does not average to zero exactly: 1/t · mean(closeness - t)
        drift = theta * (torch.stack(first).mean() - norm2) / norm2
        bias = (n - 1) * (leave_out.mean() - theta) - drift * n / (n - 2)
        assert estimate.corrected == pytest.approx((1 - theta + bias).item(), rel=1e-6 if power != 0.5 else 1e-4)

    @pytest.mark.parametrize(("power", "head_bias"), [(1.0, False), (0.5, False), (0.5, True), (0.0, False)])
    def test_the_pair_term_is_the_second_derivative(self, power, head_bias):
        """½ Σ w⁴ψ² with ψ from autograd: the mixed second derivatives of the numerator and of ‖S_c‖² in the samples' weights."""
        g = torch.Generator().manual_seed(0)
        n, p, c = 12, 5, 2
        x = torch.randn(n, p, generator=g, dtype=torch.float64)
        f = torch.randn(n, c, generator=g, dtype=torch.float64) + 1

        def moments(extra):
            w = (1 - extra.sum()) / n + extra
            xc, fc = x - w @ x, f - w @ f
            a, b = (xc.T * w) @ fc, (fc.T * w) @ fc if head_bias else (f.T * w) @ f
            values, vectors = torch.linalg.eigh(b)
            return (values**-power * (a @ vectors).square().sum(0)).sum(), ((xc.T * w) @ xc).square().sum()

        zero = torch.zeros(n, dtype=torch.float64)
        numerator, norm2 = moments(zero)
        second = [torch.autograd.functional.hessian(lambda e, k=k: moments(e)[k], zero) for k in (0, 1)]
        pairs = second[0] / numerator - second[1] / norm2 / 2
        off = ~torch.eye(n, dtype=torch.bool)
        expected = 0.5 * (pairs[off] - pairs[off].mean()).square().sum() / n**4

        gram = Gram()
        gram.update(x, f)
        xc = gram.retained().blocks["features"]
        along = xc @ gram.block("features", "features", centered=True)
        pairs = jackknife.norm_pairs(xc @ xc.T, along @ xc.T, (along * xc).sum(1), norm2)  # the derivatives are of the plug-in
        sample, span = replace(jackknife._sampled(gram), pairs=pairs), directions_of(gram, "outputs", centred=head_bias).span()
        rows = jackknife._rows(sample, span, jackknife._functions(sample, span), most=1024)
        found = jackknife._second_order_variance(rows, power)
        assert_close(found, expected, rtol=2e-3 if power == 0.5 else 1e-9, atol=0)  # a coarse quadrature stands for B^{-1/2}

    def test_the_interval_uses_students_quantile(self):
        for freedom, quantile in ((3.0, 3.182446), (5.0, 2.570582), (10.0, 2.228139), (30.0, 2.042272), (1e9, 1.959964)):
            low, high = jackknife.Jackknife(0.5, 0.1, freedom).interval
            assert high - 0.5 == pytest.approx(0.1 * quantile, rel=0.01)
            assert 0.5 - low == pytest.approx(high - 0.5)

    def test_a_subset_of_rows_gives_nearly_the_same(self):
        g = torch.Generator().manual_seed(1)
        x = torch.randn(8000, 64, generator=g) * torch.linspace(1, 0.1, 64)
        whole = low_rank_estimate(x, x[:, :5], retain=8000)
        part = low_rank_estimate(x, x[:, :5], retain=1000)
        assert part.value == whole.value
        assert abs(part.corrected - whole.corrected) < 0.2 * whole.stderr
        assert part.stderr == pytest.approx(whole.stderr, rel=0.1)

    def test_equal_weights_change_nothing(self):
        g = torch.Generator().manual_seed(2)
        x = torch.randn(300, 20, generator=g, dtype=torch.float64)
        plain = low_rank_estimate(x, x[:, :3])
        weighted = low_rank_estimate(x, x[:, :3], weights=torch.full((300,), 2.5))
        assert weighted.corrected == pytest.approx(plain.corrected, abs=1e-10)
        assert weighted.stderr == pytest.approx(plain.stderr, abs=1e-10)

    def test_weights_correct_towards_the_weighted_population(self):
        """Two groups of unlike strength, one drawn four times too often and weighed down by a quarter."""
        p, c = 32, 3
        scale = [torch.linspace(1, 0.1, p, dtype=torch.float64), torch.linspace(2, 0.3, p, dtype=torch.float64)]
        covariance = (scale[0] ** 2 + scale[1] ** 2) / 2
        truth = 1 - covariance[:c].sum() / (covariance.norm() * math.sqrt(c))
        g = torch.Generator().manual_seed(4)
        errors, inside = [], 0
        for _ in range(100):
            parts = [torch.randn(n, p, generator=g, dtype=torch.float64) * s for n, s in zip((400, 100), scale, strict=True)]
            x = torch.cat(parts)
            weights = torch.cat([torch.full((400,), 0.25), torch.ones(100)])
            estimate = low_rank_estimate(x, x[:, :c], weights=weights)
            errors.append(estimate.corrected - truth.item())
            inside += abs(errors[-1]) < 1.96 * estimate.stderr
        assert abs(sum(errors) / 100) < 0.004
        assert inside >= 85

    def test_too_few_samples_have_no_error_bar(self):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(5))
        estimate = low_rank_estimate(x, x[:, :1])
        assert estimate.corrected is None
        assert estimate.stderr is None


class TestGauge:
    """Softmax does not see one function that is added to all outputs."""

    @pytest.mark.parametrize("reference", ["projection", "balanced", "outputs"])
    def test_a_common_function_changes_nothing(self, reference):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(300, 20, generator=g, dtype=torch.float64) * torch.linspace(1, 0.2, 20)
        f = x[:, :5] @ torch.randn(5, 4, generator=g, dtype=torch.float64) + torch.randn(300, 4, generator=g, dtype=torch.float64)
        moved = f + 3 * torch.tanh(x[:, 5:6]) + 1
        expected = low_rank_estimate(x, f - f.mean(1, keepdim=True), reference=reference)
        for outputs in (f, moved):
            found = low_rank_estimate(x, outputs, reference=reference, gauge="softmax")
            assert found.value == pytest.approx(expected.value, abs=1e-10)
            assert found.corrected == pytest.approx(expected.corrected, abs=1e-8)
            assert found.stderr == pytest.approx(expected.stderr, rel=1e-6)
            assert found.rank == expected.rank == 3
        assert low_rank_measure(x, moved, gauge="softmax", reference=reference) == pytest.approx(expected.value, abs=1e-10)
        assert abs(float(low_rank_measure(x, moved, reference=reference)) - expected.value) > 0.01

    def test_errors(self):
        x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
        with pytest.raises(ValueError, match="gauge must be 'softmax' or None, got 'class'"):
            low_rank_measure(x, x, gauge="class")
        gram = Gram(num_outputs=5000)
        gram.update(x, x)
        with pytest.raises(DataError, match="the mean over 5,000 outputs is not known"):
            low_rank_measure(gram, gauge="softmax")


class TestResult:
    signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)

    def test_reads_as_text(self):
        """Isotropic features: 1 - sqrt(2/3), and four samples have no error bar."""
        assert str(low_rank_estimate(self.signs, self.signs[:, :2])) == "D_LR 0.1835, rank 2, isotropic 0.184, n = 4"
        estimate = LowRankEstimate(0.5, 0.25, 0.125, (0.0, 0.5), 3, {}, 0.75, (1.0,), 12_000, None)
        assert str(estimate) == "D_LR 0.5000 (corrected 0.2500 ± 0.1250), rank 3, isotropic 0.750, n = 12,000"

    def test_plain_values(self):
        value = 1 - math.sqrt(2 / 3)
        estimate = low_rank_estimate(self.signs, self.signs[:, :2])
        assert estimate.value == pytest.approx(value, abs=1e-12)
        assert estimate.band == pytest.approx({0.001: value, 0.01: value, 0.1: value}, abs=1e-12)
        assert estimate.singular_values == pytest.approx([1, 1])
        assert (estimate.rank, estimate.num_samples, estimate.stderr, estimate.interval) == (2, 4, None, None)

    def test_a_value_outside_is_a_fault_and_no_result(self):
        gram = Gram()
        gram.update(self.signs, self.signs)
        part, span = _features_of(gram), span_of(gram, "outputs")
        assert float(_measure(part, span, 1.0)) == pytest.approx(0, abs=1e-12)
        with pytest.raises(ArithmeticError, match=r"D_LR = -1\.0\d* lies outside"):
            _measure(replace(part, norm=part.norm / 2), span, 1.0)

    def test_a_sample_that_alone_carries_a_direction_leaves_no_error_bar(self):
        """Without it the second output is constant, so that there is nothing to leave out."""
        x = orthonormal(40, 6, centred=True)
        alone = torch.zeros(40, 1, dtype=torch.float64)
        alone[7] = 1.0
        estimate = low_rank_estimate(x, torch.cat([x[:, :1], alone], dim=1))
        assert estimate.rank == 2
        assert (estimate.corrected, estimate.stderr, estimate.interval) == (None, None, None)


class TestErrors:
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))

    @pytest.mark.parametrize(
        ("features", "outputs", "error", "match"),
        [
            (x, x[:19], DataError, "outputs must have shape .*n = 20"),
            (x[:1], x[:1], DataError, "at least 2 samples .* got 1"),
            (x[:0], x[:0], DataError, "at least 2 samples .* got 0"),
            (x, None, DataError, "needs outputs"),
            (torch.ones(20, 4), x, DegenerateError, "features are constant"),
            (torch.full((20, 4), 1000.1), x, DegenerateError, "features are constant"),
            (x, torch.full((20, 2), 3.3), DegenerateError, "outputs are constant"),
            (x, torch.zeros(20, 2), DegenerateError, "outputs are constant"),
            (
                x.masked_fill(x > 2, float("nan")).index_fill(0, torch.tensor(7), float("inf")),
                x,
                NonFiniteError,
                r"features .*batch 0 \(row 7 of 20",
            ),
            (x, x.index_fill(0, torch.tensor(3), float("nan")), NonFiniteError, r"outputs .*batch 0 \(row 3"),
            (x.long(), x, TypeError, "floating point, got torch.int64"),
            (x.to(torch.complex64), x, TypeError, "floating point, got torch.complex64"),
            (x.tolist(), x, TypeError, "features must be a tensor or an array, got list"),
            (x.reshape(5, 4, 4), x, DataError, r"features must have shape \(n, width\)"),
        ],
    )
    def test_bad_tensors(self, features, outputs, error, match):
        with pytest.raises(error, match=match):
            low_rank_measure(features, outputs)

    @pytest.mark.parametrize(
        ("arguments", "error", "match"),
        [
            ({"weights": torch.ones(3)}, DataError, r"weights must have shape \(20,\)"),
            ({"weights": -torch.ones(20)}, DataError, "not negative"),
            ({"weights": torch.zeros(20)}, DataError, "at least 2 samples"),
            ({"rtol": 1.0}, ValueError, "rtol .* got 1.0"),
            ({"rtol": -0.5}, ValueError, "rtol .* got -0.5"),
            ({"ridge": True}, ValueError, "ridge=True needs rtol"),
            ({"reference": "identity"}, ValueError, "one of projection, balanced, outputs, got 'identity'"),
        ],
    )
    def test_bad_arguments(self, arguments, error, match):
        with pytest.raises(error, match=match):
            low_rank_measure(self.x, self.x, **arguments)

    def test_dead_features_and_no_outputs(self):
        with pytest.raises(DegenerateError, match=r"features are constant over the samples \(dead\)"):
            low_rank_measure(torch.zeros(20, 4), self.x)
        with pytest.raises(DataError, match="this measure needs outputs"):
            low_rank_estimate(self.x)

    def test_scales_whose_powers_vanish(self):
        """Fourth powers of 10⁻⁶¹ are little more than nothing; a column as small as that does no harm beside others."""
        x, expected = self.x.double(), low_rank_measure(self.x.double(), self.x[:, :2].double()).item()
        assert low_rank_measure(x * 1e-59, x[:, :2] * 1e-59).item() == pytest.approx(expected, abs=1e-12)
        with pytest.raises(DataError, match=r"features vary by \d\.\de-61, so powers of them underflow"):
            low_rank_measure(x * 2e-61, x[:, :2])
        tiny = torch.cat([x, 1e-65 * x[:, :1]], dim=1)
        assert low_rank_measure(tiny, x[:, :2]).item() == pytest.approx(expected, abs=1e-12)

    def test_gram_and_tensors_together(self):
        gram = Gram()
        gram.update(self.x, self.x)
        with pytest.raises(TypeError, match="pass the Gram alone"):
            low_rank_measure(gram, self.x)

    def test_negative_retain(self):
        with pytest.raises(ValueError, match="retain .* got retain=-1"):
            Gram(retain=-1)


class TestLargeMean:
    """Two outputs of standard deviation 0.5 in float32 around a mean: 0.5 is 41 eps·rms at 1e5, where the cut is at 50."""

    @staticmethod
    def samples(mean):
        x = torch.randn(2000, 20, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 21) ** -0.5
        return x, x[:, :2] / x[:, :2].std(0) / 2 + mean

    @pytest.mark.parametrize("mean", [1e5, 2e5, 5e5])
    def test_a_direction_under_it_is_no_silent_loss(self, mean):
        x, f = self.samples(mean)
        with pytest.warns(RankWarning, match=r"the outputs have a mean of up to .* output directions with singular values 0\.49"):
            assert low_rank_estimate(x, f).rank == 1
        with pytest.warns(RankWarning, match="are left out, because rounding"):
            low_rank_measure(x, f)
        kept = low_rank_measure(x, f, rtol=1e-7).item()
        assert kept == pytest.approx(d_lr(x, f.double() - mean + 100, rtol=1e-7), abs=0.01)  # but for the rounding of f

    @pytest.mark.parametrize("mean", [0.0, 1.0, 1e3, 5e4])
    @pytest.mark.parametrize("sum_to_zero", [False, True])
    def test_no_word_without_need(self, mean, sum_to_zero):
        x, f = self.samples(mean)
        if sum_to_zero:
            f = f - f.mean(1, keepdim=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            low_rank_measure(x, f)
        assert not caught


def test_features_of_two_values_whose_rounding_adds_up():
    """One direction for the features and the outputs alike: D_LR = 0, and 6.6e-6 below it before rounding is allowed for."""
    generator = torch.Generator().manual_seed(135)
    on = (torch.rand(1000, 1, generator=generator) < 0.1).float()
    features = on @ torch.rand(1, 8, generator=generator) + 0.2
    assert low_rank_measure(features, features @ torch.rand(8, 3, generator=generator)).item() == 0.0
