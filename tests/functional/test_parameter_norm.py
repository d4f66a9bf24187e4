import copy

import pytest
import torch
from torch import nn

from lazyrich import DataError, NonFiniteError
from lazyrich.functional import parameter_norm
from lazyrich.functional.parameter_norm import LayerNorm, ParameterNorm


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(4, 2), nn.ReLU()))


def test_against_a_loop():
    model, start = network(), network()
    with torch.no_grad():
        for x in model.parameters():
            x += torch.randn_like(x)
        model[1].running_mean += 5  # a buffer, which does not count
    found = parameter_norm(model, start)
    pairs = [(x.detach(), y.detach()) for x, y in zip(model.parameters(), start.parameters(), strict=True)]
    assert found.squared_norm == pytest.approx(sum(float(x.double().square().sum()) for x, _ in pairs))
    assert found.squared_distance == pytest.approx(sum(float((x.double() - y.double()).square().sum()) for x, y in pairs))
    assert list(found.layers) == ["0", "1", "2.0"]
    layer = found.layers["2.0"]
    assert layer.squared_norm == pytest.approx(sum(float(x.double().square().sum()) for x in model[2][0].state_dict().values()))
    assert found.squared_distance == pytest.approx(sum(layer.squared_distance for layer in found.layers.values()))
    assert parameter_norm(model, start.state_dict()) == found
    assert "2.0" in str(found)
    assert "‖θ - θ₀‖²" in str(found)


def test_known_values():
    layer = nn.Linear(3, 1)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(layer.bias, -1.0)
    found = parameter_norm(layer)
    assert (found.squared_norm, found.squared_distance) == (13.0, None)
    assert parameter_norm(layer, layer.state_dict()).squared_distance == 0


def test_reads_as_text():
    found = ParameterNorm(13.0, 6.5, {"body.0": LayerNorm(4.0, 2.5), "h": LayerNorm(9.0, 4.0)})
    assert str(found).splitlines() == [
        "layer           ‖θ‖²     ‖θ - θ₀‖²",
        "body.0             4           2.5",
        "h                  9             4",
        "all               13           6.5",
    ]
    alone = ParameterNorm(13.0, None, {"h": LayerNorm(13.0, None)})
    assert str(alone).splitlines() == ["layer          ‖θ‖²", "h                13", "all              13"]


def test_names_of_owners_whatever_wraps_them():
    """Wrappers put their own names in front and in between."""
    inner = nn.Linear(2, 1)
    model = nn.Module()
    model._fsdp_wrapped_module = nn.Module()
    model._fsdp_wrapped_module.body = nn.Module()
    model._fsdp_wrapped_module.body._orig_mod = nn.Module()
    model._fsdp_wrapped_module.body._orig_mod.module = nn.Module()
    model._fsdp_wrapped_module.body._orig_mod.module.fc = inner
    start = {"body.fc.weight": inner.weight + 1, "body.fc.bias": inner.bias.detach()}
    found = parameter_norm(model, start)
    assert list(found.layers) == ["body.fc"]
    assert found.squared_distance == pytest.approx(2, rel=1e-6)
    assert list(parameter_norm(inner).layers) == ["(the model itself)"]


def test_a_part_of_the_network_that_is_called_module():
    model = nn.Module()
    model.weight, model.module = nn.Parameter(torch.ones(2)), nn.Linear(3, 1, bias=False)
    nn.init.constant_(model.module.weight, 2.0)
    assert parameter_norm(model).squared_norm == 2 * 1 + 3 * 4


def test_a_parameter_shared_among_processes_is_put_together():
    class Shard(nn.Parameter):
        def full_tensor(self):
            return torch.full((3,), 2.0)

    model = nn.Module()
    model.register_parameter("x", Shard(torch.ones(1)))
    assert parameter_norm(model).squared_norm == 12


def test_tied_parameters_count_once():
    model = Tied()
    assert parameter_norm(model).squared_norm == pytest.approx(float(model.embed.weight.detach().double().square().sum()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile's own
def test_wrappers_do_not_matter():
    model = network()
    assert parameter_norm(nn.DataParallel(model), model).squared_distance == 0
    assert parameter_norm(torch.compile(model), model).squared_distance == 0


def test_half_types_are_summed_in_double():
    layer = nn.Linear(1000, 100, bias=False).bfloat16()
    nn.init.constant_(layer.weight, 1.0)
    assert parameter_norm(layer).squared_norm == 100_000


def test_errors():
    model = network()
    with pytest.raises(DataError, match="ReLU has no parameters"):
        parameter_norm(nn.ReLU())
    with pytest.raises(DataError, match="other parameters than the model: 0.weight"):
        parameter_norm(model, nn.Linear(2, 2))
    other = copy.deepcopy(model)
    other[2][0] = nn.Linear(4, 3)
    with pytest.raises(DataError, match=r"2\.0\.weight"):
        parameter_norm(model, other)
    with torch.no_grad():
        model[0].bias[0] = float("inf")
    with pytest.raises(NonFiniteError, match="parameter '0.bias' holds NaN or infinity"):
        parameter_norm(model)
