"""On a GPU, the numbers of the CPU to 1e-5. Every test says that it is skipped where there is none."""

import pytest
import torch
from torch import nn

import lazyrich
from lazyrich import Gram, Monitor, measure
from lazyrich.functional import low_rank_estimate

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA"),
    pytest.mark.filterwarnings("ignore::lazyrich.RankWarning"),
]


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)).eval()


def data(n=2000):
    x = torch.randn(n, 20, generator=torch.Generator().manual_seed(1)) + 1
    return x, torch.arange(n) % 5


def numbers(r):
    return {name: value for name, value in r.numbers().items() if name not in ("num_samples", "rankme")}


def assert_same(found, expected):
    found, expected = numbers(found), numbers(expected)
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("options", [{}, {"layers": "all"}, {"class_balanced": True}, {"nc4": True}, {"start": 1}, {"null": 2}])
def test_measure(options):
    x, y = data()
    there = options | ({"start": network(1).cuda()} if "start" in options else {})
    here = options | ({"start": network(1)} if "start" in options else {})
    if "null" in options:
        here, there = ({"null": 2, "build": lambda: network(3)} for _ in range(2))
    assert_same(measure(network().cuda(), [(x.cuda(), y.cuda())], **there), measure(network(), [(x, y)], **here))


def test_data_of_the_cpu_for_a_network_of_the_gpu():
    x, y = data()
    assert_same(measure(network().cuda(), (x, y)), measure(network(), (x, y)))


def test_gram():
    features, outputs = torch.relu(torch.randn(3000, 80)), torch.randn(3000, 4)
    here, there = Gram(), Gram()
    for rows in torch.arange(3000).split(500):
        here.update(features[rows], outputs[rows])
        there.update(features[rows].cuda(), outputs[rows].cuda())
    a, b = low_rank_estimate(here), low_rank_estimate(there)
    assert b.value == pytest.approx(a.value, abs=1e-5)
    assert b.stderr == pytest.approx(a.stderr, rel=1e-3)


def test_an_update_waits_for_nothing():
    gram = Gram()
    features, outputs = torch.randn(4096, 64, device="cuda"), torch.randn(4096, 3, device="cuda")
    gram.update(features, outputs)
    torch.cuda.set_sync_debug_mode("error")
    try:
        gram.update(features, outputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert gram.count == 8192


def test_metric():
    features, outputs = torch.randn(1000, 30), torch.randn(1000, 3)
    here, there = lazyrich.LowRankMeasure(), lazyrich.LowRankMeasure().to("cuda")
    here.update(features, outputs)
    there.update(features.cuda(), outputs.cuda())
    assert float(there.compute()) == pytest.approx(float(here.compute()), abs=1e-5)


def test_monitor_changes_no_bit():
    x, y = data()
    x, y = x.cuda(), y.cuda()

    def trained(monitored):
        model = network().cuda()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Monitor(model, x[:500], every=5) if monitored else torch.no_grad() as monitor, torch.enable_grad():
            for _ in range(20):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                if monitored:
                    monitor.step()
        return model.state_dict()

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        plain, watched = trained(False), trained(True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


def test_autocast():
    x, y = data()
    model = network().cuda()
    with torch.autocast("cuda", torch.bfloat16):
        r = measure(model, (x.cuda(), y.cuda()))
    assert r.low_rank == pytest.approx(measure(network(), (x, y)).low_rank, abs=0.02)  # rounding of bfloat16


def test_two_streams():
    x, y = data()
    expected = measure(network(), (x, y)).low_rank
    model, stream = network().cuda(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = measure(model, (x.cuda(), y.cuda()))
    stream.synchronize()
    assert found.low_rank == pytest.approx(expected, abs=1e-5)
