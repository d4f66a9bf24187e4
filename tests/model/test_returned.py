"""What counts as evidence that a tensor is made of a head's outputs, and what does not: the random networks' findings, small."""

import pytest
import torch
from torch import nn

from lazyrich import HeadError, NonFiniteError, measure
from lazyrich.functional import low_rank_measure

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """A body, a head, another linear layer, and what the network makes of them."""

    def __init__(self, finish, outputs=3):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.other = nn.Sequential(nn.Linear(5, 7), nn.Tanh()), nn.Linear(7, outputs), nn.Linear(7, outputs)
        self.finish = finish

    def forward(self, x):
        phi = self.body(x)
        return self.finish(self, phi, self.head(phi))


class TestOutputsThatHardlyVary:
    x = 1.0 + 5e-6 * drawn(60, 5)

    def test_a_function_is_not_taken_for_a_constant_vector(self):
        """Within rounding of outputs that are near one vector each, every tensor is the outputs plus another vector."""
        net = Net(lambda net, phi, out: out.sigmoid(), outputs=2)
        result = measure(net, self.x)
        assert result.evidence.returned == "increasing function (sigmoid)"
        with torch.no_grad():
            phi = net.body(self.x)
            assert result.low_rank == pytest.approx(low_rank_measure(phi, net.head(phi)).item(), abs=1e-9)

    def test_another_layer_is_not_taken_for_the_head(self):
        net = Net(lambda net, phi, out: (out, net.other(phi).sum())[0])
        assert measure(net, self.x).head == "head"

    def test_one_position_is_not_taken_for_the_mean(self):
        net = Net(lambda net, phi, out: out[:, -1])
        x = 1.0 + 1e-6 * drawn(16, 4, 5)
        assert measure(net, x).evidence.returned == "as it is, selected positions"

    def test_a_gate_is_not_taken_for_a_multiple(self):
        with pytest.raises(HeadError, match="something other than"):
            measure(Net(lambda net, phi, out: out * (1.5 + net.other(phi).sin())), self.x)


class TestOneSampleABatch:
    """A batch of one sample shows little, and what it shows must be so in the next one, with the same numbers."""

    x = drawn(12, 1, 5)

    @pytest.mark.parametrize(
        "finish",
        [
            lambda net, phi, out: out * (1.5 + net.other(phi).sin()[:, :1]),
            lambda net, phi, out: (out * (1.5 + net.other(phi).sin()[:, :1])).log_softmax(1),
        ],
        ids=["multiple", "temperature"],
    )
    def test_a_gate_is_no_constant(self, finish):
        with pytest.raises(HeadError, match="on a later one it does not"):
            measure(Net(finish), list(self.x))

    def test_two_classes_show_no_temperature(self):
        """One number of the outputs and one of the model's answer are always a multiple of one another."""
        with pytest.raises(HeadError, match="something other than"):
            measure(Net(lambda net, phi, out: net.other(phi).square().log_softmax(1), outputs=2), list(self.x))

    def test_constants_that_stay_are_found(self):
        for finish in (lambda net, phi, out: -2 * out, lambda net, phi, out: (3 * out).log_softmax(1)):
            net = Net(finish)
            result = measure(net, list(self.x))
            with torch.no_grad():
                phi = net.body(self.x.flatten(0, 1))
                assert result.low_rank == pytest.approx(low_rank_measure(phi, net.head(phi)).item(), abs=1e-6)


def test_two_samples_in_order_are_no_increasing_function():
    """Ten numbers in order, of which five are near to the other five."""
    net = Net(
        lambda net, phi, out: out + 0.1 * torch.tensor([[3.0, 0.0, -1.0, -2.0, 2.0]]).sin() * net.other(phi).sin(), outputs=5
    )
    with torch.no_grad():
        net.head.bias.copy_(torch.arange(5.0))
    with pytest.raises(HeadError, match="something other than"):
        measure(net, drawn(2, 5))


def test_a_softmax_of_large_outputs_vanishes_to_numbers_that_have_few_digits():
    """exp(-100) is a denormal number in float32, whose logarithm is wrong in the second digit."""
    x = drawn(60, 5)
    x[40:] *= 100
    net = Net(lambda net, phi, out: (30 * out).softmax(1))
    net.body[1] = nn.Identity()
    assert measure(nn.Sequential(net.body, net.head, nn.Softmax(1)), list(x.split(20))).evidence.returned == "softmax"


def test_a_mean_over_positions_is_the_outputs_up_to_rounding():
    net = Net(lambda net, phi, out: out.mean(1))
    assert measure(net, drawn(30, 6, 5)).evidence.returned == "as it is, mean over positions"


def test_features_returned_next_to_the_outputs_are_no_head_where_a_sample_is_not_finite():
    x = drawn(30, 5)
    x[4] = torch.nan
    net = Net(lambda net, phi, out: {"hidden": phi, "logits": out})
    net.body[1] = nn.Identity()
    with pytest.raises(NonFiniteError):
        measure(net, x)


@torch.no_grad()
def test_calls_that_are_stacked_are_positions_of_a_sample():
    """Also where one of them was made twice; the first samples are counted, not the first calls."""
    net = Net(lambda net, phi, out: torch.stack([net.head(phi), net.head(2 * phi)], 1))
    x = drawn(50, 5)
    phi = torch.stack([net.body(x), 2 * net.body(x)], 1)
    for count in (50, 20):
        result = measure(net, x, num_samples=count)
        assert result.num_samples == 2 * count
        rows = phi[:count].flatten(0, 1)
        assert result.low_rank == pytest.approx(low_rank_measure(rows, net.head(rows)).item(), abs=1e-6)


def test_a_convolution_in_another_dtype_is_given_its_own():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).double()
    x = drawn(20, 2, 6, 6)
    assert measure(net, x).low_rank == measure(net, x.double()).low_rank


def test_one_output_with_targets_of_several_columns():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)), drawn(40, 5)
    one_hot = nn.functional.one_hot(torch.arange(40) % 2, 2)
    expected = measure(net, (x, one_hot.float()))
    assert measure(net, (x, one_hot)).comparison.target_alignment == pytest.approx(expected.comparison.target_alignment, abs=1e-9)
