"""Targets of every kind, weights and balance, the starting network, very many outputs."""

import copy

import numpy as np
import pytest
import reference
import torch
from peak_memory import printed, reads_peak_memory
from torch import nn

import lazyrich
from lazyrich import DataError, Gram, measure
from lazyrich.functional import compressed_head, low_rank_estimate, low_rank_measure, neural_collapse

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def network(p=20, outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, p), nn.Tanh(), nn.Linear(p, outputs)).double()


def imbalanced(counts, seed=0):
    """Classes of unlike size, each with a mean and a spread of its own."""
    g = torch.Generator().manual_seed(seed)
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    means = 2 * torch.randn(len(counts), 6, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    x = means[y] + torch.randn(len(y), 6, generator=g, dtype=torch.float64) * (0.5 + y.unsqueeze(1))
    order = torch.randperm(len(y), generator=g)
    return x[order], y[order]


class TestClassBalance:
    def test_is_the_weighted_measure(self):
        model, (x, y) = network(), imbalanced([300, 60, 20])
        weights = 1 / torch.bincount(y).double()[y]
        with torch.no_grad():
            features, outputs = model[:2](x), model(x)
        r = measure(model, (x, y), class_balanced=True)
        assert r.low_rank == pytest.approx(reference.d_lr(features, outputs, weights), abs=1e-10)
        assert r.low_rank != pytest.approx(measure(model, (x, y)).low_rank, abs=1e-3)
        collapse = neural_collapse(features, y, head_weight=model[2].weight, weights=weights)
        assert r.neural_collapse.nc1 == pytest.approx(collapse.nc1, rel=1e-9)

    def test_agrees_with_resampling_to_balance(self):
        """Many balanced draws of the same population against weights on the imbalanced data: within their error bars."""
        model = network()
        population = measure(model, imbalanced([20_000] * 3, seed=1))
        inside = 0
        for seed in range(20):
            weighted = measure(model, imbalanced([600, 150, 60], seed=10 + seed), class_balanced=True)
            resampled = measure(model, imbalanced([270] * 3, seed=50 + seed))
            error = (weighted.low_rank_stderr**2 + resampled.low_rank_stderr**2) ** 0.5
            inside += abs(weighted.low_rank_corrected - resampled.low_rank_corrected) < 1.96 * error
            assert abs(weighted.low_rank_corrected - population.low_rank) < 4 * weighted.low_rank_stderr
        assert inside >= 17

    @pytest.mark.parametrize("kind", ["one-hot", "loader", "mapping", "with sample weights", "shuffled"])
    def test_other_ways_to_give_labels(self, kind):
        model, (x, y) = network(), imbalanced([100, 40, 20])
        expected = measure(model, (x, y), class_balanced=True).low_rank
        options = {}
        if kind == "one-hot":
            data = (x, nn.functional.one_hot(y).double())
        elif kind in ("loader", "shuffled"):
            dataset = torch.utils.data.TensorDataset(x, y)
            data = torch.utils.data.DataLoader(dataset, batch_size=13, shuffle=kind == "shuffled")
        elif kind == "mapping":

            class Model(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.inner = network()

                def forward(self, pixels, labels):
                    return self.inner(pixels)

            model, data = Model(), [{"pixels": x, "labels": y}]
        else:  # doubled samples of half the weight
            data, options = (x, y), {"sample_weights": torch.ones(160) * 7}
        assert measure(model, data, class_balanced=True, **options).low_rank == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize(
        ("data", "match"),
        [
            ((torch.randn(20, 6).double(), torch.randn(20, 3)), "one class a sample; these targets are torch.float32"),
            ((torch.randn(20, 6).double(), torch.randint(2, (20, 3)) | torch.tensor([1, 1, 0])), "one class a sample"),
            (torch.randn(20, 6).double(), "needs class labels"),
            (iter([torch.randn(20, 6).double()]), "class_balanced=True takes a second pass"),
        ],
    )
    def test_refused(self, data, match):
        with pytest.raises(DataError, match=match):
            measure(network(), data, class_balanced=True)

    def test_too_few_sample_weights(self):
        with pytest.raises(DataError, match="sample_weights has 5 entries"):
            measure(network(), imbalanced([10, 10, 10]), class_balanced=True, sample_weights=torch.ones(5))

    def test_labels_that_belong_to_no_row(self):
        """Of a model that answers at every token: its labels are shifted inside."""

        class Language(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)

            def forward(self, tokens, labels):
                return self.head(self.embed(tokens))

        tokens = torch.arange(60).reshape(12, 5) % 7
        with pytest.raises(DataError, match="class_balanced=True needs class labels"):
            measure(Language(), [{"tokens": tokens, "labels": tokens}], class_balanced=True)

    def test_unequal_classes_are_said(self):
        model = network()
        notes = measure(model, imbalanced([300, 60, 20])).notes
        assert any("the largest class weighs 15 times the smallest" in note for note in notes)
        assert not measure(model, imbalanced([50, 50, 50])).notes
        assert not measure(model, imbalanced([300, 60, 20]), class_balanced=True).notes


class TestKinds:
    def test_regression_with_a_known_answer(self):
        """Two orthonormal features of strength 2 and 1; the target is the weaker: quality 0 then 1, alignment 1/√17."""
        x = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
        head = nn.Linear(2, 1, bias=False).double()
        head.weight.data = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
        features = x * torch.tensor([2.0, 1.0])
        r = measure(head, (features, x[:, 1]))
        assert r.spectrum.cumulative_quality.tolist() == pytest.approx([0, 1], abs=1e-12)
        assert r.comparison.target_alignment == pytest.approx(1 / 17**0.5, abs=1e-12)
        assert r.low_rank == pytest.approx(1 - 4 / 17**0.5, abs=1e-12)
        assert r.neural_collapse is None

    def test_multi_label_with_a_known_answer(self):
        """Three independent labels, each a feature of its own; the features are all there is: D_LR = 0, alignment 1."""
        labels = torch.cartesian_prod(*[torch.tensor([0, 1])] * 3)
        model = nn.Linear(3, 3, bias=True).double()
        model.weight.data, model.bias.data = torch.eye(3).double(), torch.zeros(3).double()
        r = measure(model, (2.0 * labels.double() - 1, labels))
        assert r.low_rank == pytest.approx(0, abs=1e-12)
        assert r.comparison.target_alignment == pytest.approx(1, abs=1e-12)
        assert r.neural_collapse is None
        assert r.spectrum.cumulative_quality[-1] == pytest.approx(2 / 3, abs=0.34)

    def test_neural_collapse_is_refused_without_single_labels(self):
        labels = torch.cartesian_prod(*[torch.tensor([0, 1])] * 3)
        gram = lazyrich.collect(nn.Linear(3, 3), (torch.randn(8, 3), labels))
        with pytest.raises(DataError, match="one class per sample, and these targets are multi-label or real"):
            neural_collapse(gram)


class TestStart:
    def test_alignment_and_distance(self):
        model, (x, y) = network(), imbalanced([80, 80, 80])
        start = copy.deepcopy(model)
        with torch.no_grad():
            model[0].weight += torch.randn(20, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            now, then = model[:2](x), start[:2](x)
        start.train()
        r = measure(model, list(zip(x.split(50), y.split(50), strict=True)), start=start)
        assert r.comparison.s_init == pytest.approx(reference.cka(now.numpy(), then.numpy()), abs=1e-10)
        moved = float((model[0].weight - start[0].weight).detach().square().sum())
        assert r.comparison.parameter_distance == pytest.approx(moved)
        assert start.training
        assert "S_init" in r.table()

    def test_the_model_itself_is_no_start(self):
        model = network()
        with pytest.raises(ValueError, match="start is the model itself: keep a copy.deepcopy"):
            measure(model, torch.randn(20, 6).double(), start=model)
        with pytest.raises(TypeError, match="start must be a torch.nn.Module, a state dict or a path, got list"):
            measure(model, torch.randn(20, 6).double(), start=[])

    def test_comparison_against_the_functions(self):
        model, (x, y) = network(), imbalanced([80, 80, 80])
        with torch.no_grad():
            features = model[:2](x).numpy()
        found, expected = measure(model, (x, y)).comparison, reference.ranks(features)
        for name in ("participation_ratio", "effective_rank", "rankme", "stable_rank"):
            assert getattr(found, name) == pytest.approx(expected[name], rel=1e-6)
        assert found.alpha_req == pytest.approx(reference.exponent(features, 1, 10), rel=1e-6)
        assert found.target_alignment == pytest.approx(reference.cka(features, nn.functional.one_hot(y).numpy()), abs=1e-10)
        assert found.s_init is None
        assert found.parameter_norm == pytest.approx(sum(float(p.detach().square().sum()) for p in model.parameters()))


class TestManyOutputs:
    def test_compressed_outputs_are_the_outputs(self):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(300, 12, generator=g, dtype=torch.float64) + 1
        weight, bias = torch.randn(70, 12, generator=g, dtype=torch.float64), torch.randn(70, generator=g, dtype=torch.float64)
        for b in (bias, None):
            to_narrow, shift = compressed_head(weight, b)
            outputs = x @ weight.T + (0 if b is None else b)
            gram = Gram(num_outputs=70)
            gram.update(x, x @ to_narrow + shift)
            narrow, wide = low_rank_estimate(gram), low_rank_estimate(x, outputs)
            assert narrow.rank == wide.rank
            assert narrow.value == pytest.approx(reference.d_lr(x, outputs), abs=1e-9)
            assert (narrow.corrected, narrow.stderr) == pytest.approx((wide.corrected, wide.stderr), abs=1e-8)
            assert narrow.singular_values[:12] == pytest.approx(wide.singular_values[:12], rel=1e-9)
            for name in ("balanced", "outputs"):
                expected = low_rank_measure(x, outputs, reference=name).item()
                assert low_rank_measure(gram, reference=name).item() == pytest.approx(expected, abs=1e-9)

    def test_the_one_call(self):
        """5,000 outputs, compressed, against the slow reference on all of them."""
        model, (x, y) = network(outputs=5000), imbalanced([80, 80, 80])
        with torch.no_grad():
            features, outputs = model[:2](x), model(x)
        r = measure(model, (x, y), layers=["0"])
        assert r.low_rank == pytest.approx(reference.d_lr(features, outputs), abs=1e-8)
        assert r.balanced == pytest.approx(reference.d_lr(features, outputs, power=0.5), abs=1e-8)
        assert r.layers["0"].low_rank == pytest.approx(reference.d_lr(x, outputs), abs=1e-8)
        assert (r.num_outputs, r.neural_collapse, r.spectrum.quality) == (5000, None, None)
        assert any("labels of 5,000 classes are left out" in note for note in r.notes)

    @pytest.mark.parametrize("linear", [True, False])
    def test_their_own_rounding_decides_the_rank(self, linear):
        """4,097 outputs in bfloat16, of which 64 directions fall by a factor of 1.33 each: cut at 4 eps of bfloat16."""

        class Head(nn.Linear):
            def forward(self, input):
                return super().forward(input) * (1 if linear else torch.sigmoid(input[:, :1]))

        g = torch.Generator().manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), Head(64, 4097, bias=False))
        model[0].weight.data = torch.randn(64, 20, generator=g)
        directions = torch.linalg.qr(torch.randn(64, 64, generator=g)).Q * 10 ** (-torch.arange(64) / 8)
        model[2].weight.data = torch.randn(4097, 64, generator=g) @ directions
        model, x = model.bfloat16(), torch.randn(200, 20, generator=g).bfloat16()
        with torch.no_grad():
            features, outputs = (y.double().numpy() for y in (model[:2](x), model(x)))
        eps = torch.finfo(torch.bfloat16).eps
        r = measure(model, list(x.split(100)), layers=["0"] if linear else None)
        assert r.low_rank == pytest.approx(reference.d_lr(features, outputs, eps=eps), abs=1e-3)
        for layer in r.layers.values():
            assert layer.low_rank == pytest.approx(reference.d_lr(x.double(), outputs, eps=eps), abs=1e-3)
        assert (
            r.output_rank == (np.linalg.svd(outputs, compute_uv=False) > 4 * eps * np.linalg.norm(outputs) / 4097**0.5).sum() < 30
        )

    def test_without_a_weight_to_follow_them_from(self):
        class Hidden(nn.Linear):
            def __init__(self):
                super().__init__(12, 600)
                self.inner = [self.weight.detach()]
                del self.weight

            def forward(self, input):
                return nn.functional.linear(input, self.inner[0], self.bias)

        model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), Hidden())
        x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = low_rank_measure(model[:2](x), model(x)).item()
        assert measure(model, x).low_rank == pytest.approx(expected, abs=1e-7)  # as they are computed

    @reads_peak_memory
    def test_a_head_of_gpt2_size_stays_under_two_gigabytes(self):
        """C = 50,257 and p = 768: a C×C block alone would take 20 GB."""
        program = """
            import warnings, torch
            from transformers import GPT2Config, GPT2LMHeadModel
            import lazyrich
            torch.manual_seed(0)
            warnings.simplefilter("ignore", lazyrich.RankWarning)
            model = GPT2LMHeadModel(GPT2Config(n_layer=1))
            r = lazyrich.measure(model, [{"input_ids": torch.randint(50257, (2, 128))} for _ in range(4)])
            assert (r.num_outputs, r.num_features, r.num_samples) == (50257, 768, 1024), r
            print(peak())
        """
        assert printed(program) < 2048

    def test_errors(self):
        with pytest.raises(DataError, match=r"weight must have shape \(C, p\) and bias \(C,\), got \(4, 3\) and \(3,\)"):
            compressed_head(torch.ones(4, 3), torch.ones(3))
