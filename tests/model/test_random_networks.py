"""The capture on random networks: the first cases of ``benchmarks/robustness/fuzz_capture.py``, and what it found."""

import pytest
import torch
from capture_trial import trial
from torch import nn

from lazyrich import DataError, HeadError, measure
from lazyrich.functional import low_rank_measure, neural_collapse

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")
CASES = 60
# what was a finding among the first 10,000
FOUND = (21, 117, 243, 657, 905, 906, 1515)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("first", range(0, CASES, 10))
def test_right_or_an_error_by_name(first):
    for case in range(first, first + 10):
        trial(case)


@pytest.mark.parametrize("case", FOUND)
def test_what_was_found_stays_mended(case):
    trial(case)


class WithHelper(nn.Module):
    """A head that runs again for something that is not returned."""

    def __init__(self, finish):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.finish = nn.Sequential(nn.Linear(5, 7), nn.Tanh()), nn.Linear(7, 3), finish

    def forward(self, x):
        return self.finish(self, self.body(x))


class TestAHeadThatRunsMoreThanOnce:
    x = drawn(50, 5)

    def test_is_refused_though_the_model_returns_one_of_its_outputs(self):
        """What the head saw in its other runs are features of the model too."""

        def finish(net, phi):
            out = net.head(phi)
            net.head(phi.flip(0).square())
            return out

        for options in ({}, {"head": "head"}):
            with pytest.raises(HeadError, match="the head 'head' ran 2 times on different inputs in one forward pass"):
                measure(WithHelper(finish), self.x, **options)

    def test_is_refused_where_nobody_can_say_which(self):
        with pytest.raises(HeadError, match="the head 'head' ran 2 times on different inputs in one forward pass"):
            measure(WithHelper(lambda net, phi: (net.head(phi), net.head(2 * phi))), self.x, head="head")

    @torch.no_grad()
    def test_answers_stacked_in_one_tensor_are_rows_of_one_set(self):
        """As those of a decoder that runs its head once for every token."""
        model = WithHelper(lambda net, phi: torch.stack([net.head(phi), net.head(2 * phi)], 1))
        phi = model.body(self.x)
        rows = torch.cat([phi, 2 * phi])
        expected = low_rank_measure(rows, model.head(rows)).item()
        assert measure(model, self.x).low_rank == pytest.approx(expected, abs=1e-7)


class TestPlaces:
    @pytest.mark.parametrize("size", [1.0, 1e-6])
    def test_the_largest_of_all_places_is_no_linear_function_of_any_features(self, size):
        """Also of a convolution, and of outputs so small that all are close to all."""
        torch.manual_seed(0)
        head = nn.Conv2d(4, 3, 1)
        with torch.no_grad():
            head.weight.mul_(size), head.bias.mul_(size)
        with pytest.raises(HeadError, match="something other than what one of its linear layers computes"):
            measure(nn.Sequential(head, nn.AdaptiveMaxPool2d(1), nn.Flatten()), drawn(30, 4, 5, 5))

    @torch.no_grad()
    def test_outputs_that_rounding_makes_equal_do_not_change_the_place(self):
        """bfloat16 and one output: many tokens have the same answer as the one that is returned."""

        class Last(nn.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.head = nn.Linear(4, 1)

            def forward(self, x, attention_mask=None):
                last = -1 if attention_mask is None else attention_mask.sum(1) - 1
                return self.head(x)[torch.arange(len(x)), last]

        x, model = drawn(200, 12, 4).bfloat16(), Last().bfloat16()
        mask = (torch.arange(12) < torch.arange(200).unsqueeze(1) % 11 + 2).long()
        assert (model.head(x) == model(x).unsqueeze(1)).sum() > 200
        for data, place in (([x], torch.full((200,), 11)), ([{"x": x, "attention_mask": mask}], mask.sum(1) - 1)):
            phi = x[torch.arange(200), place]
            assert measure(model, data).low_rank == pytest.approx(low_rank_measure(phi, model.head(phi)).item(), abs=1e-9)

    def test_not_finite_has_its_own_error(self):
        torch.manual_seed(0)
        x = drawn(30, 4, 5, 5)
        x[3, 2, 1, 1] = torch.nan
        with pytest.raises(DataError, match="NaN or infinity"):
            measure(nn.Sequential(nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), x)


def test_a_sample_that_is_not_finite_hides_no_head():
    """Behind a softmax the outputs are told by their order, which NaN has not."""
    torch.manual_seed(0)
    x = drawn(30, 5)
    x[4] = torch.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        measure(nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Softmax(1)), x)


class TestBatches:
    x = drawn(40, 5)

    def model(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_an_empty_one_changes_nothing(self, place):
        parts = [self.x[:25], self.x[25:]]
        expected = measure(self.model(), parts, layers="all")
        parts.insert(place, self.x[:0])
        found = measure(self.model(), parts, layers="all")
        assert (found.low_rank, found.layers) == (expected.low_rank, expected.layers)

    def test_targets_that_do_not_vary_have_no_alignment(self):
        for targets in (torch.zeros(40).long(), torch.ones(40, 2)):
            result = measure(self.model(), (self.x, targets))
            assert result.comparison.target_alignment is None
            assert result.low_rank == pytest.approx(measure(self.model(), self.x).low_rank, abs=1e-12)

    def test_class_balance_of_a_label_that_is_no_class(self):
        labels = torch.arange(40) % 2
        labels[7] = -5  # one output alone could also be meant for real numbers
        with pytest.raises(DataError, match="label -5 is not a class"):
            measure(nn.Sequential(self.model(), nn.Linear(3, 1)), (self.x, labels), class_balanced=True)

    def test_class_numbers_in_a_column(self):
        labels = (torch.arange(40) % 5 == 0).long()
        plain = measure(self.model(), (self.x, labels), class_balanced=True)
        assert measure(self.model(), (self.x, labels.unsqueeze(1)), class_balanced=True).low_rank == plain.low_rank

    def test_sparse_returns_are_looked_over(self):
        class Sparse(nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def forward(self, x):
                out = self.inner(x)
                return out.to_sparse(), out

        expected = measure(self.model(), self.x).low_rank
        assert measure(Sparse(self.model()), self.x).low_rank == expected

    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
    def test_nested_tensors_inside_are_no_features(self):
        class Encoder(nn.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
                self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(4, 3)

            def forward(self, x, mask):
                return self.head(self.encoder(x, src_key_padding_mask=mask == 0)[:, 0])

        x, mask = drawn(30, 6, 4), (torch.arange(6) < torch.arange(30).unsqueeze(1) % 6 + 1).long()
        model, seen = Encoder().eval(), []
        handle = model.head.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
        with torch.no_grad():
            model(x, mask)
        handle.remove()
        result = measure(model, [{"x": x, "mask": mask}], layers="all")
        assert result.low_rank == pytest.approx(low_rank_measure(*seen[0]).item(), abs=1e-6)


def test_collapse_in_half_precision_keeps_the_directions_that_count():
    """Class means at (3, 0), (-3, 0) and (0, ±1): the weaker direction, a third of the stronger, is no rounding of bfloat16."""
    means = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    deviations = torch.tensor([[0.5, 0.5], [-0.5, 0.5], [0.5, -0.5], [-0.5, -0.5]])
    x = (means.unsqueeze(1) + deviations).flatten(0, 1)
    labels = torch.arange(4).repeat_interleave(4)
    # Σ_W = I/4, Σ_B = diag(18, 2)/4: Tr(Σ_W Σ_B⁺)/C = (1/18 + 1/2)/4
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        assert neural_collapse(x.to(dtype), labels).nc1 == pytest.approx((1 / 18 + 1 / 2) / 4, rel=1e-6)
