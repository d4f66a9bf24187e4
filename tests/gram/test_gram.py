import copy
import io
import math
import pickle
import re
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peak_memory import printed, reads_peak_memory
from reference import d_lr
from together import Together
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import lazyrich
from lazyrich import DataError, Gram, NonFiniteError
from lazyrich.functional import feature_spectrum, low_rank_estimate, low_rank_measure, rankme
from lazyrich.gram import update_together

N, P, C, T = 2500, 24, 4, 3


def data(n=N, dtype=torch.float64, seed=0, offset=50.0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, P, generator=g, dtype=dtype) * torch.linspace(1, 0.1, P, dtype=dtype) + offset
    f = x @ torch.randn(P, C, generator=g, dtype=dtype)
    t = torch.nn.functional.one_hot(torch.randint(T, (n,), generator=g), T)
    return x, f, t


def filled(x, f, t, sizes, weights=None, **options):
    gram = Gram(**options)
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        gram.update(x[rows], f[rows], t[rows], None if weights is None else weights[rows])
        start += size
    assert start == len(x)
    return gram


def readings(gram):
    blocks = ("features", "outputs", "targets")
    values = {f"{a}·{b}": gram.block(a, b, centered=c) for a in blocks for b in blocks for c in (True, False)}
    values |= {f"mean {name}": gram.mean(name) for name in blocks}
    estimate = low_rank_estimate(gram)
    quartic = gram.fourth_moment() if gram.uniform else 0.0
    numbers = [estimate.value, estimate.corrected, estimate.stderr, quartic, gram.effective_count]
    return values | {"numbers": torch.tensor(numbers, dtype=torch.float64)}


def without_stderr(values):
    """The pairs of rows on which the standard error rests are those of the largest sizes, which each part judges by its own."""
    numbers = values["numbers"]
    return values | {"numbers": numbers[[0, 1, 3, 4]]}


def without_errors(values):
    """The first rows decide by which spread the sizes of all are judged, and so which rows are retained where not all are."""
    return values | {"numbers": values["numbers"][[0, 3, 4]]}


def assert_same(a, b, rtol=1e-12):
    for name, value in a.items():
        assert_close(value, b[name], rtol=rtol, atol=rtol * value.abs().max().item(), msg=lambda m, name=name: f"{name}: {m}")


pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")  # the outputs have a mean far above their spread


@pytest.fixture
def whole():
    return readings(filled(*data(), [N]))


class TestStreaming:
    def test_against_plain_formulas(self):
        x, f, t = data()
        gram = filled(x, f, t, [N])
        assert_close(gram.mean("features"), x.mean(0), rtol=1e-13, atol=0)
        assert_close(gram.block("features", "features", centered=True), torch.cov(x.T, correction=0), rtol=1e-11, atol=1e-13)
        assert_close(gram.block("features", "outputs"), x.T @ f / N, rtol=1e-12, atol=0)
        assert_close(gram.block("targets", "features"), t.double().T @ x / N, rtol=1e-12, atol=0)
        assert_close(gram.block("outputs", "targets", centered=True), (f - f.mean(0)).T @ t.double() / N, rtol=1e-9, atol=1e-10)
        quartic = (x - x.mean(0)).square().sum(1).square().sum().item() / N**2
        assert gram.fourth_moment() == pytest.approx(quartic, rel=1e-10)
        assert gram.count == N
        assert gram.widths == {"features": P, "outputs": C, "targets": T}

    @pytest.mark.parametrize("sizes", [[1] * N, [7] * 357 + [1], [2400, 100], [1, 2498, 1], [1024, 1024, 452], [1023, 2, 1475]])
    def test_batch_sizes_change_no_bit(self, whole, sizes):
        assert_same(readings(filled(*data(), sizes)), whole, rtol=0)

    def test_empty_batches_change_nothing(self, whole):
        assert_same(readings(filled(*data(), [0, 1000, 0, 1500, 0])), whole, rtol=0)

    def test_reading_in_the_middle(self, whole):
        x, f, t = data()
        gram = Gram()
        for rows in torch.arange(N).split(300):
            gram.update(x[rows], f[rows], t[rows])
            gram.mean("features")
        values = readings(gram)
        assert_same(without_errors(values), without_errors(whole))
        assert_close(values["numbers"], whole["numbers"], rtol=0.02, atol=0)

    @pytest.mark.parametrize("cut", [1, 900, 1250, 2499])
    def test_merged_halves(self, cut):
        """All rows retained, so that the corrected value must agree too."""
        x, f, t = data()
        first = filled(x[:cut], f[:cut], t[:cut], [cut], retain=N)
        second = filled(x[cut:], f[cut:], t[cut:], [N - cut], retain=N)
        assert_same(without_stderr(readings(first.merge(second))), without_stderr(readings(filled(x, f, t, [N], retain=N))))

    def test_merge_into_and_with_nothing(self, whole):
        gram = filled(*data(), [N])
        assert_same(readings(Gram().merge(gram)), whole, rtol=0)
        assert_same(readings(gram.merge(Gram())), whole, rtol=0)

    def test_merge_with_itself_is_refused(self):
        gram = filled(*data(), [N])
        with pytest.raises(DataError, match="cannot be merged into itself"):
            gram.merge(gram)
        assert gram.count == N
        assert gram.merge(copy.deepcopy(gram)).count == 2 * N

    def test_merge_then_continue_then_merge_reads_anew(self):
        """Peers' mistake 9: a value read before a merge must not come back after it."""
        x, f, t = data()
        gram = filled(x[:1000], f[:1000], t[:1000], [1000], retain=N)
        before = low_rank_measure(gram)
        gram.merge(filled(x[1000:2000], f[1000:2000], t[1000:2000], [1000], retain=N))
        gram.update(x[2000:], f[2000:], t[2000:])
        assert low_rank_measure(gram) != before
        assert_same(without_stderr(readings(gram)), without_stderr(readings(filled(x, f, t, [N], retain=N))))

    def test_what_was_read_before_a_merge_is_read_anew_after_it(self):
        x, f, t = data()
        first, second = (filled(x[part], f[part], t[part], [1250], retain=N) for part in (slice(1250), slice(1250, N)))
        readings(first)
        readings(second)
        whole = readings(filled(x, f, t, [N], retain=N))
        assert_same(without_stderr(readings(first.merge(second))), without_stderr(whole))

    @pytest.mark.parametrize("cut", [0, 10, 1024, 1500])
    def test_saved_and_resumed(self, whole, cut):
        x, f, t = data()
        gram = filled(x[:cut], f[:cut], t[:cut], [cut]) if cut else Gram()
        file = io.BytesIO()
        torch.save(gram.state_dict(), file)
        file.seek(0)
        resumed = Gram()
        resumed.load_state_dict(torch.load(file, weights_only=True))
        resumed.update(x[cut:], f[cut:], t[cut:])
        assert_same(readings(resumed), whole, rtol=0)

    def test_what_was_asked_for_is_saved_too(self):
        """How many rows are retained, strata and outputs there are: also where nothing was seen yet."""
        x, f, t = data()
        strata = torch.arange(N) % 3
        options = {"retain": 9, "strata": 3, "num_outputs": 70}
        for cut in (0, 1100):
            gram, resumed = Gram(**options), Gram()
            gram.update(x[:cut], f[:cut], t[:cut], strata=strata[:cut])
            resumed.load_state_dict(gram.state_dict())
            assert (resumed.retain, resumed.num_outputs, resumed.count) == (9, 70, cut)
            for each in (gram, resumed):
                each.update(x[cut:], f[cut:], t[cut:], strata=strata[cut:])
            assert torch.equal(resumed.block("features", "outputs"), gram.block("features", "outputs"))
            assert resumed.strata_rows.tolist() == [834.0, 833.0, 833.0]
            for name in ("weights", "strata", "stands_for"):
                assert torch.equal(getattr(resumed.retained(), name), getattr(gram.retained(), name))

    def test_a_state_goes_on_being_written_into(self, whole):
        """The tensors are the state: whoever goes on over them has seen what was written into them."""
        x, f, t = data()
        gram = filled(x[:1500], f[:1500], t[:1500], [1500])
        again = Gram.from_tensors(gram.tensors())
        again.update(x[1500:], f[1500:], t[1500:])
        assert again.count == N
        assert_same(readings(Gram.from_tensors(gram.tensors())), whole, rtol=0)

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda gram: pickle.loads(pickle.dumps(gram))])
    def test_a_copy_shares_no_memory(self, whole, copied):
        x, f, t = data()
        gram = filled(x[:1500], f[:1500], t[:1500], [1500])
        twin = copied(gram)
        twin.update(x[1500:], f[1500:], t[1500:])
        assert (gram.count, twin.count) == (1500, N)
        assert_same(readings(twin), whole, rtol=0)

    def test_saving_shares_no_memory(self):
        x, f, t = data()
        gram = filled(x[:1500], f[:1500], t[:1500], [1500])
        state = gram.state_dict()
        gram.update(x[1500:], f[1500:], t[1500:])
        again = Gram()
        again.load_state_dict(state)
        assert_same(readings(again), readings(filled(x[:1500], f[:1500], t[:1500], [1500])), rtol=0)

    @given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(0, 1000), st.integers(1, 30))
    @settings(deadline=None, max_examples=50)
    def test_any_split_and_any_merge(self, sizes, seed, retain):
        n = sum(sizes)
        if n < 4:
            return
        x, f, t = data(n, seed=seed)
        whole = filled(x, f, t, [n], retain=retain)
        merged = Gram(retain=retain)
        start = 0
        for size in sizes:
            rows = slice(start, start + size)
            merged.merge(filled(x[rows], f[rows], t[rows], [size], retain=retain))
            start += size
        assert merged.count == n
        for name in ("features", "outputs", "targets"):
            expected = whole.block("features", name, centered=True)
            assert_close(merged.block("features", name, centered=True), expected, rtol=1e-9, atol=1e-10)
        assert len(merged.retained().weights) <= min(n, retain)
        assert n > retain or len(merged.retained().weights) == n

    def test_merge_with_rows_of_no_weight(self, whole):
        """What has seen rows, but none that counts."""
        x, f, t = data()
        nothing = filled(x[:9], f[:9], t[:9], [9], torch.zeros(9))
        assert_same(readings(filled(*data(), [N]).merge(nothing)), whole, rtol=0)
        assert_same(readings(filled(x[:9], f[:9], t[:9], [9], torch.zeros(9)).merge(filled(*data(), [N]))), whole, rtol=0)


class TestReduce:
    """What several processes have seen, brought together on each; `test_processes.py` does it with real ones."""

    @staticmethod
    def parts(count, weights=None, dtype=torch.float64, **options):
        x, f, t = data(dtype=dtype)
        w = torch.ones(N) if weights is None else weights
        share = [slice(rank, None, count) for rank in range(count)]
        grams = [Gram(**options) for _ in range(count)]
        for gram, rows in zip(grams, share, strict=True):
            gram.update(x[rows], f[rows], t[rows], None if weights is None else w[rows])
        return grams

    @pytest.mark.parametrize("count", [2, 3])
    def test_is_the_whole_one_error_bars_too(self, whole, count):
        """Nearly the same rows are retained as on one process, because their content decides."""
        for gram in Together(count).reduce(self.parts(count)):
            values = readings(gram)
            assert_same(without_errors(values), without_errors(whole), rtol=1e-11)
            assert values["numbers"][1] == pytest.approx(float(whole["numbers"][1]), abs=0.05 * float(whole["numbers"][2]))
            assert values["numbers"][2] == pytest.approx(float(whole["numbers"][2]), rel=0.01)
            assert gram.count == N
            assert gram.uniform

    def test_weights(self):
        w = torch.rand(N, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        expected = readings(filled(*data(), [N], w, retain=N))
        for gram in Together(2).reduce(self.parts(2, w, retain=N)):
            assert_same(without_stderr(readings(gram)), without_stderr(expected), rtol=1e-11)
            assert not gram.uniform

    def test_one_that_saw_nothing(self, whole):
        (gram,) = self.parts(1)
        for reduced in Together(3).reduce([Gram(), gram, Gram()]):
            assert_same(readings(reduced), whole, rtol=1e-11)
            assert reduced.eps("features") == gram.eps("features")

    def test_single_precision_where_one_saw_nothing(self):
        (gram,) = self.parts(1, dtype=torch.float32)
        first, second = Together(2).reduce([Gram(), gram])
        assert first.product_eps == second.product_eps == torch.finfo(torch.float32).eps
        assert torch.equal(first.block("features", "features"), second.block("features", "features"))

    def test_the_coarsest_precision_counts(self):
        x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        grams = [Gram(), Gram()]
        grams[0].update(x[:20].bfloat16())
        grams[1].update(x[20:])
        for gram in Together(2).reduce(grams):
            assert gram.eps("features") == torch.finfo(torch.bfloat16).eps

    def test_nobody_saw_anything(self):
        for gram in Together(2).reduce([Gram(), Gram()]):
            assert gram.count == 0

    def test_readings_from_before_are_forgotten(self, whole):
        grams = self.parts(2)
        before = grams[0].block("features", "outputs").clone()
        grams = Together(2).reduce(grams)
        assert not torch.equal(grams[0].block("features", "outputs"), before)
        assert_same(without_errors(readings(grams[0])), without_errors(whole), rtol=1e-11)

    def test_and_saved(self, whole):
        """The counts in the state are those of all."""
        again = Gram()
        again.load_state_dict(Together(2).reduce(self.parts(2))[1].state_dict())
        assert_same(without_errors(readings(again)), without_errors(whole), rtol=1e-11)

    def test_what_does_not_fit_ends_all(self):
        x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
        for other, match in ((x[:, :2], r"widths .*'features': 3.* and .*'features': 2"), (x.double(), "dtype of the features")):
            grams = [Gram(), Gram()]
            grams[0].update(x)
            grams[1].update(other)
            for error in Together(2).reduce(grams):
                assert isinstance(error, DataError)
                assert re.search(match, str(error))


class TestWeights:
    def test_against_plain_formulas(self):
        x, f, t = data()
        w = torch.rand(N, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        gram = filled(x, f, t, [100, 2400], w)
        share = w / w.sum()
        mean = share @ x
        assert_close(gram.mean("features"), mean, rtol=1e-12, atol=0)
        xc = x - mean
        assert_close(gram.block("features", "features", centered=True), (xc.T * share) @ xc, rtol=1e-10, atol=1e-12)
        assert gram.effective_count == pytest.approx((1 / share.square().sum()).item())

    def test_the_fourth_moment_is_of_equal_weights_only(self):
        x, f, t = data()
        with pytest.raises(DataError, match="fourth moment of weighted rows"):
            filled(x, f, t, [N], torch.rand(N)).fourth_moment()

    def test_scale_is_free_and_zeros_are_no_samples(self):
        x, f, t = data()
        w = torch.rand(N, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        w[w < 0.5] = 0
        kept = w > 0
        a = readings(filled(x, f, t, [N], w))
        b = readings(filled(x[kept], f[kept], t[kept], [int(kept.sum())], w[kept] * 1e-30))
        assert_same(a | {"numbers": a["numbers"][:3]}, b | {"numbers": b["numbers"][:3]}, rtol=1e-10)
        assert filled(x, f, t, [N], w).count == int(kept.sum())

    def test_weights_of_very_unlike_size_in_single_precision(self):
        x = torch.randn(200, 5, generator=torch.Generator().manual_seed(1)) + 3
        w = torch.rand(200, generator=torch.Generator().manual_seed(9), dtype=torch.float64) * 1e10
        w[::2] *= 1e-40
        gram = Gram()
        gram.update(x, weights=w)
        expected = torch.cov(x.T.double(), correction=0, aweights=w)
        assert_close(gram.block("features", "features", centered=True), expected, rtol=0, atol=1e-5)

    def test_weighted_merge_equals_weighted_whole(self):
        x, f, t = data()
        w = torch.rand(N, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        w[:1200] = 1.0
        plain = filled(x[:1200], f[:1200], t[:1200], [1200], retain=N)
        merged = plain.merge(filled(x[1200:], f[1200:], t[1200:], [1300], w[1200:], retain=N))
        assert_same(without_stderr(readings(merged)), without_stderr(readings(filled(x, f, t, [N], w, retain=N))), rtol=1e-11)


class TestPrecision:
    """Peers' mistakes 1 and 9: offsets, scales and half precision."""

    @pytest.mark.parametrize("offset", [0.0, 10.0, 100.0, 1000.0])
    def test_offsets_in_float32(self, offset):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(3000, 32, generator=g) + offset
        f = (x - offset) @ torch.randn(32, 4, generator=g)
        expected = low_rank_measure(x.double(), f.double()).item()
        assert low_rank_measure(x, f).item() == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("scale", [1e-20, 1e-12, 1.0, 1e12, 1e20])
    def test_scales_in_float32(self, scale):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(3000, 32, generator=g) * torch.linspace(1, 0.1, 32)
        f = x @ torch.randn(32, 4, generator=g)
        plain, scaled = (low_rank_estimate(x * s, f * s, retain=3000) for s in (1.0, scale))
        assert scaled.value == pytest.approx(plain.value, abs=1e-6)
        assert scaled.corrected == pytest.approx(plain.corrected, abs=1e-6)
        assert scaled.stderr == pytest.approx(plain.stderr, rel=2e-3)  # other pairs of rows: which ones, their content decides

    def test_the_first_row_may_be_far_from_the_rest(self):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(3000, 8, generator=g)
        x[0] += 1e4
        f = x @ torch.randn(8, 2, generator=g)
        gram = Gram()
        for row in range(3000):
            gram.update(x[row : row + 1], f[row : row + 1])
        assert low_rank_measure(gram).item() == pytest.approx(low_rank_measure(x.double(), f.double()).item(), abs=1e-5)

    @pytest.mark.parametrize("far", [1024, 1500])
    @pytest.mark.parametrize("weight", [1e-12, 1e-15])
    def test_the_first_rows_may_have_little_weight_and_be_far_from_the_rest(self, far, weight):
        """The pilot is the mean of the first block, unless a later block weighs more than all before it."""
        g = torch.Generator().manual_seed(0)
        x, weights = torch.randn(2500, 30, generator=g) * torch.arange(1, 31) ** -0.5, torch.ones(2500)
        x[:far] += 1e4
        weights[:far] = weight
        f = x.double() @ torch.randn(30, 4, generator=g, dtype=torch.float64)
        gram = Gram()
        for rows in torch.arange(2500).split(700):
            gram.update(x[rows], f[rows], weights=weights[rows])
        assert low_rank_measure(gram).item() == pytest.approx(d_lr(x, f, weights), abs=2e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_summed_in_float32_and_float64(self, dtype):
        g = torch.Generator().manual_seed(0)
        x = (torch.randn(5000, 32, generator=g) + 3).to(dtype)
        f = (x.float() @ torch.randn(32, 4, generator=g)).to(dtype)
        expected = low_rank_measure(x.double(), f.double()).item()
        assert low_rank_measure(x, f).item() == pytest.approx(expected, abs=1e-5)

    def test_autocast_around_the_measure_changes_nothing(self):
        x, f, _ = data(dtype=torch.float32)
        plain = low_rank_measure(x, f)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert low_rank_measure(x, f) == plain

    def test_the_coarsest_precision_seen_counts(self):
        x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        for first, second in ((x, x.bfloat16()), (x.bfloat16(), x)):
            one, other = Gram(), Gram()
            for gram in (one, other):
                gram.update(first[:20], first[:20].double(), torch.ones(20, 2, dtype=torch.long))
            one.update(second[20:], second[20:], torch.ones(20, 2, dtype=torch.long))
            assert one.eps("features") == 2**-7
            assert one.eps("outputs") == torch.finfo(second.dtype).eps
            assert one.eps("targets") == 2**-52  # whole numbers
            assert other.merge(one).eps("features") == 2**-7
            assert one.product_eps == 2**-52  # for the outputs came in double

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_how_much_rounding_the_products_may_hold(self, dtype):
        """The first block, from which the pilot comes, lies at 0, all others at 6 ± 1: 2 · 36 + 2 about it, 2 about the mean."""
        signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=dtype).repeat(2**18, 1)
        x = torch.cat([torch.zeros(1024, 2, dtype=dtype), 6 + signs])
        gram = Gram(retain=0)
        gram.update(x)
        assert gram.feature_rounding == pytest.approx(torch.finfo(dtype).eps * 32 * 37, rel=0.05)

    def test_gradients_are_not_kept(self):
        x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
        value = low_rank_measure(x, x * 2)
        assert not value.requires_grad

    def test_inputs_are_not_written_to(self):
        x, f, t = data()
        copies = x.clone(), f.clone(), t.clone()
        filled(x, f, t, [N])
        assert all(torch.equal(a, b) for a, b in zip((x, f, t), copies, strict=True))

    def test_noncontiguous_input(self):
        x, f, _ = data()
        assert low_rank_measure(x.T.contiguous().T, f[:, ::2]) == low_rank_measure(x, f[:, ::2].contiguous())


class TestSizes:
    """Powers of weights and features that float64 cannot hold are an error by name; everything up to there is the same number."""

    @pytest.mark.parametrize("size", [1e-100, 1e-30, 1e30, 1e99])
    def test_weights_of_any_size_below(self, size):
        x, f, _ = data()
        weights = torch.rand(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        plain, scaled = (low_rank_estimate(x, f, weights=w) for w in (weights, weights * size))
        assert (scaled.value, scaled.corrected, scaled.stderr) == pytest.approx(
            (plain.value, plain.corrected, plain.stderr), rel=1e-9
        )

    @pytest.mark.parametrize(("size", "what"), [(1e-200, "weights sum to .* underflow"), (1e160, "weights reach .* overflow")])
    def test_weights_beyond(self, size, what):
        x, f, _ = data()
        with pytest.raises(DataError, match=what):
            low_rank_measure(x, f, weights=torch.full((N,), size, dtype=torch.float64))

    @pytest.mark.parametrize("size", [1e-90, 1e-170, 1e-300])
    def test_features_beyond(self, size):
        x, f, _ = data(offset=0.0)
        with pytest.raises(DataError, match=r"features (vary by|are of the size) .* underflow; multiply them"):
            low_rank_measure(x * size, f)
        with pytest.raises(DataError, match="underflow") if size < 1e-150 else nullcontext():
            assert rankme(x * size) == pytest.approx(rankme(x), rel=1e-9)


class TestRetained:
    def test_they_stand_for_all_rows(self):
        """Numbers 0 … 19,999, of which 200 are retained: their number, mean and second moment."""
        x = torch.arange(20000, dtype=torch.float64).unsqueeze(1)
        gram = Gram(retain=200)
        for part in x[torch.randperm(20000, generator=torch.Generator().manual_seed(0))].split(333):
            gram.update(part)
        rows = gram.retained()
        numbers = rows.blocks["features"][:, 0] + x.mean()
        assert len(numbers) == len(numbers.unique()) == 200
        assert float(rows.stands_for.sum()) == pytest.approx(20000)
        assert float(rows.stands_for @ numbers) / 20000 == pytest.approx(10000, abs=4 * 20000 / math.sqrt(12 * 200))
        assert float(rows.stands_for @ numbers.square()) / 20000 == pytest.approx(1e8 * 4 / 3, rel=0.2)
        assert_close(rows.weights, torch.full((200,), 1 / 20000, dtype=torch.float64))

    def test_rows_keep_their_outputs(self):
        x = torch.arange(5000, dtype=torch.float64).unsqueeze(1)
        gram = Gram(retain=64)
        gram.update(x, 2 * x, 3 * x)
        blocks = gram.retained().blocks
        features = blocks["features"] + x.mean()
        assert_close(blocks["outputs"], 2 * features)
        assert_close(blocks["targets"], 3 * features)

    def test_as_many_as_there_are(self):
        x = torch.arange(5, dtype=torch.float64).unsqueeze(1)
        gram = Gram(retain=64)
        gram.update(x, weights=torch.tensor([1.0, 2, 3, 4, 0]))
        rows = gram.retained(unit=0.5)
        features = (2 * rows.blocks["features"][:, 0] + 2).round(decimals=9)
        assert dict(zip(features.tolist(), rows.weights.tolist(), strict=True)) == pytest.approx({0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4})
        assert rows.stands_for.tolist() == [1.0] * 4

    def test_large_rows_are_surely_there(self):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(30_000, 20, generator=g)
        large = torch.randperm(30_000, generator=g)[:50]
        x[large] *= 100
        gram = Gram(retain=256)
        gram.update(x)
        rows = gram.retained()
        surely = rows.stands_for == 1
        assert int((surely & (rows.blocks["features"].norm(dim=1) > 100)).sum()) == 50
        assert float(rows.stands_for.sum()) == pytest.approx(30_000)


class TestTogether:
    """Grams that are filled together retain the same rows, those that are large in any of them."""

    def filled(self, retain=64, batches=(700, 1800)):
        x, f, t = data()
        other = x[:, :4].clone()
        other[::250] *= 1000
        first, second = Gram(retain=retain), Gram(retain=retain)
        first.fill_together(second)
        for a, b, c, d in zip(*(y.split(batches) for y in (x, f, t, other)), strict=True):
            update_together([first, second], [{"features": a, "outputs": b, "targets": c}, {"features": d, "outputs": b}])
        return first, second

    def test_the_same_rows(self):
        first, second = self.filled()
        a, b = first.retained(), second.retained()
        assert torch.equal(a.blocks["outputs"], b.blocks["outputs"])
        assert torch.equal(a.stands_for, b.stands_for)
        assert int((b.blocks["features"].norm(dim=1) > 500).sum()) == 10
        assert int((a.stands_for == 1).sum()) >= 10

    def test_sums_are_those_of_each_alone(self, whole):
        first, second = self.filled(retain=N)
        assert_same(without_errors(readings(first)), without_errors(whole))
        x, f, _ = data()
        alone = Gram()
        alone.update(x[:, :4], f)
        assert torch.equal(second.block("outputs", "outputs"), alone.block("outputs", "outputs"))

    def test_batches_change_no_bit(self):
        for one, other in zip(self.filled(), self.filled(batches=(1, 2499)), strict=True):
            assert all(torch.equal(x, other.tensors()[name]) for name, x in one.tensors().items() if name != "counts")

    def test_errors(self):
        x, f, _ = data(50)
        first, second = Gram(), Gram()
        first.fill_together(second)
        with pytest.raises(DataError, match="filled together with others"):
            first.update(x, f)
        with pytest.raises(DataError, match="same number of rows"):
            update_together([first, second], [{"features": x}, {"features": x[:9]}])
        with pytest.raises(DataError, match="in the same order"):
            update_together([second, first], [{"features": x}, {"features": x}])
        with pytest.raises(NonFiniteError):
            update_together([first, second], [{"features": x}, {"features": x * math.nan}])
        assert (first.count, second.count) == (0, 0)
        alone = Gram()
        alone.update(x)
        with pytest.raises(DataError, match="must be empty"):
            first.fill_together(alone)


class TestErrors:
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))

    def test_failed_updates_leave_nothing_behind(self):
        gram = Gram()
        gram.update(self.x, self.x)
        before = gram.state_dict()
        bad = self.x.clone()
        bad[4, 1] = float("nan")
        attempts = [
            ((bad, self.x), NonFiniteError, r"features hold NaN or infinity in batch 1 \(row 4 of 10"),
            ((self.x, bad), NonFiniteError, "outputs hold NaN"),
            ((self.x, self.x[:5]), DataError, "outputs must have shape"),
            ((self.x[:, :2], self.x), DataError, "widths of the blocks .*: this batch has .*the ones before it"),
            ((self.x,), DataError, "widths of the blocks"),
            ((self.x.int(), self.x), TypeError, "features must be floating point"),
        ]
        for arguments, error, match in attempts:
            with pytest.raises(error, match=match):
                gram.update(*arguments)
        after = gram.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        gram.update(self.x, self.x)
        assert gram.count == 20

    @pytest.mark.parametrize("block", [0, 1, 2])
    @pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
    def test_what_is_not_finite(self, block, wrong):
        blocks = [self.x.clone() for _ in range(3)]
        blocks[block][7, 2] = wrong
        name = ("features", "outputs", "targets")[block]
        with pytest.raises(NonFiniteError, match=rf"{name} hold NaN or infinity in batch 0 \(row 7 of 10"):
            Gram().update(*blocks)

    @pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf, -math.inf])
    def test_one_bad_weight(self, wrong):
        weights = torch.ones(10)
        weights[3] = wrong
        with pytest.raises(DataError, match="weights must be finite and not negative"):
            Gram().update(self.x, weights=weights)
        with pytest.raises(DataError, match=r"weights must have shape \(10,\), one weight for each row; got \(9,\)"):
            Gram().update(self.x, weights=weights[:9])

    @pytest.mark.parametrize("sign", [1, -1])
    def test_how_large_numbers_may_be(self, sign):
        """All of one sign, a little over and under the limit: fourth powers of it are the largest that sums hold."""
        x = sign * (1 + self.x.double().abs() / 10)
        with pytest.raises(DataError, match=r"features reach \d\.\de\+60, so their fourth powers overflow"):
            Gram().update(x * 1e60)
        gram = Gram()
        gram.update(x * 5e59)
        assert_close(gram.block("features", "features", centered=True) / 25e118, torch.cov(x.T, correction=0))

    @pytest.mark.parametrize("scale", [1e100, 1e-100])
    def test_scales_beyond_float64_are_refused(self, scale):
        """Not measured as 1.0, which is what an overflow would make of them."""
        x = self.x.double()
        for features, outputs in ((x * scale, x), (x, x * scale)):
            with pytest.raises(DataError, match="powers"):
                low_rank_measure(features, outputs)

    def test_no_columns(self):
        with pytest.raises(DataError, match=r"features must have at least one column, got shape \(10, 0\)"):
            low_rank_measure(self.x[:, :0], self.x)
        with pytest.raises(DataError, match="outputs must have at least one column"):
            low_rank_measure(self.x, self.x[:, :0])

    def test_a_state_of_something_else(self):
        gram = filled(*data(50), [50])
        state = gram.state_dict()
        with pytest.raises(DataError, match="not the state of a Gram: counts, .* missing"):
            gram.load_state_dict({"weight": self.x})
        with pytest.raises(DataError, match=r"not the state of a Gram: counts has shape \(13,\)"):
            gram.load_state_dict(state | {"counts": state["counts"][:-1]})
        assert gram.count == 50

    def test_reading_an_empty_gram(self):
        with pytest.raises(DataError, match="no samples"):
            Gram().mean("features")
        gram = Gram()
        gram.update(self.x[:0])
        with pytest.raises(DataError, match="no samples"):
            gram.mean("features")

    def test_a_block_that_was_not_given(self):
        gram = Gram()
        gram.update(self.x)
        assert (gram.num_outputs, gram.widths) == (0, {"features": 3})
        with pytest.raises(DataError, match=r"no block 'outputs' was passed to update, only \['features'\]"):
            gram.block("features", "outputs")

    def test_merging_what_does_not_fit(self):
        gram, other = Gram(), Gram()
        gram.update(self.x)
        other.update(self.x[:, :2])
        with pytest.raises(DataError, match="cannot merge"):
            gram.merge(other)
        double = Gram()
        double.update(self.x.double())
        with pytest.raises(DataError, match="float32"):
            gram.merge(double)


MEMORY = """
import sys, torch
from lazyrich import Gram
from lazyrich.gram.accumulator import update_together
from lazyrich.functional import feature_spectrum, low_rank_estimate
n, p = int(sys.argv[1]), 128
gram, g = Gram(), torch.Generator().manual_seed(0)
mix = torch.randn(p, 10, generator=g)
x = torch.empty(1000, p)
for _ in range(n // 1000):
    x.normal_(generator=g)
    gram.update(x, x @ mix)
low_rank_estimate(gram), feature_spectrum(gram)
print(peak())
"""


@reads_peak_memory
def test_peak_memory_does_not_grow_with_n():
    """400,000 samples against 10,000, p = 128, in processes of their own: within 5 %."""
    few, many = (printed(MEMORY, n) for n in (10_000, 400_000))
    assert many <= 1.05 * few, (few, many)


def test_spectrum_reads_the_same_gram():
    x, f, t = data()
    spectrum = feature_spectrum(filled(x, f, t, [N]))
    expected = torch.linalg.svdvals(x).square() / N
    assert_close(torch.from_numpy(spectrum.eigenvalues), expected, rtol=1e-8, atol=1e-9)


class Waits(TorchDispatchMode):
    """Counts the operations for whose result the host would have to wait on an accelerator."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        if name in self.WAITING:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


class TestAccelerators:
    """As on one: the CPU is taken off the list of devices whose numbers are looked at as they come."""

    @pytest.fixture(autouse=True)
    def away(self, monkeypatch):
        monkeypatch.setattr("lazyrich.gram.checks.ON_HOST", ())

    def test_no_update_waits(self):
        x, f, t = data(dtype=torch.float32)
        gram = Gram(retain=100)
        with Waits() as waits:
            for start in range(0, N, 300):
                rows = slice(start, start + 300)
                gram.update(x[rows], f[rows], t[rows])
            assert waits.found == []
            float(gram.mean("features")[0])
            assert waits.found  # so it does count

    @pytest.mark.parametrize("block", [0, 1, 2])
    @pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
    def test_what_is_not_finite_is_found_when_read(self, block, wrong):
        blocks = data()
        blocks = [b.double() for b in blocks]
        blocks[block][700, 1] = wrong
        gram = filled(*blocks, [300] * 8 + [100])
        with pytest.raises(NonFiniteError, match="in batch 2"):
            gram.mean("features")
        metric = lazyrich.EffectiveRank()
        for rows in torch.arange(N).split(300):
            metric.update(*(b[rows] for b in blocks))
        with pytest.raises(NonFiniteError, match="in batch 2"):
            metric.compute()

    def test_the_bad_batch_is_part_of_the_state(self):
        """It is saved, counted on when Grams are merged, and the first of all processes'."""
        x, f, t = data()
        bad = x.clone()
        bad[700, 1] = math.nan
        gram, saved = filled(x, f, t, [1000, 1500]), Gram()
        saved.load_state_dict(filled(bad, f, t, [300] * 8 + [100]).state_dict())
        with pytest.raises(NonFiniteError, match="in batch 2,"):
            saved.mean("features")
        with pytest.raises(NonFiniteError, match="in batch 4,"):
            gram.merge(saved).mean("features")
        grams = Together(2).reduce([filled(bad, f, t, [300] * 8 + [100]), filled(bad, f, t, [N])])
        for reduced in grams:
            with pytest.raises(NonFiniteError, match="in batch 0,"):
                reduced.mean("features")


class TestReadings:
    def test_are_computed_once_and_forgotten_when_rows_come(self):
        gram = filled(*data(), [N])
        first = gram.block("features", "features", centered=True)
        assert gram.block("features", "features", centered=True) is first
        gram.update(*(b[:5] for b in data(seed=1)))
        assert not torch.equal(gram.block("features", "features", centered=True), first)
        before = gram.mean("features"), gram.block("outputs", "outputs")
        gram.merge(filled(*data(seed=2), [N]))
        assert not torch.equal(gram.block("outputs", "outputs"), before[1])

    def test_second_moments_are_symmetric_to_the_bit(self):
        second = filled(*data(dtype=torch.float32), [N]).block("features", "features")
        assert torch.equal(second, second.T)

    @pytest.mark.parametrize("p", [1, 127, 128, 129, 300])
    def test_widths_around_the_panels(self, p):
        x = torch.randn(50, p, dtype=torch.float64, generator=torch.Generator().manual_seed(p))
        gram = Gram()
        gram.update(x)
        assert_close(gram.block("features", "features"), x.T @ x / 50)
