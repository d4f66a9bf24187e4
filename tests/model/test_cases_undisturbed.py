"""Inputs through which the first version could not be entered, or which it left changed: what each must give."""

import math

import pytest
import reference
import torch
from torch import nn
from torch.nn.utils import prune, weight_norm

import lazyrich
from lazyrich import schedules

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


class TestSchedulesAreDueOnceAStepWasPassed:  # 8
    @pytest.mark.parametrize(
        ("every", "expected"),
        [
            (5, [0, 6, 10, 16, 20, 26, 30, 36, 40]),
            (7, [0, 8, 14, 22, 28, 36]),
            (schedules.at(5, 15), [0, 6, 16]),
            (schedules.at(0, 15, 16), [0, 16]),
            (schedules.log_spaced(2), [0, 2, 4, 10, 32]),
        ],
        ids=["every 5", "every 7", "at 5 and 15", "at 15 and 16", "log-spaced"],
    )
    def test_steps_of_two(self, every, expected):
        torch.manual_seed(0)
        monitor = lazyrich.Monitor(nn.Linear(8, 3), torch.randn(64, 8), every=every)
        for step in range(2, 41, 2):
            monitor.step(step)
        assert monitor.series.steps.tolist() == expected


class TestALayerThatMergesInEvaluationMode:  # 9
    class Lora(nn.Linear):
        merged = False

        def __init__(self, features, outputs):
            super().__init__(features, outputs)
            self.A = nn.Parameter(torch.randn(outputs, features))

        def train(self, mode=True):
            super().train(mode)
            if self.merged == mode:
                self.weight.data += -self.A.data if mode else self.A.data
                self.merged = not mode
            return self

        def forward(self, x):
            return super().forward(x) + (0 if self.merged else x @ self.A.T)

    def test_is_merged_no_longer(self):
        torch.manual_seed(0)
        net = nn.Sequential(self.Lora(8, 16), nn.ReLU(), nn.Linear(16, 3)).train()
        before = net[0].weight.detach().clone()
        r = lazyrich.measure(net, x := torch.randn(64, 8))
        assert (net[0].training, net[0].merged) == (True, False)
        assert torch.equal(net[0].weight, before)
        with torch.no_grad():
            assert r.low_rank == pytest.approx(reference.d_lr(net[:2](x), net(x), eps=2.0**-23), rel=1e-5)


class TestBuffersThatForwardWrites:  # 10
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.h = nn.Linear(8, 16), nn.Linear(16, 3)
            self.register_buffer("mean", torch.zeros(16))

        def forward(self, x):
            z = torch.relu(self.f(x))
            self.mean.mul_(0.9).add_(0.1 * z.detach().mean(0))
            return self.h(z - self.mean)

    def test_are_put_back(self):
        torch.manual_seed(0)
        net = self.Net()
        before = net.mean.clone()
        lazyrich.measure(net, torch.randn(600, 8))
        assert torch.equal(before, net.mean)

    def test_training_gives_the_same_bits(self):
        def trained(monitored):
            torch.manual_seed(0)
            net, x = self.Net(), torch.randn(60, 8)
            monitor = lazyrich.Monitor(net, x, every=1) if monitored else None
            optimizer = torch.optim.SGD(net.parameters(), 0.1)
            for _ in range(3):
                net(x).square().mean().backward()
                optimizer.step()
                if monitor is not None:
                    monitor.step()
            return net.state_dict()

        plain, monitored = trained(False), trained(True)
        assert all(torch.equal(plain[name], monitored[name]) for name in plain)


class TestInferenceModeAroundTheCall:  # 11
    def test_the_same_numbers(self):
        torch.manual_seed(0)
        net, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(300, 8)
        outside = lazyrich.measure(net, x)
        with torch.inference_mode():
            inside = lazyrich.measure(net, x)
            monitor = lazyrich.Monitor(net, x)
            estimate = lazyrich.functional.low_rank_estimate(net[:2](x), net(x))
        assert inside.to_dict() == outside.to_dict()
        assert monitor.series.last("low_rank") == outside.low_rank
        assert estimate.corrected == pytest.approx(outside.low_rank_corrected, rel=1e-9)

    @pytest.mark.parametrize("corrected", [False, True])
    def test_a_metric_updated_inside_and_computed_outside(self, corrected):
        pytest.importorskip("torchmetrics")
        torch.manual_seed(0)
        features = torch.randn(100, 8)
        inside, outside = (lazyrich.LowRankMeasure(corrected=corrected) for _ in range(2))
        outside.update(features, features[:, :2])
        with torch.inference_mode():
            inside.update(features, features[:, :2])
        assert inside.compute() == outside.compute()


def _pruned(net):
    prune.l1_unstructured(net[0], "weight", 0.5)


def _normalised(net):
    with pytest.warns(FutureWarning):
        weight_norm(net[0])


def _stored(net):
    net[1].register_forward_hook(lambda module, args, output: setattr(module, "last", output))
    net(torch.randn(64, 8))


@pytest.mark.parametrize("wrap", [_pruned, _normalised, _stored], ids=["pruning", "old weight norm", "stored activation"])
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # the tangent kernel of an old weight norm
def test_networks_that_cannot_be_copied_deeply(wrap, tmp_path):  # 12
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(64, 8)
    wrap(net)
    torch.save(net.state_dict(), tmp_path / "step-0.pt")
    traced = lazyrich.trace(net, tmp_path, x).last("low_rank")
    monitored = lazyrich.Monitor(net, x, preset="full").series.last("low_rank")
    assert [traced, monitored] == pytest.approx([lazyrich.measure(net, x).low_rank] * 2, rel=1e-6)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_an_optional_part_does_not_end_the_measurement():  # 15
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.l, self.h = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x):
            return self.h(self.l(x)[0][:, -1])

    torch.manual_seed(0)
    monitor = lazyrich.Monitor(Net(), torch.randn(64, 5, 4), preset="full")
    assert math.isfinite(monitor.series.last("low_rank"))
    assert not math.isfinite(monitor.series.last("tangent_kernel_change"))
    assert "tangent kernel" in monitor.evaluations[0].note


class TestCheckpoints:  # 17
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.h = nn.Linear(8, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.h(torch.tanh(self.f(x)))

        def get_extra_state(self):
            return {"calls": 3}

        def set_extra_state(self, state):
            pass

    def test_extra_state(self, tmp_path):
        torch.manual_seed(0)
        net, x = self.Net(), torch.randn(50, 8)
        torch.save(net.state_dict(), tmp_path / "step-1.pt")
        series = lazyrich.trace(net, tmp_path, x)
        assert series.steps.tolist() == [1]
        assert series.last("low_rank") == pytest.approx(lazyrich.measure(net, x).low_rank, rel=1e-9)

    def test_prefixes_within(self, tmp_path):
        torch.manual_seed(0)
        net, other, x = nn.Sequential(nn.Linear(8, 3)), nn.Sequential(nn.Linear(8, 3)), torch.randn(50, 8)
        torch.save({"state_dict": {"model._orig_mod." + k: v for k, v in other.state_dict().items()}}, tmp_path / "step-1.pt")
        series = lazyrich.trace(net, tmp_path, x)
        assert series.last("low_rank") == pytest.approx(lazyrich.measure(other, x).low_rank, rel=1e-9)


def test_state_in_a_plain_attribute():  # 25
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.h, self.hidden = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 3), torch.zeros(1, 60, 8)

        def forward(self, x):
            out, self.hidden = self.g(x, self.hidden)
            return self.h(out[:, -1])

    torch.manual_seed(0)
    net, x = Net(), torch.randn(60, 5, 4)
    before = net.hidden
    assert lazyrich.measure(net, x).low_rank == lazyrich.measure(net, x).low_rank
    assert net.hidden is before
    assert not before.any()
