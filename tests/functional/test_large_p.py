"""Very many features: D_LR without a p × p decomposition, and the leading part of the spectrum."""

import json
import warnings

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

import lazyrich
from lazyrich import ConvergenceWarning, FeatureSpectrum, Gram
from lazyrich.functional import (
    effective_rank,
    eigen,
    feature_spectrum,
    held_out_quality,
    low_rank_estimate,
    low_rank_measure,
    participation_ratio,
    stable_rank,
)
from lazyrich.functional.eigen import leading_part

P, K = 300, 20


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reflected(values):
    """(p, p) with these eigenvalues, its eigenvectors the columns of the reflection I - 2uuᵀ, which come with it."""
    u = torch.nn.functional.normalize(normal(len(values), seed=9), dim=0)
    vectors = torch.eye(len(values), dtype=torch.float64) - 2 * torch.outer(u, u)
    return vectors * values @ vectors.T, vectors


def rank_of(p=P):
    return torch.arange(1, p + 1, dtype=torch.float64)


SPECTRA = {
    "collapse": torch.where(rank_of() < 10, 1.0, 1e-3) * (2 - rank_of() / P),
    "power law": 1 / rank_of(),
    "steep power law": rank_of() ** -2,
    "all alike": torch.ones(P, dtype=torch.float64),
    "few": torch.where(rank_of() <= 5, 1 / rank_of(), 0.0),
    "one far above": torch.where(rank_of() == 1, 1e6, 2 - rank_of() / P),
    "very small": 1e-100 / rank_of(),
    "very large": 1e100 / rank_of(),
}


class TestLeadingPart:
    @pytest.mark.parametrize("name", SPECTRA)
    @pytest.mark.parametrize("count", [1, K, 150])
    def test_known_spectrum(self, name, count):
        """150 of 300 leave no room for three blocks, and are cut from the whole."""
        values = SPECTRA[name]
        matrix, _ = reflected(values)
        found = leading_part(matrix, count)
        np.testing.assert_allclose(found.values, values[:count], rtol=0, atol=1e-9 * float(values[0]))
        np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(count), atol=1e-12)
        distance = np.linalg.norm(matrix.numpy() @ found.vectors.numpy() - found.vectors.numpy() * found.values.numpy(), axis=0)
        assert found.residual == pytest.approx(distance.max() / float(values[0]), abs=1e-12)
        assert found.residual <= eigen.TOLERANCE
        assert not found.whole
        assert found.trace == pytest.approx(float(values.sum()), rel=1e-12)
        assert found.square == pytest.approx(float(values.square().sum()), rel=1e-12)

    @pytest.mark.parametrize("name", ["collapse", "power law", "steep power law"])
    def test_known_eigenvectors(self, name):
        matrix, vectors = reflected(SPECTRA[name])
        found = leading_part(matrix, K)
        gaps = -SPECTRA[name].diff()[:K].numpy()
        angles = 1 - (found.vectors * vectors[:, :K]).sum(0).abs().numpy()
        apart = gaps > 1e-4 * float(SPECTRA[name][0])
        assert apart.sum() >= 8
        assert angles[apart].max() < 1e-7

    def test_against_arpack(self):
        x = normal(600, P, seed=1)
        matrix = x.T @ x / 600  # no structure: the eigenvalues lie close together
        values, vectors = scipy.sparse.linalg.eigsh(matrix.numpy(), k=K)
        found = leading_part(matrix, K)
        np.testing.assert_allclose(found.values, values[::-1], rtol=1e-9)
        np.testing.assert_allclose(np.abs((found.vectors.numpy() * vectors[:, ::-1]).sum(0)), 1, atol=1e-6)

    def test_the_whole_says_so(self):
        matrix, _ = reflected(SPECTRA["power law"])
        found = eigen.whole(matrix)
        np.testing.assert_allclose(found.values, SPECTRA["power law"], rtol=1e-9)
        assert found.whole is True
        assert found.residual is None

    def test_one_eigenvalue_of_a_gram(self):
        x, _, _ = data()
        found = feature_spectrum(x, leading=1)
        assert found.eigenvalues.tolist() == pytest.approx([float(torch.linalg.matrix_norm(x, 2)) ** 2 / len(x)], rel=1e-9)

    def test_nothing_at_all(self):
        found = leading_part(torch.zeros(P, P, dtype=torch.float64), K)
        assert found.values.tolist() == [0.0] * K
        assert found.residual == 0

    def test_same_again_and_no_random_state_touched(self):
        matrix, _ = reflected(SPECTRA["power law"])
        before = torch.random.get_rng_state()
        first, second = leading_part(matrix, K), leading_part(matrix, K)
        assert torch.equal(first.vectors, second.vectors)
        assert torch.equal(before, torch.random.get_rng_state())

    def test_a_solver_that_breaks_off_says_how_far_it_came(self, monkeypatch):
        solver = torch.lobpcg

        def breaks(matrix, *, niter, **given):
            solver(matrix, niter=2, **given)
            raise AssertionError("the number of converged eigenpairs cannot decrease")

        monkeypatch.setattr(torch, "lobpcg", breaks)
        matrix, _ = reflected(SPECTRA["power law"])
        found = leading_part(matrix, K)
        vectors = found.vectors.numpy()
        distance = np.linalg.norm(matrix.numpy() @ vectors - vectors * found.values.numpy(), axis=0)
        assert found.residual == pytest.approx(distance.max() / float(found.values[0]))
        assert eigen.TOLERANCE < found.residual < 0.1

    def test_a_solver_that_breaks_off_leaves_what_it_reached_last(self, monkeypatch):
        solver, steps, residuals = torch.lobpcg, 0, []

        def breaks(matrix, *, niter, **given):
            solver(matrix, niter=steps, **given)
            raise AssertionError("the number of converged eigenpairs cannot decrease")

        monkeypatch.setattr(torch, "lobpcg", breaks)
        matrix, _ = reflected(SPECTRA["power law"])
        for steps in (2, 12):  # noqa: B007
            residuals.append(leading_part(matrix, K).residual)
        assert residuals[1] < residuals[0] / 10


def data(n=1500, p=P, c=4):
    x = normal(n, p, seed=2) * rank_of(p) ** -0.8 + 0.1
    return x, x @ normal(p, c, seed=3), torch.arange(n) % 3


class TestSpectrum:
    @pytest.mark.parametrize("centered", [False, True])
    def test_is_the_whole_one_cut(self, centered):
        x, f, labels = data()
        whole = feature_spectrum(x, f, labels, centered=centered)
        part = feature_spectrum(x, f, labels, centered=centered, leading=K)
        assert whole.residual is None
        assert whole.whole
        assert (whole.num_features, part.num_features) == (P, P)
        np.testing.assert_allclose(part.eigenvalues, whole.eigenvalues[:K], rtol=1e-9)
        np.testing.assert_allclose(part.contributions, whole.contributions[:K], atol=1e-7)
        for name in ("cumulative_quality", "cumulative_utilization", "cumulative_eigenvalues"):
            np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[:K], atol=1e-6)
        assert part.trace == pytest.approx(whole.trace, rel=1e-12)
        assert whole.trace == pytest.approx(whole.eigenvalues.sum(), rel=1e-12)
        assert part.rank_is_bound
        assert part.rank == K
        assert whole.rank == P
        assert 0 < part.residual <= 1e-8

    def test_as_many_as_there_are_is_the_whole(self):
        x, f, _ = data()
        assert feature_spectrum(x, f, leading=P).to_dict() == feature_spectrum(x, f).to_dict()
        assert feature_spectrum(x, f, leading=10 * P).whole

    def test_rank_that_lies_within_the_part_is_known(self):
        x = normal(500, 6, seed=4) @ normal(6, P, seed=5)
        part = feature_spectrum(x.float(), leading=K)
        assert part.rank == 6
        assert not part.rank_is_bound
        assert "numerical rank 6" in str(part)

    def test_more_features_than_the_full_decomposition_takes(self, monkeypatch):
        monkeypatch.setattr(eigen, "FULL_SPECTRUM", P - 1)
        monkeypatch.setattr(eigen, "LEADING", K)
        x, f, _ = data()
        part = feature_spectrum(x, f)
        assert len(part.eigenvalues) == K
        assert f"the leading {K} of {P}, which hold " in str(part)
        share = 100 * torch.linalg.eigvalsh(x.T @ x)[-K:].sum() / x.square().sum()
        assert f"{share:.4g} % of the sum of all" in str(part)
        assert feature_spectrum(x, f, leading=P).whole

    def test_held_out_quality_of_the_first(self):
        x, _, labels = data()
        other = data(n=800)[0][:, :] + 0.05 * normal(800, P, seed=6)
        whole = held_out_quality(feature_spectrum(x), other, labels[:800])
        part = held_out_quality(feature_spectrum(x, leading=K), other, labels[:800])
        np.testing.assert_allclose(part, whole[:K], atol=1e-5)

    def test_survives_a_file(self):
        x, f, labels = data()
        part = feature_spectrum(x, f, labels, leading=K)
        again = FeatureSpectrum.from_dict(json.loads(json.dumps(part.to_dict())))
        assert again.to_dict() == part.to_dict()
        assert (again.num_features, again.whole, again.residual) == (P, False, part.residual)

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"num_features": K - 1}, ValueError),
            ({"num_features": None}, TypeError),
            ({"trace": "much"}, ValueError),
            ({"residual": [1]}, ValueError),
        ],
    )
    def test_files_that_are_not_whole(self, change, error):
        values = feature_spectrum(data()[0], leading=K).to_dict()
        with pytest.raises(error):
            FeatureSpectrum.from_dict(values | change)

    @pytest.mark.parametrize("leading", [0, -3])
    def test_no_number_of_eigenvalues(self, leading):
        with pytest.raises(ValueError, match=f"leading must be a number of eigenvalues, 1 or more, or None, got {leading}"):
            feature_spectrum(data()[0], leading=leading)

    def test_warns_where_it_did_not_converge(self, monkeypatch):
        monkeypatch.setattr(eigen, "MOST_STEPS", 2)
        with pytest.warns(ConvergenceWarning, match=r"residual is \d\.\de-\d\d of the largest eigenvalue and should be 1e-08"):
            part = feature_spectrum(data()[0], leading=K)
        assert part.residual > 1e-8

    def test_the_warning_points_to_who_asked(self, monkeypatch):
        monkeypatch.setattr(eigen, "MOST_STEPS", 2)
        with pytest.warns(ConvergenceWarning) as caught:
            feature_spectrum(data()[0], leading=K)
        assert [w.filename for w in caught] == [__file__]


class TestMeasure:
    @pytest.fixture
    def few(self, monkeypatch):
        """Measuring as if 300 features were very many."""
        monkeypatch.setattr(eigen, "FULL_SPECTRUM", P - 1)
        monkeypatch.setattr(eigen, "LEADING", K)

    @staticmethod
    def measured():
        x, _, labels = data()
        head = torch.nn.Linear(P, 3).double()
        with torch.no_grad():
            head.weight.copy_(normal(3, P, seed=7))
            head.bias.zero_()
        return lazyrich.measure(head, (x, labels)), x

    def test_what_is_known_and_what_is_not(self, few):
        r, x = self.measured()
        assert r.comparison is not None
        assert (r.comparison.effective_rank, r.comparison.rankme, r.comparison.alpha_req) == (None, None, None)
        assert r.comparison.stable_rank == pytest.approx(stable_rank(x), rel=1e-9)
        assert r.comparison.participation_ratio == pytest.approx(participation_ratio(x), rel=1e-9)
        assert r.low_rank == pytest.approx(float(low_rank_measure(x, x @ normal(3, P, seed=7).T)), abs=1e-9)
        assert r.spectrum.contributions is not None
        assert 0 < r.spectrum.contributions.sum() < 1 - r.low_rank
        note = next(n for n in r.notes if "the leading 20 of 300" in n)
        assert "effective rank, RankMe and α-ReQ need every eigenvalue and are left out" in note
        assert not any("did not converge" in n for n in r.notes)
        assert "at least 20 of 300" in r.table()
        assert note in r.table()
        assert "effective_rank" not in r.numbers()
        assert {len(curve) for curve in r.curves().values()} == {K}

    def test_numbers_are_those_of_the_whole(self, monkeypatch):
        whole, x = self.measured()
        assert whole.comparison is not None
        assert whole.comparison.effective_rank == pytest.approx(effective_rank(x), rel=1e-9)
        monkeypatch.setattr(eigen, "FULL_SPECTRUM", P - 1)
        part, _ = self.measured()
        both = part.numbers().items() & whole.numbers().items()
        assert {"low_rank", "low_rank_corrected", "balanced", "nc1", "participation_ratio"} <= dict(both).keys()

    def test_survives_a_file(self, few, tmp_path):
        r, _ = self.measured()
        r.save(tmp_path / "r.json")
        assert lazyrich.load(tmp_path / "r.json").to_dict() == r.to_dict()

    def test_picture_and_page_hold_it(self, few, tmp_path):
        r, _ = self.measured()
        figure = r.plot(tmp_path / "r.png")
        texts = {t.get_text() for part in figure.subfigs for axis in part.axes for t in axis.texts}
        assert "the leading 20 of 300" in texts
        r.report(tmp_path / "r.html")
        assert "the leading 20 of 300" in (tmp_path / "r.html").read_text()

    def test_a_note_where_it_did_not_converge(self, few, monkeypatch):
        monkeypatch.setattr(eigen, "MOST_STEPS", 2)
        r, _ = self.measured()
        assert r.spectrum.residual is not None
        assert any(f"its residual is {r.spectrum.residual:.1e} of the largest" in note for note in r.notes)


class TestNoDecomposition:
    """D_LR never decomposes a p × p matrix; the largest it may decompose is of the outputs."""

    NAMES = (
        "eigh",
        "eigvalsh",
        "svd",
        "svdvals",
        "eig",
        "eigvals",
        "qr",
        "cholesky",
        "cholesky_ex",
        "inv",
        "pinv",
        "solve",
        "lu",
    )

    @pytest.fixture
    def sides(self, monkeypatch):
        """The smaller side of everything that was decomposed."""
        seen: list[int] = []

        def watched(solver):
            def call(matrix, *args, **options):
                seen.append(min(matrix.shape[-2:]))
                return solver(matrix, *args, **options)

            return call

        for name in self.NAMES:
            monkeypatch.setattr(torch.linalg, name, watched(getattr(torch.linalg, name)))
        for name in ("lobpcg", "svd_lowrank", "pca_lowrank", "svd", "qr", "inverse", "pinverse", "cholesky"):
            monkeypatch.setattr(torch, name, watched(getattr(torch, name)))
        return seen

    @pytest.mark.parametrize("reference", ["projection", "balanced", "outputs"])
    def test_largest(self, sides, reference):
        x, f, _ = data()
        gram = Gram()
        gram.update(x, f)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lazyrich.RankWarning)
            low_rank_measure(gram, reference=reference)
            low_rank_measure(gram, rtol=0.1, ridge=True, reference=reference)
            low_rank_estimate(gram, reference=reference)
        assert max(sides) <= 5  # four outputs and their mean
        feature_spectrum(gram)
        assert max(sides) == P  # so that it would have been seen

    def test_each_operator_is_decomposed_once(self, sides):
        TestMeasure.measured()
        assert sides.count(P) == 2  # second moment and covariance, for spectrum, ranks and exponent together
