"""The networks of the experiments: sizes, norms, parametrizations."""

import math

import pytest
import torch
from torch import nn

import lazyrich
from lazyrich.experiments import Mlp, Optimizer, ResNet18, Transformer, Vgg16
from lazyrich.experiments.ingredients.convnets import FrozenBatchNorm2d, norm_layer
from lazyrich.experiments.ingredients.parametrization import parametrized, rate_factors

IMAGES = torch.zeros(2, 3, 32, 32)


def size(model):
    return sum(p.numel() for p in model.parameters())


class TestSizes:
    """Published counts."""

    def test_resnet18(self):
        assert size(ResNet18().build(IMAGES, 100)) == 11_220_132

    def test_vgg16(self):
        assert size(Vgg16().build(IMAGES, 100)) == 34_015_396
        assert size(Vgg16(norm="none").build(IMAGES, 100)) == 34_015_396 - 2 * 4224  # a scale and a shift for each channel

    def test_mlp(self):
        mlp = Mlp(width=512, depth=4).build(torch.zeros(2, 1, 28, 28), 10)
        assert size(mlp) == 784 * 512 + 512 + 2 * (512 * 512 + 512) + 512 * 10 + 10

    def test_transformer(self):
        """Two blocks of 12 d² + 13 d, embeddings, a norm and the head."""
        d, tokens = 128, 99
        model = Transformer(tokens=tokens).build(torch.zeros(2, 4), 97)
        assert size(model) == 2 * (12 * d * d + 13 * d) + (tokens + 4) * d + 2 * d + 97 * d + 97


@pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")  # untrained
@pytest.mark.parametrize(
    ("described", "example"),
    [
        (Mlp(width=16), torch.rand(40, 1, 8, 8)),
        (ResNet18(width=4), torch.rand(40, 3, 32, 32)),
        (Vgg16(width=2), torch.rand(40, 3, 32, 32)),
        (Transformer(tokens=9, width=16), torch.randint(9, (40, 4))),
    ],
)
def test_the_head_is_found_and_its_width_is_measured(described, example):
    torch.manual_seed(0)
    model = described.build(example, 5)
    r = lazyrich.measure(model, example)
    assert r.head == "head"
    assert (r.num_features, r.num_outputs) == (model.head.in_features, 5)


def test_the_transformer_answers_as_if_all_tokens_were_computed():
    torch.manual_seed(0)
    model = Transformer(tokens=9, width=16).build(torch.zeros(1, 4), 5)
    tokens = torch.randint(9, (7, 4))
    x = model.tokens(tokens) + model.positions(torch.arange(4))
    for block in model.blocks:
        x = block(x, 4)
    torch.testing.assert_close(model(tokens), model.head(model.norm(x))[:, -1])


class TestNorms:
    @pytest.mark.parametrize("norm", ["batch", "none", "frozen batch", "layer", "group"])
    def test_every_norm_trains(self, norm):
        torch.manual_seed(0)
        model = Vgg16(width=16, norm=norm, dropout=0.0).build(IMAGES, 4)
        x, y = torch.randn(16, 3, 32, 32), torch.arange(16) % 4
        optimizer = Optimizer("sgd", 0.002).build(model, Vgg16(width=16, norm=norm))
        losses = []
        for _ in range(12):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
        assert losses[-1] < losses[0]

    def test_frozen_batch_norm_is_batch_norm_on_its_first_batch_and_an_affine_map_ever_after(self):
        torch.manual_seed(0)
        frozen, plain = FrozenBatchNorm2d(4), nn.BatchNorm2d(4)
        first, later = torch.randn(8, 4, 5, 5) * 3 + 1, torch.randn(8, 4, 5, 5)
        n = 8 * 25  # batch norm divides by n, the running variance by n - 1
        torch.testing.assert_close(frozen(first), plain(first) * math.sqrt((n - 1) / n), atol=1e-4, rtol=1e-4)
        whole = frozen(later)
        torch.testing.assert_close(whole[:1], frozen(later[:1]))  # no sample knows of another
        frozen.eval()
        torch.testing.assert_close(whole, frozen(later))

    def test_layer_norm_and_group_norm_are_per_sample(self):
        x = torch.randn(6, 32, 5, 5)
        for name in ("layer", "group"):
            norm = norm_layer(name, 32)
            torch.testing.assert_close(norm(x)[:1], norm(x[:1]))
        flat = norm_layer("layer", 32)(x).flatten(1)
        torch.testing.assert_close(flat.mean(1), torch.zeros(6), atol=1e-5, rtol=0)

    def test_unknown(self):
        with pytest.raises(ValueError, match="norm must be one of batch, none, frozen batch, layer, group, got 'batchnorm'"):
            norm_layer("batchnorm", 3)


class TestParametrization:
    def one_step(self, width, kind, rate=1e-3, name="adam"):
        """Relative change of the features by one step, of an MLP of that width."""
        described = Mlp(width=width, depth=3, parametrization=kind, base_width=64)
        torch.manual_seed(0)
        x, y = torch.randn(64, 20), torch.arange(64) % 4
        model = described.build(x, 4)
        features = model[:-1](x).detach()
        optimizer = Optimizer(name, rate).build(model, described)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        return ((model[:-1](x) - features).norm() / features.norm()).item()

    @pytest.mark.parametrize("name", ["adam", "sgd"])
    def test_features_move_as_much_at_every_width_under_mup(self, name):
        rate = 1e-3 if name == "adam" else 0.1
        narrow, wide = (self.one_step(width, "mup", rate, name) for width in (64, 2048))
        assert 0.5 < wide / narrow < 2

    def test_features_move_less_with_width_under_ntk(self):
        """By 1/√width for gradient descent: 32 times the width, a sixth of the way."""
        narrow, wide = (self.one_step(width, "ntk", 0.1, "sgd") for width in (64, 2048))
        assert 32**0.5 / 2 < narrow / wide < 32**0.5 * 2

    @pytest.mark.parametrize("kind", ["ntk", "mup"])
    def test_at_the_base_width_the_start_is_the_standard_one(self, kind):
        x = torch.randn(5, 20)
        models = []
        for parametrization in ("standard", kind):
            torch.manual_seed(1)
            models.append(Mlp(width=64, depth=3, parametrization=parametrization, base_width=64).build(x, 4))
        torch.testing.assert_close(models[0](x), models[1](x))

    def test_output_scale(self):
        x = torch.randn(5, 20)
        outputs = []
        for scale in (1.0, 0.1):
            torch.manual_seed(1)
            outputs.append(Mlp(width=16, output_scale=scale).build(x, 4)(x))
        torch.testing.assert_close(outputs[1], outputs[0] * 0.1)

    def test_rates(self):
        described = Mlp(width=128, depth=3, parametrization="mup", base_width=64)
        model = described.build(torch.zeros(1, 20), 4)
        hidden = model.layer2.weight
        for adaptive, expected in ((True, {0.5: 1, 1.0: 5}), (False, {1.0: 1, 2.0: 5})):
            groups = rate_factors(model, "mup", 2.0, adaptive)
            assert {factor: len(parameters) for parameters, factor in groups} == expected
            own = next(factor for parameters, factor in groups if any(p is hidden for p in parameters))
            assert own == (0.5 if adaptive else 1.0)

    def test_errors(self):
        with pytest.raises(ValueError, match="parametrization must be one of standard, ntk, mup, got 'sp'"):
            parametrized(nn.Linear(2, 2), "sp")
        with pytest.raises(ValueError, match="no linear or convolution layer"):
            parametrized(nn.ReLU(), "ntk")


def test_initial_scale():
    torch.manual_seed(0)
    model = Mlp(width=400, activation="tanh", init_scale=5.0).build(torch.zeros(1, 400), 10)
    assert model.layer2.weight.std().item() == pytest.approx(5 / 400**0.5, rel=0.01)
