import json
import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from cases import CASES

from lazyrich import ConvergenceWarning, DataError, DegenerateError, FeatureSpectrum, Gram, measure
from lazyrich.functional import feature_spectrum, held_out_quality, low_rank_measure

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("centered", [False, True])
def test_contributions_sum_to_one_minus_d_lr(case, centered):
    spectrum = feature_spectrum(case.features, case.outputs, weights=case.weights, centered=centered)
    expected = 1 - low_rank_measure(case.features, case.outputs, weights=case.weights).item()
    assert spectrum.contributions is not None
    assert spectrum.contributions.sum() == pytest.approx(expected, abs=1e-12)
    assert (spectrum.contributions >= 0).all()


@pytest.mark.parametrize("centered", [False, True])
def test_curves_against_the_kernel_matrix(centered):
    """Eigenvectors of the n×n kernel are the eigenfunctions' values; projections by QR."""
    x = normal(300, 12) * torch.linspace(2, 0.2, 12, dtype=torch.float64) + 1
    f = x @ normal(12, 3, seed=1) + 0.2
    t = normal(300, 2, seed=2) + x[:, :2]
    spectrum = feature_spectrum(x, f, t, centered=centered)
    k = (x - x.mean(0) if centered else x).numpy()
    values, vectors = np.linalg.eigh(k @ k.T / 300)
    values, vectors = values[::-1][:12], vectors[:, ::-1][:, :12]
    np.testing.assert_allclose(spectrum.eigenvalues, values, rtol=1e-10)
    np.testing.assert_allclose(spectrum.relative_eigenvalues, values / values[0], rtol=1e-10)
    for curve, functions in ((spectrum.cumulative_quality, t), (spectrum.cumulative_utilization, f)):
        basis = np.linalg.qr(functions.numpy())[0]
        held = ((vectors.T @ basis) ** 2).sum(1)
        np.testing.assert_allclose(curve, np.cumsum(held) / functions.shape[1], atol=1e-10)


def test_closed_form_of_two_blocks():
    """Features of strength 4 that the outputs use, of strength 1 that they do not; targets half in each."""
    q = torch.linalg.qr(normal(100, 8) - normal(100, 8).mean(0)).Q * 10
    x = q * torch.tensor([2.0] * 3 + [1.0] * 5, dtype=torch.float64)
    spectrum = feature_spectrum(x, q[:, :3], torch.stack([q[:, 0], q[:, 4]], dim=1))
    np.testing.assert_allclose(spectrum.relative_eigenvalues, [1] * 3 + [0.25] * 5)
    np.testing.assert_allclose(spectrum.cumulative_utilization, [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1], atol=1e-12)
    assert spectrum.cumulative_quality[2] == pytest.approx(0.5)
    assert spectrum.cumulative_quality[7] == pytest.approx(1)
    assert spectrum.rank == 8
    assert (spectrum.output_rank, spectrum.target_rank) == (3, 2)


def test_labels_span_their_classes():
    labels = torch.arange(90) % 3
    x = torch.nn.functional.one_hot(labels, 3).double() * 5
    spectrum = feature_spectrum(x, targets=labels)
    np.testing.assert_allclose(spectrum.cumulative_quality, [1 / 3, 2 / 3, 1], atol=1e-12)
    assert spectrum.utilization is None
    assert spectrum.contributions is None
    assert spectrum.cumulative_utilization is None


class TestRank:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("offset", [0.0, 100.0])
    @pytest.mark.parametrize("rank", [1, 7, 50])
    @pytest.mark.parametrize("n", [600, 4000])
    def test_low_rank_features(self, dtype, offset, rank, n):
        """Exactly rank-deficient about their mean, in exact arithmetic of small whole numbers."""
        g = torch.Generator().manual_seed(rank)
        x = torch.randint(-3, 4, (n, rank), generator=g).to(dtype)
        mix = torch.randint(-3, 4, (rank, 128), generator=g).to(dtype)
        features = x @ mix + offset
        expected = np.linalg.matrix_rank(features.double().numpy())
        assert feature_spectrum(features).rank == expected

    def test_more_features_than_samples(self):
        spectrum = feature_spectrum(normal(20, 50))
        assert spectrum.rank == 20
        assert feature_spectrum(normal(20, 50), centered=True).rank == 19

    def test_curves_stay_within_one(self):
        """Directions that are rounding must not be counted: float32 features of very unequal strength."""
        x = normal(2000, 64).float() * torch.logspace(0, -9, 64)
        f = x @ normal(64, 5, seed=1).float()
        spectrum = feature_spectrum(x, f, f)
        assert spectrum.rank < 64
        for curve in (spectrum.cumulative_quality, spectrum.cumulative_utilization):
            assert curve.max() <= 1 + 1e-5
            assert curve[-1] == pytest.approx(1, abs=1e-3)
            assert (np.diff(curve) >= 0).all()


class TestEqualStrength:
    """Eigenvalues 4, 3, eight times 2, then 1 … 0.5; the outputs are the two directions 3 and 4 of the eight."""

    @staticmethod
    def features(p, dtype):
        basis = torch.linalg.qr(normal(600, p + 1))[0] * 600**0.5
        values = torch.cat([torch.tensor([4.0, 3.0]), torch.full((8,), 2.0), torch.linspace(1, 0.5, p - 10)]).double()
        rotation = torch.linalg.qr(normal(p, p, seed=3)).Q
        return (basis[:, :p] * values.sqrt() @ rotation).to(dtype), basis[:, 2:4]

    @pytest.mark.parametrize("p", [20, 120])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_blocks_are_flagged_and_curves_exact_at_their_ends(self, p, dtype):
        spectrum = feature_spectrum(*self.features(p, dtype))
        assert spectrum.blocks == [(3, 10)]
        assert np.flatnonzero(~spectrum.block_ends).tolist() == list(range(2, 9))
        assert spectrum.cumulative_utilization[[1, 9]] == pytest.approx([0, 1], abs=1e-5)
        assert FeatureSpectrum.from_dict(spectrum.to_dict()).blocks == [(3, 10)]

    @pytest.mark.parametrize("p", [20, 120])
    @pytest.mark.parametrize(("leading", "inside"), [(2, False), (5, True), (10, False), (11, False)])
    def test_a_leading_part_that_ends_inside_a_block(self, p, leading, inside):
        """Five of them have a residual of 10⁻¹⁵ whichever they are, which says nothing about the curves."""
        match = "ends inside a block of features of equal strength, from feature 3 on: which 3 of them .* leading=2"
        with pytest.warns(ConvergenceWarning, match=match) if inside else nullcontext():
            spectrum = feature_spectrum(*self.features(p, torch.float64), leading=leading)
        assert spectrum.block_ends[-1] == (not inside)

    def test_the_note_of_a_measurement(self):
        x, y = self.features(20, torch.float32)
        model = torch.nn.Linear(20, 2, bias=False)
        model.weight.data = (torch.linalg.lstsq(x.double(), y).solution.T).float()
        assert any("features 3 to 10 are equally strong" in note for note in measure(model, x).notes)
        torch.manual_seed(0)
        assert not any("equally strong" in note for note in measure(torch.nn.Linear(20, 2), torch.randn(300, 20)).notes)


class TestHeldOut:
    train, test = normal(400, 20) * torch.linspace(2, 0.1, 20) + 0.5, normal(300, 20, seed=5) * torch.linspace(2, 0.1, 20) + 0.5
    targets = (test[:, :3] ** 2 + test[:, 4:7]).float().double()

    def test_against_qr_on_the_test_samples(self):
        quality = held_out_quality(feature_spectrum(self.train), self.test, self.targets)
        expected = reference.held_out_quality(self.train.numpy(), self.test.numpy(), self.targets.numpy())
        np.testing.assert_allclose(quality, expected, atol=1e-9)

    def test_on_the_training_data_it_is_the_quality(self):
        labels = torch.arange(400) % 4
        for centered in (False, True):
            spectrum = feature_spectrum(self.train, targets=labels, centered=centered)
            np.testing.assert_allclose(held_out_quality(spectrum, self.train, labels), spectrum.cumulative_quality, atol=1e-10)

    def test_fewer_test_samples_than_features(self):
        quality = held_out_quality(feature_spectrum(self.train), self.test[:12], self.targets[:12])
        assert quality[-1] == pytest.approx(1, abs=1e-9)  # 12 functions fit anything on 12 points
        expected = reference.held_out_quality(self.train.numpy(), self.test[:12].numpy(), self.targets[:12].numpy())
        np.testing.assert_allclose(quality[:12], expected[:12], atol=1e-9)

    @pytest.mark.parametrize("samples", [30, 60, 148, 231])
    def test_rounding_never_brings_it_above_one(self, samples):
        """Single precision; the targets are linear in the features, which span all of them."""
        for seed in range(5):
            x = normal(400 + samples, 94, seed=seed) * torch.arange(1, 95) ** -0.5
            x = (x @ torch.linalg.qr(normal(94, 94, seed=9)).Q).float()
            quality = held_out_quality(feature_spectrum(x[:400]), x[400:], x[400:].double() @ normal(94, 3, seed=8))
            assert quality[-1] == pytest.approx(1, abs=1e-4)
            assert quality.max() <= 1

    def test_weights_and_the_mean_of_the_training_data(self):
        """Centred eigenfunctions are measured from where the training data lay, wherever the other data lie."""
        times = torch.arange(300) % 3 + 1
        quality = held_out_quality(
            feature_spectrum(self.train, centered=True), self.test + 0.3, self.targets, weights=times.double()
        )
        rows = (self.test + 0.3 - self.train.mean(0)).repeat_interleave(times, 0)
        expected = reference.held_out_quality(
            (self.train - self.train.mean(0)).numpy(), rows.numpy(), self.targets.repeat_interleave(times, 0).numpy()
        )
        np.testing.assert_allclose(quality, expected, atol=1e-9)

    @pytest.mark.parametrize(("strength", "held"), [(1e-3, 1), (1e-9, 0)])
    def test_a_direction_that_is_rounding_on_the_other_data_adds_nothing(self, strength, held):
        q = torch.linalg.qr(normal(100, 3) - normal(100, 3).mean(0)).Q * 10
        spectrum = feature_spectrum(q * torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
        quality = held_out_quality(spectrum, q * torch.tensor([3.0, 2.0, strength], dtype=torch.float64), q[:, 2])
        np.testing.assert_allclose(quality, [0, 0, held], atol=1e-9)

    def test_training_features_of_low_rank(self):
        """All their eigenfunctions together span what the five features span that they are made of."""
        mix = normal(5, 12, seed=7)
        quality = held_out_quality(feature_spectrum(self.train[:, :5] @ mix), self.test[:, :5] @ mix, self.targets)
        basis = np.linalg.qr(self.test[:, :5].numpy())[0]
        functions = np.linalg.qr(self.targets.numpy())[0]
        assert len(quality) == 5
        assert quality[-1] == pytest.approx(((basis.T @ functions) ** 2).sum() / 3, abs=1e-9)

    def test_functions_that_depend_on_stronger_ones_add_nothing(self):
        """On the other data the second feature is the first, the third holds half of what is new to it."""
        q = torch.linalg.qr(normal(100, 3) - normal(100, 3).mean(0)).Q * 10
        spectrum = feature_spectrum(q * torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
        other = torch.stack([3 * q[:, 0], 2 * q[:, 0], q[:, 0] + q[:, 1]], dim=1)
        quality = held_out_quality(spectrum, other, torch.stack([q[:, 1] + q[:, 0], q[:, 2]], dim=1))
        np.testing.assert_allclose(quality, [0.25, 0.25, 0.5], atol=1e-9)

    def test_errors(self):
        spectrum = feature_spectrum(self.train)
        for name in ("mean", "eigenvectors"):
            with pytest.raises(DataError, match="no eigenvectors"):
                held_out_quality(replace(spectrum, **{name: None}), self.test, self.targets)
        with pytest.raises(DataError, match="spectrum has 20 features, these data 5"):
            held_out_quality(spectrum, self.test[:, :5], self.targets)
        with pytest.raises(DataError, match="needs targets"):
            held_out_quality(spectrum, self.test)
        with pytest.raises(DataError, match="no eigenvectors"):
            held_out_quality(FeatureSpectrum.from_dict(spectrum.to_dict()), self.test, self.targets)


def test_survives_a_file():
    x = normal(50, 6)
    spectrum = feature_spectrum(x, x[:, :2], torch.arange(50) % 3)
    again = FeatureSpectrum.from_dict(spectrum.to_dict())
    assert again.to_dict() == spectrum.to_dict()
    np.testing.assert_array_equal(again.cumulative_quality, spectrum.cumulative_quality)


def test_reads_as_text():
    q = torch.linalg.qr(normal(100, 8)).Q * 10
    text = str(feature_spectrum(q, q[:, :3]))
    assert "features: 8, numerical rank 8" in text
    assert "cumulative utilization: 1.000" in text
    assert feature_spectrum(q).part == ""


class TestRecord:
    """Numbers given, so that what is said of them is known."""

    spectrum = FeatureSpectrum(
        np.array([4.0, 2.0, 2.0, 0.0]), 3, False, 4, 8.0, None, np.array([0.5, 1.0, 0.5, 0.0]), np.array([0.0, 0.5, 0.5, 0.0]),
        np.array([0.25, 0.125, 0.0, 0.0]), 2, 1, np.eye(4)[:, :3], np.zeros(4),
    )  # fmt: skip

    def test_reads_as_text(self):
        assert str(self.spectrum).splitlines() == [
            "features: 4, numerical rank 3",
            "cumulative quality: 1.000, 95 % of it in the first 3",
            "cumulative utilization: 1.000, 95 % of it in the first 3",
        ]
        part = replace(self.spectrum, num_features=2000, trace=16.0, residual=1e-9, rank=4, quality=None)
        assert str(part).splitlines()[:2] == [
            "features: 2000, numerical rank at least 4",
            "the leading 4 of 2,000, which hold 50 % of the sum of all, residual 1.0e-09",
        ]
        assert "eigenvectors" not in repr(self.spectrum)
        assert "mean" not in repr(self.spectrum)

    def test_curves(self):
        np.testing.assert_allclose(self.spectrum.relative_eigenvalues, [1, 0.5, 0.5, 0])
        np.testing.assert_allclose(self.spectrum.cumulative_eigenvalues, [0.5, 0.75, 1, 1])
        np.testing.assert_allclose(self.spectrum.cumulative_quality, [0.25, 0.75, 1, 1])
        np.testing.assert_allclose(self.spectrum.cumulative_utilization, [0, 0.5, 1, 1])
        for ranks in ({"target_rank": None, "output_rank": None}, {"quality": None, "utilization": None}):
            without = replace(self.spectrum, **ranks)
            assert without.cumulative_quality is None
            assert without.cumulative_utilization is None

    def test_as_plain_values_and_back(self):
        values = json.loads(json.dumps(self.spectrum.to_dict()))
        assert values["quality"] == [0.5, 1.0, 0.5, 0.0]
        assert values.keys().isdisjoint({"eigenvectors", "mean"})
        again = FeatureSpectrum.from_dict(values | {"eigenvalues": [4, 2, 2, 0], "trace": 8})
        assert again.eigenvalues.dtype == np.float64
        assert again.to_dict() == self.spectrum.to_dict()
        for name in ("rank", "num_features", "target_rank", "output_rank"):
            for wrong in ("two", 2.0, True):
                with pytest.raises(TypeError, match=f"{name} must be a whole number, got {wrong!r}"):
                    FeatureSpectrum.from_dict(values | {name: wrong})
        for name in ("rank", "num_features"):
            with pytest.raises(TypeError, match=f"{name} must be a whole number, got None"):
                FeatureSpectrum.from_dict(values | {name: None})
        with pytest.raises(TypeError, match="centered must be true or false, got 1"):
            FeatureSpectrum.from_dict(values | {"centered": 1})
        with pytest.raises(ValueError, match="num_features is 3, and there are 4 eigenvalues"):
            FeatureSpectrum.from_dict(values | {"num_features": 3})


def test_values_that_are_no_spectrum():
    values = feature_spectrum(normal(50, 6), normal(50, 2, seed=1)).to_dict()
    for name, wrong in (("utilization", [0.5] * 5), ("eigenvalues", [[1.0] * 6]), ("contributions", [])):
        with pytest.raises(ValueError, match=f"{name} must be a list of numbers"):
            FeatureSpectrum.from_dict(values | {name: wrong})


def test_functions_that_are_zero_span_nothing():
    with pytest.raises(DegenerateError, match=r"outputs are constant over the samples \(all zero\), so they span nothing"):
        feature_spectrum(normal(20, 3), torch.zeros(20, 2))


def test_a_gram_gives_the_same():
    x = normal(60, 5)
    gram = Gram()
    gram.update(x, x[:, :2])
    np.testing.assert_array_equal(feature_spectrum(gram).contributions, feature_spectrum(x, x[:, :2]).contributions)


def test_labels_out_of_range():
    with pytest.raises(DataError, match="label -1 is out of range"):
        feature_spectrum(normal(4, 2), targets=torch.tensor([0, 1, -1, 0]))


def test_share_of_the_constant_function():
    """Uncentred, a common mean is the first feature and the constant output lies in it."""
    x = torch.full((100, 1), 3.0, dtype=torch.float64) + 0.0 * normal(100, 1)
    x = torch.cat([x, torch.linalg.qr(normal(100, 1) - normal(100, 1).mean(0)).Q], dim=1)
    x[:, 1] -= x[:, 1].mean()
    spectrum = feature_spectrum(x, torch.ones(100, 1, dtype=torch.float64) * 2)
    assert spectrum.cumulative_utilization[0] == pytest.approx(1, abs=1e-12)
    assert math.isclose(spectrum.eigenvalues[0], 9, rel_tol=1e-12)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_solver_that_does_not_converge_is_tried_another_way(monkeypatch, failing):
    """Seen on features of which nearly all are dead: the lower triangle fails where the upper one does not."""
    x = torch.randn(80, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = feature_spectrum(x, centered=True)
    calls, solver = [], torch.linalg.eigh

    def unsteady(matrix, **options):
        calls.append(options)
        if len(calls) <= failing:
            raise torch.linalg.LinAlgError("did not converge")
        return solver(matrix, **options)

    monkeypatch.setattr(torch.linalg, "eigh", unsteady)
    found = feature_spectrum(x, centered=True)
    assert calls[: failing + 1] == [{}, {"UPLO": "U"}, {}][: failing + 1]
    np.testing.assert_allclose(found.eigenvalues, expected.eigenvalues, rtol=1e-12)
    assert found.eigenvectors is not None
    assert expected.eigenvectors is not None
    overlaps = np.abs((found.eigenvectors * expected.eigenvectors).sum(0))
    np.testing.assert_allclose(overlaps, 1, atol=1e-10)
