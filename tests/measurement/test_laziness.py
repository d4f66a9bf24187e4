"""λ of a measurement: with the start, by redraws, at layers, under batch norm, and where there is none."""

import copy
import dataclasses
import json

import pytest
import reference
import torch
from safetensors.torch import save_file
from torch import nn

import lazyrich
from lazyrich import CheckpointError, DataError, measure
from lazyrich.model.calls import MANY_OUTPUTS

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def network(norm=False, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, 32), *([nn.BatchNorm1d(32)] if norm else []), nn.ReLU(), nn.Linear(32, 24),
        *([nn.BatchNorm1d(24)] if norm else []), nn.ReLU(), nn.Linear(24, 5),
    )  # fmt: skip


def data(n=600):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, 8, generator=g)
    return x, (x[:, 0].abs() * 2).long().clamp(max=4)


def moved(model, seed=3, size=0.2):
    """Every weight changed."""
    model = copy.deepcopy(model)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(size * torch.randn(p.shape, generator=g))
    return model


def with_another_head(model, seed=4):
    """Only the last layer changed."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        model[-1].weight.copy_(torch.randn(model[-1].weight.shape, generator=torch.Generator().manual_seed(seed)))
    return model


def features(model, x):
    with torch.no_grad():
        return model[:-1](x)


class TestWithTheStart:
    def test_the_values_are_those_of_explicit_kernels(self):
        start, (x, y) = network().double(), data()
        model, x = moved(start), x.double()
        r = measure(model, (x, y), start=start)
        now, then, outputs = features(model, x), features(start, x), model(x).detach()
        for value, power in ((r.laziness, 1.0), (r.laziness_balanced, 0.5)):
            expected = reference.d_lr(now, outputs, power=power) / reference.d_lr(then, outputs, power=power)
            assert value == pytest.approx(expected, rel=1e-8)
        assert r.laziness_source == "start"
        assert r.laziness_interval[0] < r.laziness_corrected < r.laziness_interval[1]

    @pytest.mark.parametrize("seed", range(4))
    def test_unmoved_features_give_1_whatever_the_outputs(self, seed):
        start = network()
        r = measure(with_another_head(start, seed), data(), start=start)
        assert (r.laziness, r.laziness_balanced) == pytest.approx((1, 1), abs=1e-12)

    def test_weights_of_rows_count_in_both(self):
        start, (x, y) = network().double(), data(300)
        model, x = moved(start), x.double()
        weights = torch.rand(300, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        r = measure(model, (x, y), start=start, sample_weights=weights)
        outputs = model(x).detach()
        expected = reference.d_lr(features(model, x), outputs, weights) / reference.d_lr(features(start, x), outputs, weights)
        assert r.laziness == pytest.approx(expected, rel=1e-8)

    def test_the_start_as_a_state_dict_or_a_file(self, tmp_path):
        start = network()
        model, expected = moved(start), measure(moved(start), data(), start=start)
        torch.save(start.state_dict(), tmp_path / "start.pt")
        save_file(start.state_dict(), tmp_path / "start.safetensors")
        wrapped = {f"module.{name}": value for name, value in start.state_dict().items()}
        for given in (start.state_dict(), wrapped, tmp_path / "start.pt", str(tmp_path / "start.safetensors")):
            r = measure(model, data(), start=given)
            assert (r.laziness, r.comparison) == (expected.laziness, expected.comparison)

    def test_errors_name_the_start(self, tmp_path):
        model = network()
        with pytest.raises(CheckpointError, match="start: the state dict does not fit Sequential"):
            measure(model, data(), start=nn.Linear(3, 3).state_dict())
        with pytest.raises(CheckpointError, match="missing.pt does not exist"):
            measure(model, data(), start=tmp_path / "missing.pt")
        wider = network()
        wider[0] = nn.Linear(99, wider[0].out_features)
        with pytest.raises(RuntimeError, match="^start: mat1 and mat2"):
            measure(model, data(), start=wider)

    @pytest.mark.parametrize("num_samples", [None, 30])
    def test_a_start_with_other_rows(self, num_samples):
        """More rows would be cut to the first ones, and features of one input compared with those of another."""
        torch.manual_seed(0)
        model, start = nn.Linear(4, 2), nn.Linear(4, 2)
        x = torch.randn(50, 4)

        def forward(network, batch):
            rows = torch.cat([batch, batch]) if network is start else batch
            return lazyrich.Rows(rows, network(rows))

        with pytest.raises(DataError, match="both must give the same rows"):
            measure(model, [x], start=start, forward=forward, num_samples=num_samples)

    def test_very_many_outputs_that_do_not_follow_from_the_features(self):
        """Their rows are held and replaced at the end, and the features of the start must stay with them."""

        class Hidden(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner, self.head = nn.Linear(8, 16), nn.Linear(16, MANY_OUTPUTS + 1, bias=False)

            def forward(self, x):
                return self.head(torch.tanh(self.inner(x)))

        torch.manual_seed(0)
        start, (x, _) = Hidden(), data(90)
        nn.utils.parametrizations.spectral_norm(start.head)
        start.eval()
        model = copy.deepcopy(start)
        with torch.no_grad():
            model.inner.weight.add_(torch.randn(16, 8))
            outputs = model(x)
            expected = reference.d_lr(torch.tanh(model.inner(x)), outputs, eps=2.0**-23) / reference.d_lr(
                torch.tanh(start.inner(x)), outputs, eps=2.0**-23
            )
        r = measure(model, [x[:50], x[50:]], head="head", start=start)
        assert r.laziness == pytest.approx(expected, rel=1e-4)

    def test_no_room(self):
        """Where the features of the start hold just the outputs, nothing can become richer."""
        torch.manual_seed(0)
        start = nn.Sequential(nn.Linear(8, 4, bias=False), nn.Linear(4, 4, bias=False))
        with torch.no_grad():
            start[0].weight.copy_(torch.linalg.qr(torch.randn(8, 4)).Q.T)
            start[1].weight.copy_(torch.linalg.qr(torch.randn(4, 4)).Q)
        r = measure(moved(start, size=0.01), torch.randn(2000, 8), start=start)
        assert (r.laziness, r.laziness_balanced, r.laziness_source) == (None, None, "start")
        assert any(note.startswith("no laziness ratio: the features of the start have D_LR 0.0") for note in r.notes)
        assert any(note.startswith("no balanced laziness ratio") for note in r.notes)

    def test_a_start_of_constant_features_leaves_it_out(self):
        start = network()
        model = moved(start)
        with torch.no_grad():
            start[2].weight.zero_()
            start[2].bias.fill_(-1)
        with pytest.raises(lazyrich.DegenerateError, match="features of the start are constant"):  # S_init has none either
            measure(model, data(), start=start)


class TestBatchNorm:
    """That has seen no batch does nothing; the last layer alone must give λ = 1 all the same."""

    def trained(self, start):
        """Only the last layer trained, in training mode, so that batch norm gathers its statistics."""
        model, (x, y) = copy.deepcopy(start).train(), data()
        optimizer = torch.optim.SGD(model[-1].parameters(), lr=0.1)
        for k in range(60):
            rows = torch.randperm(600, generator=torch.Generator().manual_seed(k))[:200]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        return model

    def test_the_last_layer_alone(self):
        start = network(norm=True)
        before = copy.deepcopy(start.state_dict())
        model = self.trained(start)
        r = measure(model, data(), start=start)
        assert r.laziness == pytest.approx(1, abs=0.01)
        assert r.laziness_balanced == pytest.approx(1, abs=0.01)
        x, outputs = data()[0], model.eval()(data()[0]).detach()
        without = reference.d_lr(features(model, x), outputs) / reference.d_lr(features(start.eval(), x), outputs)
        assert abs(without - 1) > 0.03  # what it would be without statistics
        for name, value in start.state_dict().items():
            assert torch.equal(value, before[name]), name

    def test_both_without_a_batch(self):
        start = network(norm=True)
        assert measure(with_another_head(start), data(), start=start).laziness == pytest.approx(1, abs=1e-12)

    def test_a_start_with_statistics_is_taken_as_it_is(self):
        start = network(norm=True).train()
        start(data()[0])
        model = moved(start.eval())
        r, x = measure(model, data(), start=start), data()[0]
        outputs = model(x).detach()
        expected = reference.d_lr(features(model, x), outputs) / reference.d_lr(features(start, x), outputs)
        assert r.laziness == pytest.approx(expected, rel=1e-4)

    def test_data_that_can_be_used_once(self):
        start, (x, y) = network(norm=True), data()
        r = measure(self.trained(start), iter([(x, y)]), start=start)
        assert r.laziness is None
        assert r.comparison.s_init is not None
        assert any("data can be used once" in note for note in r.notes)

    def test_a_loader_that_shuffles_gives_every_pass_the_same_rows(self):
        x, y = data()
        start = network(norm=True)
        model = self.trained(start)
        set_of_rows = torch.utils.data.TensorDataset(x, y)
        for generator in (None, torch.Generator().manual_seed(0)):
            loader = torch.utils.data.DataLoader(set_of_rows, batch_size=100, shuffle=True, generator=generator)
            torch.manual_seed(7)
            a = measure(model, loader, start=start, num_samples=200)
            b = measure(model, loader, num_samples=200)
            assert (a.low_rank, a.output_singular_values) == (b.low_rank, b.output_singular_values)
            assert a.laziness == pytest.approx(1, abs=0.03)


class TestLayers:
    def test_each_against_its_own_start(self):
        start, (x, _) = network().double(), data()
        x = x.double()
        model = moved(start)
        r = measure(model, x, start=start, layers="all")
        outputs = model(x).detach()
        for name in ("0", "2", "4"):
            depth = int(name)
            with torch.no_grad():
                now, then = model[:depth](x), start[:depth](x)
            expected = reference.d_lr(now, outputs) / reference.d_lr(then, outputs)
            assert r.layers[name].laziness == pytest.approx(expected, rel=1e-8)
        assert r.layers["0"].laziness == pytest.approx(1, abs=1e-12)  # it sees the data
        assert r.layers["4"].laziness == pytest.approx(r.laziness, abs=1e-12)
        assert r.numbers()["laziness of 2"] == r.layers["2"].laziness

    def test_without_the_start(self):
        r = measure(network(), data(), layers="all")
        assert {(layer.laziness, layer.laziness_stderr) for layer in r.layers.values()} == {(None, None)}
        assert not any(name.startswith("laziness") for name in r.numbers())

    def test_the_last_one_has_the_error_of_the_head(self):
        start, x = network(), data(3000)  # more rows than are retained
        r = measure(moved(start), x, start=start, layers="all")
        last = r.layers["4"]
        assert last.laziness_corrected == pytest.approx(r.laziness_corrected, abs=1e-3)  # on other rows
        assert last.laziness_stderr == pytest.approx(r.laziness_stderr, rel=0.05)
        assert f"{last.laziness_corrected:.4f} ± {last.laziness_stderr:.4f}" in r.table()
        assert (r.layers["0"].laziness_corrected, r.layers["0"].laziness_stderr) == pytest.approx((1, 0), abs=1e-9)

    def test_the_claimed_error_is_the_seen_one(self):
        start = network()
        model, values, errors = moved(start), [], []
        for seed in range(20):
            x = torch.randn(150, 8, generator=torch.Generator().manual_seed(100 + seed))
            layer = measure(model, x, start=start, layers=["2"]).layers["2"]
            values.append(layer.laziness_corrected)
            errors.append(layer.laziness_stderr)
        assert 0.7 < torch.tensor(errors).median() / torch.tensor(values).std() < 1.5

    def test_wide_layers_are_reduced_alike(self, monkeypatch):
        torch.manual_seed(0)
        wide = nn.Sequential(nn.Linear(8, 4200), nn.ReLU(), nn.Linear(4200, 6), nn.ReLU(), nn.Linear(6, 3))
        model, x = with_another_head(wide), data(60)[0]
        r = measure(model, x, start=wide, layers=["2"])
        assert r.layers["2"].reduction.startswith("exact")
        assert r.layers["2"].laziness == pytest.approx(1, abs=1e-12)
        assert r.layers["2"].laziness_stderr == pytest.approx(0, abs=1e-9)
        monkeypatch.setattr("lazyrich.measurement.narrow.HELD_BYTES", 0)
        r = measure(model, x, start=wide, layers=["2"])
        assert r.layers["2"].reduction_stderr is not None
        assert r.layers["2"].laziness == pytest.approx(1, abs=1e-12)
        assert (r.layers["2"].laziness_corrected, r.layers["2"].laziness_stderr) == (None, None)


class TestRedraws:
    def test_the_ratio_to_the_median_of_the_same_draws(self):
        model = moved(network())
        r = measure(model, data(), null=5)
        null = lazyrich.null_distribution(model, data(), draws=5).untrained_features
        assert r.laziness == pytest.approx(null.ratio, rel=1e-9)
        assert r.laziness_stderr == pytest.approx(torch.tensor([null.value / draw for draw in null.draws]).std().item(), rel=1e-5)
        assert (r.laziness_source, r.laziness_corrected, r.comparison.s_init) == ("redraws", None, None)
        balanced = lazyrich.null_distribution(model, data(), draws=5, reference="balanced").untrained_features
        assert r.laziness_balanced == pytest.approx(balanced.ratio, rel=1e-9)
        assert f"{r.laziness:.4f} ± {r.laziness_stderr:.4f} over redraws" in r.table()

    def test_build_gives_the_draws(self):
        start = network()
        r = measure(with_another_head(start), data(), null=2, build=lambda: copy.deepcopy(start))
        assert r.laziness == pytest.approx(1, abs=1e-12)
        assert r.laziness_stderr == pytest.approx(0, abs=1e-12)

    def test_batch_norm_of_draws_is_given_statistics(self):
        start = network(norm=True)
        model = TestBatchNorm().trained(start)
        r = measure(model, data(), null=1, build=lambda: copy.deepcopy(start))
        assert r.laziness == pytest.approx(1, abs=0.01)
        assert r.laziness_stderr is None

    def test_nothing_else_changes_and_random_states_stay(self):
        model = moved(network())
        torch.manual_seed(3)
        before = torch.random.get_rng_state()
        r = measure(model, data(), null=2)
        assert torch.equal(torch.random.get_rng_state(), before)
        plain = dataclasses.replace(r, **{name: None for name in dataclasses.asdict(r) if name.startswith("laziness")})
        assert plain.to_dict() == measure(model, data()).to_dict()

    def test_what_does_not_fit_together(self):
        model, (x, y) = network(), data()
        with pytest.raises(ValueError, match="start and null=3 were both passed"):
            measure(model, (x, y), start=network(), null=3)
        with pytest.raises(ValueError, match="build is used with null"):
            measure(model, (x, y), build=network)
        with pytest.raises(ValueError, match="null must be a whole number of draws, 0 or more, got -1"):
            measure(model, (x, y), null=-1)
        with pytest.raises(DataError, match="null=3 takes a pass over the data for each draw, and data is an iterator"):
            measure(model, iter([(x, y)]), null=3)


def test_a_file_keeps_it_and_a_file_without_it_still_loads(tmp_path):
    start = network()
    r = measure(moved(start), data(), start=start, layers="all")
    r = dataclasses.replace(r, laziness_corrected=0.5, laziness_stderr=0.1, laziness_interval=(0.3, 0.7))
    r.save(tmp_path / "r.json")
    assert lazyrich.load(tmp_path / "r.json").to_dict() == r.to_dict()
    old = json.loads((tmp_path / "r.json").read_text())
    old = {name: value for name, value in old.items() if not name.startswith("laziness")}
    for layer in old["layers"].values():
        for name in ("laziness", "laziness_corrected", "laziness_stderr", "participation_ratio_stderr"):
            del layer[name]
    del old["comparison"]["s_init_stderr"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    read = lazyrich.load(tmp_path / "old.json")
    assert (read.laziness, read.laziness_interval, read.laziness_source, read.low_rank) == (None, None, None, r.low_rank)
    assert {layer.laziness for layer in read.layers.values()} == {None}


def test_s_init_has_an_error_and_shares_the_rows_of_the_head():
    start, (x, y) = network(), data(3000)
    model = moved(start)
    r = measure(model, (x, y), start=start)
    alone = lazyrich.functional.standard_error("kernel_alignment", features(model, x), features(start, x), retain=3000)
    assert r.comparison.s_init_stderr == pytest.approx(alone, rel=0.1)  # of 1,024 rows
    assert f"{r.comparison.s_init:.4g} ± {r.comparison.s_init_stderr:.2g}" in r.table()
    balanced = measure(model, (x, y), start=start, class_balanced=True)
    assert balanced.comparison.s_init_stderr > r.comparison.s_init_stderr
