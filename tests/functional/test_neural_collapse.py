import math

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyrich import DataError, Gram, Richness, measure
from lazyrich.functional import low_rank_measure, neural_collapse
from lazyrich.functional.neural_collapse import NeuralCollapse, holds_labels
from lazyrich.metrics import NeuralCollapse as NeuralCollapseMetric


def clusters(n=300, p=20, c=5, seed=0, spread=0.5, balanced=True):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % c if balanced else torch.cat([torch.arange(c), torch.randint(c, (n - c,), generator=g) ** 2 % c])
    means = torch.randn(c, p, generator=g, dtype=torch.float64)
    x = means[labels] + spread * torch.randn(n, p, generator=g, dtype=torch.float64) + 3
    weight = torch.randn(c, p, generator=g, dtype=torch.float64)
    bias = 2 * torch.randn(c, generator=g, dtype=torch.float64)
    return x, labels, weight, bias


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize(("n", "p", "c"), [(300, 20, 5), (60, 100, 4), (500, 8, 10), (40, 3, 2), (200, 30, 20)])
def test_against_two_passes(n, p, c, balanced):
    x, labels, weight, bias = clusters(n, p, c, seed=n + p, balanced=balanced)
    found = neural_collapse(x, labels, head_weight=weight, head_bias=bias).to_dict()
    for name, value in reference.neural_collapse(x, labels, weight, bias).items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name


def test_float32():
    x, labels, weight, bias = clusters()
    expected = reference.neural_collapse(x.float(), labels, weight, bias)
    found = neural_collapse(x.float(), labels, head_weight=weight.float(), head_bias=bias.float())
    assert found.nc1 == pytest.approx(expected["nc1"], rel=1e-5)
    assert found.nc2_equiangular == pytest.approx(expected["nc2_equiangular"], rel=1e-5)


def test_the_bias_counts():
    """Peers' mistake 6: by its weight alone this head is right everywhere, with its bias it says class 1 always."""
    x = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]], dtype=torch.float64)
    labels, weight = torch.tensor([0, 0, 1, 1]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert neural_collapse(x, labels, head_weight=weight).nc4 == 0
    assert neural_collapse(x, labels, head_weight=weight, head_bias=torch.tensor([0.0, 9.0])).nc4 == 0.5


@pytest.mark.parametrize("c", [2, 3, 10])
def test_exact_collapse_is_zero_everywhere_and_in_d_lr(c):
    """Class means at a simplex, no spread, the head the means themselves."""
    simplex = (torch.eye(c, dtype=torch.float64) - 1 / c) @ torch.linalg.qr(
        torch.randn(c, c, generator=torch.Generator().manual_seed(c), dtype=torch.float64)
    ).Q
    labels = torch.arange(20 * c) % c
    x = simplex[labels] + 7
    found = neural_collapse(x, labels, head_weight=2 * simplex, head_bias=-2 * simplex.sum(1) * 7)
    assert list(found.to_dict().values())[:5] == pytest.approx([0] * 5, abs=1e-7)
    outputs = torch.nn.functional.one_hot(labels, c).double()
    assert low_rank_measure(x, outputs).item() == pytest.approx(0, abs=1e-12)


def test_closed_form_of_nc1():
    """Means at ±a on one axis, variance s² within on it: Σ_W Σ_B⁺ = s²/a², over two classes."""
    a, s = 3.0, 0.5
    x = torch.tensor([[a + s], [a - s], [-a + s], [-a - s]], dtype=torch.float64)
    assert neural_collapse(x, torch.tensor([0, 0, 1, 1])).nc1 == pytest.approx(s**2 / a**2 / 2, rel=1e-12)


def test_unequal_norms_and_angles_in_closed_form():
    """Four class means (±1, 0), (0, ±3): norms 1, 1, 3, 3 and cosines -1, -1 and four times 0."""
    x = torch.tensor([[1.0, 0], [-1, 0], [0, 3], [0, -3]], dtype=torch.float64).repeat(2, 1)
    found = neural_collapse(x, torch.arange(8) % 4)
    assert found.nc2_equinorm == pytest.approx(0.5)
    assert found.nc2_equiangular == pytest.approx((2 * (2 / 3) + 4 * (1 / 3)) / 6)


@given(st.integers(0, 10**6), st.floats(0.01, 100), st.integers(2, 6))
@settings(deadline=None, max_examples=40)
def test_invariant_under_shift_scale_and_rotation(seed, scale, c):
    x, labels, *_ = clusters(60, 7, c, seed=seed)
    rotation = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    a, b = neural_collapse(x, labels), neural_collapse(scale * (x @ rotation) - 5, labels)
    assert b.nc1 == pytest.approx(a.nc1, rel=1e-6)
    assert b.nc2_equinorm == pytest.approx(a.nc2_equinorm, rel=1e-6, abs=1e-9)
    assert b.nc2_equiangular == pytest.approx(a.nc2_equiangular, rel=1e-6, abs=1e-9)


def test_a_gram_gives_the_same():
    x, labels, weight, _ = clusters()
    gram = Gram()
    for rows in torch.arange(300).split(7):
        gram.update(x[rows], targets=torch.nn.functional.one_hot(labels[rows], 5))
    a, b = neural_collapse(gram, head_weight=weight), neural_collapse(x, labels, head_weight=weight)
    assert a.nc4 is None
    for name in ("nc1", "nc2_equinorm", "nc2_equiangular", "nc3"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-10)


def test_whole_weights_are_repetitions():
    x, labels, weight, bias = clusters(60)
    times = torch.randint(1, 4, (60,), generator=torch.Generator().manual_seed(1))
    a = neural_collapse(x, labels, weights=times.double(), head_weight=weight, head_bias=bias)
    b = neural_collapse(x.repeat_interleave(times, 0), labels.repeat_interleave(times), head_weight=weight, head_bias=bias)
    assert list(a.to_dict().values())[:5] == pytest.approx(list(b.to_dict().values())[:5], rel=1e-9)


def test_outputs_may_be_given_for_nc4():
    x, labels, weight, bias = clusters()
    by_outputs = neural_collapse(x, labels, outputs=x @ weight.T + bias)
    assert by_outputs.nc4 == neural_collapse(x, labels, head_weight=weight, head_bias=bias).nc4
    assert by_outputs.nc3 is None


@pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")
class TestRoundingOfTheMeans:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("offset", [0.0, 3.0, 1000.0])
    @pytest.mark.parametrize("n", [7, 2000])
    def test_the_same_samples_in_another_order_are_no_other_class(self, dtype, offset, n):
        """Nothing lies between the two classes but the rounding of sums, by which NC1 was 1e33."""
        one = (torch.randn(n, 5, generator=torch.Generator().manual_seed(n)) + offset).to(dtype)
        x, labels = torch.cat([one, one.flip(0)]), torch.arange(2).repeat_interleave(n)
        with pytest.raises(DataError, match="all class means are the same, up to their rounding"):
            neural_collapse(x, labels)
        torch.manual_seed(0)
        found = measure(torch.nn.Linear(5, 2).double(), (x.double(), labels))
        assert found.neural_collapse is None
        assert any("class means are the same" in note for note in found.notes)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_a_difference_under_the_rounding_of_one_sample_counts_if_there_are_many(self, dtype):
        """Means 0.004 from each other, where bfloat16 near 1 goes in steps of 0.0078: rounding averages out."""
        g = torch.Generator().manual_seed(0)
        labels = torch.arange(40_000) % 2
        x = 1 + 0.25 * torch.randn(40_000, 3, generator=g, dtype=torch.float64)
        x = (x - class_average(x, labels) + 1 + 0.002 * (2 * labels.unsqueeze(1) - 1)).to(dtype)
        expected, _ = reference.nc1(x.double().numpy(), labels.numpy())
        assert neural_collapse(x, labels).nc1 == pytest.approx(expected, rel=1e-4)
        # Σ_W = I/16, Σ_B = 0.002² times ones: Tr(Σ_W Σ_B⁺)/C = 1/16 / (3 · 0.002²) / 2, sampling and rounding aside
        assert expected == pytest.approx(1 / 16 / (3 * 0.002**2) / 2, rel=0.02 if dtype != torch.bfloat16 else 0.1)

    def test_a_class_at_the_overall_mean_has_no_direction(self):
        """Class means (-1, 1), (1, 1) and (0, 1) with the mean (0, 1): lengths 1, 1, 0, and the third at no angle."""
        x = torch.tensor([[1.0, 0], [1, 2], [-1, 0], [-1, 2], [0, 1], [0, 1]], dtype=torch.float64) / 3
        labels = torch.tensor([0, 0, 1, 1, 2, 2])
        found = neural_collapse(x, labels)
        assert found.nc2_equiangular is None
        assert found.nc2_equinorm == pytest.approx(math.sqrt(2 / 9) / (2 / 3))
        assert "equiangular" not in str(found)
        metric = NeuralCollapseMetric(num_classes=3)
        metric.update(x, targets=labels)
        assert metric.compute().keys() == {"nc1", "nc2_equinorm"}
        torch.manual_seed(0)
        whole = measure(torch.nn.Linear(2, 3).double(), (x, labels))
        assert Richness.from_dict(whole.to_dict()).neural_collapse == whole.neural_collapse
        assert whole.neural_collapse.nc2_equiangular is None


def class_average(x, labels):
    return torch.stack([x[labels == c].mean(0) for c in range(2)])[labels]


def test_reads_as_text():
    x, labels, *_ = clusters()
    found = neural_collapse(x, labels)
    assert f"nc1 {found.nc1:.4f}" in str(found)
    assert "nc4" not in str(found)
    given = NeuralCollapse(0.5, 0.25, 0.125, nc4=0.0625)
    assert str(given) == "nc1 0.5000  nc2_equinorm 0.2500  nc2_equiangular 0.1250  nc4 0.0625"


x, labels, weight, _ = clusters(20, 6, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"labels": labels.masked_fill(labels == 2, 1)}, DataError, "class 2 has no samples"),
        ({"labels": labels, "num_classes": 6}, DataError, "class 4, 5 has no samples"),
        ({"labels": labels, "num_classes": 3}, DataError, "label 3 is out of range.*0 … 2"),
        ({"labels": labels - 1}, DataError, "label -1 is out of range"),
        ({"labels": labels.float()}, TypeError, "labels must be integers, got torch.float32"),
        ({"labels": labels > 1}, TypeError, "labels must be integers, got torch.bool"),
        ({"labels": labels[:, None]}, DataError, r"labels must have shape \(n,\)"),
        ({"labels": labels[:10]}, DataError, "one entry for each of the 20 samples, got 10"),
        ({"labels": labels * 0}, DataError, "at least two classes"),
        ({"labels": None}, DataError, "needs labels"),
        ({"labels": labels, "head_weight": weight[:3]}, DataError, r"head_weight must have shape \(4, 6\), got \(3, 6\)"),
        ({"labels": labels, "outputs": x}, DataError, r"outputs must have shape \(20, 4\), got \(20, 6\)"),
    ],
)
def test_errors(arguments, error, match):
    with pytest.raises(error, match=match):
        neural_collapse(x, **arguments)


def test_many_empty_classes_are_cut_short():
    two = torch.arange(20) % 2
    with pytest.raises(DataError, match="class 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 has no samples"):
        neural_collapse(x, two, num_classes=12)
    with pytest.raises(DataError, match="class 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 … has no samples"):
        neural_collapse(x, two, num_classes=13)


def test_equal_class_means():
    same = torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0]], dtype=torch.float64)
    with pytest.raises(DataError, match="class means are the same"):
        neural_collapse(same, torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize(
    "targets",
    [
        [[1, 0], [0, 1], [0, 0], [1, 0]],  # a sample of no class: no products, and the squares sum to what the entries do
        [[0.5, 0.5], [1, 0], [0, 1], [0.5, 0.5]],  # which sum to one
        [[1 - 1e-6, 1e-6], [1, 0], [0, 1], [0, 1]],  # nearly a class
        [[1, 1], [1, 0], [0, 1], [0, 1]],
        [[1.5, 0], [0.5, 0], [1, 0], [0, 1]],  # one entry a row, which sum to one on average
        [[1], [1], [1], [1]],
        [[1 + 1e-5, 0], [1, 0], [0, 1 - 1e-5], [0, 1]],
        [[1 + 2e-8, 0], [1, 0], [0, 1 - 2e-8], [0, 1]],
    ],
)
def test_targets_that_are_no_classes(targets):
    gram = Gram()
    gram.update(x[:4], targets=torch.tensor(targets, dtype=torch.float64))
    assert holds_labels(gram) is False
    with pytest.raises(DataError, match="one class per sample, and these targets are multi-label or real"):
        neural_collapse(gram)


def test_gram_with_labels():
    gram = Gram()
    gram.update(x, targets=torch.nn.functional.one_hot(labels))
    with pytest.raises(TypeError, match="already holds the labels"):
        neural_collapse(gram, labels)
    assert math.isfinite(neural_collapse(gram).nc1)
    gram = Gram()
    gram.update(x)
    with pytest.raises(DataError, match="needs targets"):
        neural_collapse(gram)
