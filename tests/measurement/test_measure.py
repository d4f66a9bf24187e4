import dataclasses
import json

import numpy as np
import pytest
import reference
import torch
from torch import nn

import lazyrich
from lazyrich import DataError, Richness, measure
from lazyrich.functional import feature_spectrum, held_out_quality, low_rank_estimate, neural_collapse, standard_error
from lazyrich.model.batches import batches, num_batches

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3)).double()
    x = torch.randn(500, 6, dtype=torch.float64)
    y = torch.randint(3, (500,))
    with torch.no_grad():
        features = model[:2](x)
        return model, x, y, features, model[2](features)


class TestAgainstTheFunctions:
    def test_every_number(self, network):
        model, x, y, features, outputs = network
        r = measure(model, (x, y), nc4=True)
        estimate = low_rank_estimate(features, outputs)
        assert r.low_rank == pytest.approx(reference.d_lr(features, outputs), abs=1e-10)
        assert r.low_rank_corrected == pytest.approx(estimate.corrected, abs=1e-10)
        assert r.low_rank_stderr == pytest.approx(estimate.stderr, abs=1e-10)
        assert r.low_rank_interval == pytest.approx(estimate.interval, abs=1e-10)
        assert r.low_rank_band == pytest.approx({t: reference.d_lr(features, outputs, rtol=t) for t in (1e-3, 1e-2, 1e-1)})
        assert r.balanced == pytest.approx(reference.d_lr(features, outputs, power=0.5), abs=1e-10)
        assert r.output_alignment == pytest.approx(reference.d_lr(features, outputs, power=0), abs=1e-10)
        assert r.output_rank == np.linalg.matrix_rank(outputs.numpy())
        assert r.output_singular_values == pytest.approx((torch.linalg.svdvals(outputs) / 500**0.5).tolist(), rel=1e-9)
        np.testing.assert_allclose(r.spectrum.eigenvalues, (torch.linalg.svdvals(features) ** 2 / 500).numpy(), rtol=1e-8)
        assert r.spectrum.contributions.sum() == pytest.approx(1 - r.low_rank, abs=1e-12)
        expected = reference.neural_collapse(features, y, model[2].weight.detach(), model[2].bias.detach())
        expected["nc1_stderr"] = standard_error("nc1", features, y)
        assert r.neural_collapse.to_dict() == pytest.approx(expected, rel=1e-9)
        assert (r.num_samples, r.num_features, r.num_outputs, r.head) == (500, 20, 3, "2")

    def test_nc4_only_on_request(self, network):
        model, x, y, *_ = network
        assert measure(model, (x, y)).neural_collapse.nc4 is None

    def test_data_that_shrink_before_the_second_pass(self, network):
        class Shrinking:
            passes = 0

            def __iter__(self):
                self.passes += 1
                return iter([(x[::k], y[::k]) for k in [self.passes]])

        model, x, y, *_ = network
        with pytest.raises(DataError, match="second pass for NC4 saw another amount of data than the first: 250 against 500"):
            measure(model, Shrinking(), nc4=True)

    def test_one_hot_targets_are_labels(self, network):
        model, x, y, *_ = network
        targets = nn.functional.one_hot(y, 3).double()
        assert measure(model, (x, targets)).neural_collapse == measure(model, (x, y)).neural_collapse

    @pytest.mark.parametrize("kind", ["regression", "one column", "multi-label"])
    def test_other_targets_have_quality_and_no_collapse(self, network, kind):
        model, x, _, features, _ = network
        targets = {
            "regression": x[:, :2].sin(),
            "one column": x[:, 0],
            "multi-label": (x[:, :4] > 0).long(),
        }[kind]
        r = measure(model, (x, targets))
        assert r.neural_collapse is None
        basis = np.linalg.qr(targets.reshape(500, -1).double().numpy())[0]
        assert r.spectrum.target_rank == basis.shape[1]
        u = np.linalg.svd(features.numpy(), full_matrices=False)[0]
        np.testing.assert_allclose(r.spectrum.quality, ((u.T @ basis) ** 2).sum(1), atol=1e-9)

    def test_without_targets(self, network):
        model, x, y, *_ = network
        r = measure(model, x)
        assert r.neural_collapse is None
        assert r.spectrum.quality is None
        assert r.low_rank == pytest.approx(measure(model, (x, y)).low_rank, abs=1e-12)

    def test_binary_labels_with_one_output(self):
        torch.manual_seed(0)
        model, x = nn.Linear(5, 1), torch.randn(100, 5)
        labels = (x[:, 0] > 0).long()
        r = measure(model, (x, labels))
        expected = neural_collapse(x, labels)
        assert r.neural_collapse.nc1 == pytest.approx(expected.nc1)
        assert r.neural_collapse.nc3 is None  # one row of weights for two classes

    def test_weights(self, network):
        model, x, y, features, outputs = network
        weights = torch.rand(500, generator=torch.Generator().manual_seed(1))
        data = list(zip(x.split(33), y.split(33), strict=True))
        r = measure(model, data, sample_weights=weights, nc4=True)
        assert r.low_rank == pytest.approx(reference.d_lr(features, outputs, weights), abs=1e-10)
        parameters = {"head_weight": model[2].weight, "head_bias": model[2].bias}
        expected = neural_collapse(features, y, weights=weights, **parameters).to_dict()
        expected["nc1_stderr"] = standard_error("nc1", features, y, weights=weights)
        assert r.neural_collapse.to_dict() == pytest.approx(expected, rel=1e-9)

    def test_batches_change_nothing(self, network):
        model, x, y, *_ = network
        whole = measure(model, [(x, y)], nc4=True).to_dict()
        parts = measure(model, list(zip(x.split(1), y.split(1), strict=True)), nc4=True).to_dict()
        assert parts["low_rank"] == pytest.approx(whole["low_rank"], abs=1e-12)
        assert parts["neural_collapse"] == pytest.approx(whole["neural_collapse"], rel=1e-9)

    def test_a_class_without_samples(self, network):
        model, x, y, *_ = network
        r = measure(model, (x, y.clamp_max(1)))
        assert r.neural_collapse is None
        assert any("class 2 has no samples" in note for note in r.notes)
        assert "class 2 has no samples" in r.table()

    def test_collect_and_held_out_quality(self, network):
        model, x, y, features, _ = network
        spectrum = feature_spectrum(lazyrich.collect(model, (x[:300], y[:300])))
        found = held_out_quality(spectrum, lazyrich.collect(model, (x[300:], y[300:])))
        targets = nn.functional.one_hot(y[300:], 3).numpy().astype(float)
        expected = reference.held_out_quality(features[:300].numpy(), features[300:].numpy(), targets)
        np.testing.assert_allclose(found, expected, atol=1e-8)


class TestProgress:
    def test_silent_by_default(self, network, capsys):
        model, x, *_ = network
        measure(model, x)
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (torch.zeros(600, 8), 3),
            ((torch.zeros(512, 8), torch.zeros(512)), 2),
            ({"inputs": torch.zeros(600, 8), "labels": torch.zeros(600)}, 1),
            ([torch.zeros(5, 8)] * 4, 4),
            (iter([torch.zeros(5, 8)]), None),
        ],
    )
    def test_knows_how_many_batches_come(self, data, expected):
        assert num_batches(data) == expected
        if expected is not None:
            assert len(list(batches(data, None))) == expected

    def test_on_standard_error(self, network, capsys):
        model, x, *_ = network
        measure(model, x, progress=True)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "measuring" in shown.err


class TestFiles:
    @pytest.fixture
    def result(self, network):
        model, x, y, *_ = network
        return measure(model, (x, y), nc4=True)

    def test_round_trip(self, result, tmp_path):
        result.save(tmp_path / "r.json")
        again = lazyrich.load(tmp_path / "r.json")
        assert again.to_dict() == result.to_dict()
        assert str(again) == str(result)
        for f in dataclasses.fields(Richness):
            if f.name not in ("spectrum", "influences"):  # influences are not saved
                assert getattr(again, f.name) == getattr(result, f.name)
        np.testing.assert_array_equal(again.spectrum.cumulative_quality, result.spectrum.cumulative_quality)
        assert [p.name for p in tmp_path.iterdir()] == ["r.json"]

    def test_results_without_targets_or_error(self, network, tmp_path):
        model, x, *_ = network
        result = measure(model, x[:6])
        assert result.low_rank_corrected is None
        result.save(tmp_path / "r.json")
        assert lazyrich.load(tmp_path / "r.json").to_dict() == result.to_dict()

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda v: v.update(schema_version=99), "schema version 99, this release reads 3 and 4: read it with"),
            (lambda v: v.update(schema="other"), "expected a JSON object with schema"),
            (lambda v: v.pop("low_rank"), "low_rank missing"),
            (lambda v: v.update(spectrum=3), "not a whole lazyrich result"),
            (lambda v: v["spectrum"].pop("rank"), "not a whole lazyrich result"),
            (lambda v: v.update(neural_collapse={"nc9": 1}), "not a whole lazyrich result"),
            (lambda v: v.update(low_rank_band=[1]), "not a whole lazyrich result"),
            (lambda v: v.update(low_rank="high"), "low_rank"),
            (lambda v: v.update(balanced=float("nan")), "is not JSON: NaN is not a finite number"),
            (lambda v: v["spectrum"]["eigenvalues"].append(float("inf")), "Infinity is not a finite number"),
        ],
    )
    def test_files_that_are_not_whole(self, result, tmp_path, change, match):
        values = result.to_dict()
        change(values)
        (tmp_path / "r.json").write_text(json.dumps(values))
        with pytest.raises(DataError, match=match):
            lazyrich.load(tmp_path / "r.json")

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"null"])
    def test_files_that_are_something_else(self, tmp_path, content):
        (tmp_path / "r.json").write_bytes(content)
        with pytest.raises(DataError, match=r"r\.json"):
            lazyrich.load(tmp_path / "r.json")

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            lazyrich.load(tmp_path / "r.json")


class TestTable:
    def test_holds_the_numbers(self, network):
        model, x, y, *_ = network
        r = measure(model, (x, y))
        text = r.table()
        assert f"D_LR (0 = rich)                   {r.low_rank:.4f}" in text
        assert f"{r.low_rank_corrected:.4f} ± {r.low_rank_stderr:.4f}" in text
        assert f"{r.output_rank} of 3" in text
        assert f"{r.neural_collapse.nc1:.4g}" in text
        assert max(map(len, text.splitlines())) <= 200

    def test_side_by_side(self, network):
        model, x, *_ = network
        text = lazyrich.table({"first": measure(model, x), "second": measure(model, x[:300])})
        header = text.splitlines()[0].split()
        assert header == ["first", "second"]
        samples = next(line for line in text.splitlines() if line.startswith("samples"))
        assert samples.split() == ["samples", "500", "300"]
