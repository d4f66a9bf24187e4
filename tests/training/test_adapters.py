"""Layers that real packages adapt: training with a monitor gives the same bits as training without."""

import numpy as np
import pytest
import reference
import torch
from torch import nn

import lazyrich

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def data():
    torch.manual_seed(1)
    return torch.randn(64, 8), torch.arange(64) % 3


def loralib_network():
    """Both hidden layers merge in eval() and unmerge in train()."""
    lora = pytest.importorskip("loralib")
    torch.manual_seed(0)
    net = nn.Sequential(
        lora.Linear(8, 16, r=2), nn.Tanh(), lora.MergedLinear(16, 16, r=2, enable_lora=[True, False]), nn.Linear(16, 3)
    )
    for name, x in net.named_parameters():
        if "lora_" in name:
            nn.init.normal_(x, std=0.5)
    lora.mark_only_lora_as_trainable(net)
    return net


def peft_network(kind):
    """A wrapped perceptron; the head stays as it is and is trained with the adapters."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))
    layers = {"target_modules": ["0", "2"], "modules_to_save": ["4"]}
    config = {
        "LoRA": lambda: peft.LoraConfig(**layers, r=2, lora_dropout=0.3, init_lora_weights=False),
        "DoRA": lambda: peft.LoraConfig(**layers, r=2, use_dora=True, init_lora_weights=False),
        "IA3": lambda: peft.IA3Config(**layers, feedforward_modules=["2"], init_ia3_weights=False),
        "LoHa": lambda: peft.LoHaConfig(**layers, r=2, module_dropout=0.3, init_weights=False),
    }[kind]()
    return peft.get_peft_model(net, config)


def trained(build, monitored):
    """Parameters, buffers, moments of the optimizer and the random state after six steps, and the series."""
    net, (x, y) = build().train(), data()
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.05)
    monitor = lazyrich.Monitor(net, (x, y), every=1) if monitored else None
    torch.manual_seed(2)
    for _ in range(6):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        if monitor is not None:
            monitor.step()
    moments = [v for state in optimizer.state_dict()["state"].values() for v in state.values()]
    return [*net.state_dict().values(), *moments, torch.get_rng_state()], monitor


NETWORKS = {"loralib": loralib_network} | {
    f"PEFT, {kind}": lambda kind=kind: peft_network(kind) for kind in ("LoRA", "DoRA", "IA3", "LoHa")
}


@pytest.mark.parametrize("build", [pytest.param(build, id=name) for name, build in NETWORKS.items()])
def test_training_is_the_same_to_the_last_bit(build):
    (without, _), (with_it, monitor) = trained(build, False), trained(build, True)
    assert len(without) == len(with_it)
    assert all(torch.equal(a, b) for a, b in zip(without, with_it, strict=True))
    assert monitor.series.steps.tolist() == list(range(7))
    assert len(set(monitor.series["low_rank"].tolist())) == 7  # the adapters are trained, and the features with them


def test_merged_adapters_are_measured_and_unmerged():
    """In evaluation mode the weights of loralib hold W + BA: the features are those of the sum."""
    net, (x, y) = loralib_network().double().train(), data()
    weights = net[0].weight.clone()
    result = lazyrich.measure(net, (x.double(), y))
    assert not net[0].merged
    assert net[0].training
    assert torch.equal(net[0].weight, weights)
    array = lambda tensor: tensor.detach().numpy()  # noqa: E731
    first, second, head = net[0], net[2], net[3]
    hidden = np.tanh(x.numpy() @ array(first.weight + first.lora_B @ first.lora_A * first.scaling).T + array(first.bias))
    update = np.concatenate([array(second.lora_B @ second.lora_A), np.zeros((8, 16))]) * second.scaling  # of the first half alone
    features = hidden @ (array(second.weight) + update).T + array(second.bias)
    outputs = features @ array(head.weight).T + array(head.bias)
    assert result.low_rank == pytest.approx(reference.d_lr(features, outputs), abs=1e-9)
