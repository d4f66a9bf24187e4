"""Where a value lies among draws of a hypothesis: the draws against closed forms and against networks built by hand."""

import copy
import json
import random

import numpy as np
import pytest
import reference
import torch
from torch import nn

import lazyrich
from lazyrich import DataError, DegenerateError, HeadError, NonFiniteError, Null, measure, null_distribution

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")
X = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))


def network(width=20, outputs=3):
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, outputs))


@pytest.fixture
def model():
    torch.manual_seed(7)
    return network()


class Token(nn.Module):
    """A parameter that no module draws."""

    def __init__(self):
        super().__init__()
        self.inner, self.token, self.head = nn.Linear(6, 20), nn.Parameter(torch.ones(20)), nn.Linear(20, 3)

    def forward(self, x):
        return self.head(self.inner(x).tanh() + self.token)


class Attending(nn.Module):
    """Attention has a ``_reset_parameters`` and parameters of its own; embedding, recurrence and layer norm are there too."""

    def __init__(self):
        super().__init__()
        self.tokens, self.attention = nn.Embedding(9, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.after, self.head = nn.LayerNorm(8), nn.GRU(8, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, tokens):
        x = self.tokens(tokens)
        return self.head(self.after(self.norm(x + self.attention(x, x, x, need_weights=False)[0]))[0][:, -1])


class TestReadings:
    def test_below_all_draws(self):
        null = Null(0.1, tuple(0.2 + k / 100 for k in range(99)))
        assert (null.percentile, null.p_value) == (0, 0.01)

    def test_above_all_draws(self):
        null = Null(0.9, (0.1, 0.2, 0.3))
        assert (null.percentile, null.p_value, null.median, null.ratio) == (100, 1, 0.2, pytest.approx(4.5))

    def test_equal_draws_count_half_and_never_in_favour(self):
        null = Null(0.3, (0.1, 0.3, 0.3, 0.5))
        assert (null.percentile, null.p_value) == (50, 4 / 5)

    def test_quantiles_are_linear(self):
        null = Null(0.0, (0.0, 1.0, 3.0))
        assert [null.quantile(q) for q in (0, 0.25, 0.5, 0.75, 1)] == [0, 0.5, 1, 2, 3]

    def test_no_ratio_to_nothing(self):
        null = Null(0.1, (0.0, 0.0))
        assert np.isnan(null.ratio)
        assert null.to_dict()["ratio"] is None


class TestDraws:
    def test_they_are_the_networks_drawn_anew(self, model):
        """The same seeds by hand, measured by ``measure``; and their features with the outputs of the model."""
        null = null_distribution(model, X, draws=3, seed=5)
        own, features_only = [], []
        with torch.no_grad():
            for seed in (5, 6, 7):
                drawn = network()
                torch.manual_seed(seed)
                for layer in (0, 2):  # in the order of construction
                    drawn[layer].reset_parameters()
                own.append(measure(drawn, X).low_rank)
                features_only.append(reference.d_lr(drawn[:2](X), model(X), eps=2.0**-23))
        assert null.untrained_networks.draws == pytest.approx(sorted(own), abs=1e-12)
        assert null.untrained_features.draws == pytest.approx(sorted(features_only), abs=1e-6)
        assert null.low_rank == null.isotropic.value == measure(model, X).low_rank
        assert (null.num_samples, null.num_features, null.head) == (300, 20, "2")

    def test_build_makes_them(self, model):
        built = []

        def build():
            built.append(network(width=20))
            return built[-1]

        null = null_distribution(model, X, build=build, draws=4, seed=3)
        assert null.untrained_networks.draws == tuple(sorted(measure(m, X).low_rank for m in built))
        torch.manual_seed(3)
        assert torch.equal(network()[0].weight, built[0][0].weight)

    def test_build_may_train(self, model):
        def build():
            drawn = network()
            drawn(X).square().mean().backward()
            with torch.no_grad():
                drawn[2].weight -= drawn[2].weight.grad
            return drawn

        assert len(null_distribution(model, X, build=build, draws=2).untrained_networks.draws) == 2

    @pytest.mark.parametrize(("rank", "width"), [(1, 16), (4, 64), (10, 40)])
    def test_isotropic_draws_are_at_the_closed_form(self, rank, width):
        """White features give 1 - sqrt(r/p); n = 64 p leaves a plug-in bias of under sqrt(r/p) (p + 2)/2n."""
        torch.manual_seed(rank)
        n, share = 64 * width, (rank / width) ** 0.5
        null = null_distribution(nn.Linear(width, rank, bias=False), torch.randn(n, width), draws=10, num_samples=n).isotropic
        spread = np.std(null.draws, ddof=1)
        assert abs(np.mean(null.draws) - (1 - share)) < share * (width + 2) / (2 * n) + 4 * spread / 10**0.5
        assert spread < 0.01

    def test_isotropic_draws_have_the_outputs_mean_and_covariance(self, model):
        """A large mean brings the constant function nearly into the span, and the rank of what is centred from 3 to about 2."""
        with torch.no_grad():
            model[2].bias.copy_(torch.tensor([10.0, 0, 0]))
        null = null_distribution(model, X, draws=10)
        assert measure(model, X).isotropic > 1 - (2.2 / 20) ** 0.5
        assert np.mean(null.isotropic.draws) == pytest.approx(measure(model, X).isotropic, abs=0.015)

    def test_an_untrained_network_is_one_of_them(self):
        """P-values of untrained networks are uniform on 1/20 … 1: their mean is 0.525, with a standard error of 0.065."""
        p = []
        for seed in range(20):
            torch.manual_seed(1000 + seed)
            p.append(null_distribution(network(), X, seed=100 * seed).untrained_networks.p_value)
        assert abs(np.mean(p) - 0.525) < 3 * 0.065
        assert 0.2 < np.std(p) < 0.37  # 0.288

    def test_a_rich_network_lies_below_all(self):
        """A linear network trained from small weights to isotropic targets has D_LR = 0 (docs/concepts/references.md)."""
        torch.manual_seed(0)
        inputs = torch.linalg.qr(X - X.mean(0)).Q * 300**0.5
        model = nn.Sequential(nn.Linear(6, 32, bias=False), nn.Linear(32, 2, bias=False))
        with torch.no_grad():
            for layer in model:
                layer.weight.mul_(1e-2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        for _ in range(200):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(inputs), inputs[:, :2]).backward()
            optimizer.step()
        null = null_distribution(model, inputs)
        assert null.low_rank < 1e-3
        for among in (null.untrained_features, null.untrained_networks, null.isotropic):
            assert (among.percentile, among.p_value) == (0, 0.05)
            assert among.ratio < 0.01

    def test_balanced(self, model):
        null = null_distribution(model, X, reference="balanced", draws=1)
        assert null.low_rank == pytest.approx(measure(model, X).balanced, abs=1e-12)
        assert null.reference == "balanced"

    def test_only_the_first_samples_count(self, model):
        data = [(x, None) for x in X.split(64)]
        some = null_distribution(model, data, num_samples=100, draws=2)
        assert some == null_distribution(model, X[:100], draws=2)

    def test_batch_norm_has_the_statistics_of_the_samples(self):
        """As in training mode on all samples as one batch; at PyTorch's start it would do nothing."""
        torch.manual_seed(2)
        inputs = X * torch.tensor([1.0, 5, 25, 1, 1, 1])  # else nothing differs
        model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
        null = null_distribution(model, [inputs], draws=1, seed=4)
        drawn = copy.deepcopy(model)
        torch.manual_seed(4)
        drawn[1].reset_parameters()
        drawn[3].reset_parameters()
        drawn[0].momentum = 1.0
        drawn.train()(inputs)
        assert null.untrained_networks.draws[0] == pytest.approx(measure(drawn.eval(), inputs).low_rank, abs=1e-5)
        assert null.untrained_networks.draws[0] != pytest.approx(null.low_rank, abs=0.01)

    def test_a_batch_of_one_has_no_statistics_and_ends_nothing(self):
        model = nn.Sequential(nn.Linear(6, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3))
        assert null_distribution(model, [X[:65], X[65:66]], draws=1).num_samples == 66

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_in_the_precision_of_the_model(self, model, dtype):
        """Outputs that sum to zero have one direction of mere rounding, which must not count in any draw: rank 2 of 20."""
        with torch.no_grad():
            for x in (model[2].weight, model[2].bias):
                x -= x.mean(0)
        single = null_distribution(model, X, draws=3)
        other = null_distribution(model.to(dtype), X.to(dtype), draws=3)
        assert other.low_rank == pytest.approx(single.low_rank, abs=0.01)
        assert other.isotropic.draws == pytest.approx(single.isotropic.draws, abs=0.01)
        assert other.isotropic.median == pytest.approx(1 - (2 / 20) ** 0.5, abs=0.03)
        assert len(other.untrained_networks.draws) == 3

    def test_heads_of_other_kinds(self):
        torch.manual_seed(0)
        null = null_distribution(Attending(), torch.randint(9, (80, 5)), draws=2)
        assert (null.num_features, null.head) == (12, "head")
        null = null_distribution(nn.Linear(6, 2), X, draws=2)
        assert null.head == "(the model itself)"


class TestTheModelStays:
    def test_to_the_last_bit(self):
        model = nn.Sequential(nn.Linear(6, 20), nn.BatchNorm1d(20), nn.Dropout(0.5), nn.ReLU(), nn.Linear(20, 3)).train()
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(X, torch.arange(300) % 3),
            batch_size=50,
            shuffle=True,
            generator=torch.Generator().manual_seed(0),
        )
        before = copy.deepcopy(model.state_dict())
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), loader.generator.get_state()
        first, again = (null_distribution(model, loader, draws=2) for _ in range(2))
        assert first == again
        assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
        assert model.training
        assert all(m.training for m in model)
        assert all(p.requires_grad and p.grad is None for p in model.parameters())
        assert not any(m._forward_hooks for m in model.modules())
        assert torch.equal(torch.get_rng_state(), states[0])
        np.testing.assert_array_equal(np.random.get_state()[1], states[1])
        assert random.getstate() == states[2]
        assert torch.equal(loader.generator.get_state(), states[3])


class TestErrors:
    def test_parameters_that_nobody_draws_are_named(self):
        with pytest.raises(ValueError, match=r"Token: no reset_parameters draws token anew; pass build="):
            null_distribution(Token(), X)
        assert len(null_distribution(Token(), X, build=Token, draws=2).untrained_networks.draws) == 2

    def test_parametrized_weights_are_named_for_their_reset_does_nothing(self, model):
        nn.utils.parametrizations.weight_norm(model[0])
        with pytest.raises(ValueError, match=r"draws 0\.parametrizations\.weight\.original0, 0\.par\S+original1 anew"):
            null_distribution(model, X)

    def test_what_build_returns(self, model):
        with pytest.raises(TypeError, match="got the model itself"):
            null_distribution(model, X, build=lambda: model)
        with pytest.raises(TypeError, match="got int"):
            null_distribution(model, X, build=lambda: 3)
        with pytest.raises(HeadError, match="head='2' is not a module"):
            null_distribution(model, X, build=lambda: nn.Sequential(nn.Linear(6, 3)))

    @pytest.mark.parametrize("draws", [0, -1, 1.5])
    def test_draws(self, model, draws):
        with pytest.raises(ValueError, match=f"at least 1, got {draws}"):
            null_distribution(model, X, draws=draws)

    def test_model(self):
        with pytest.raises(TypeError, match="model must be a torch.nn.Module, got str"):
            null_distribution("model", X)

    def test_data(self, model):
        with pytest.raises(DataError, match="no samples"):
            null_distribution(model, [])
        with pytest.raises(NonFiniteError, match="features hold NaN"):
            null_distribution(model, X * torch.nan)

    def test_a_dead_draw_is_said_to_be_one(self, model):
        def build():
            drawn = network()
            drawn[0].weight.data.zero_()
            return drawn

        with pytest.raises(DegenerateError, match="draw 0 of the untrained network: features are constant"):
            null_distribution(model, X, build=build)

    def test_a_head_that_starts_at_zero_leaves_one_hypothesis_out(self, model):
        def build():
            drawn = network()
            nn.init.zeros_(drawn[2].weight)
            return drawn

        null = null_distribution(model, X, build=build, draws=3)
        assert null.untrained_networks is None
        assert len(null.untrained_features.draws) == 3
        assert "untrained networks" not in str(null)
        assert null.to_dict()["untrained_networks"] is None


def test_as_text_and_as_values(model):
    null = null_distribution(model, X, draws=3)
    lines = str(null).splitlines()
    assert lines[0] == f"D_LR {null.low_rank:.4f} (projection, n = 300, p = 20) among 3 draws each"
    assert [line.split("  ")[0] for line in lines[3:]] == [
        "untrained features, these outputs",
        "untrained networks, their outputs",
        "features without structure",
    ]
    for line, name in zip(lines[3:], ("untrained_features", "untrained_networks", "isotropic"), strict=True):
        found = getattr(null, name)
        assert f"{found.median:.4f}" in line
        assert line.endswith(f"{found.ratio:.2f}")
    values = json.loads(json.dumps(null.to_dict(), allow_nan=False))
    assert values["isotropic"]["draws"] == list(null.isotropic.draws)
    assert values["isotropic"]["p_value"] == null.isotropic.p_value
    assert lazyrich.NullDistribution is type(null)
