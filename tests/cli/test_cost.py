"""``lazyrich cost`` prints the estimate and the seconds that it takes at the rates of this machine."""

from lazyrich import measurement_cost
from lazyrich.cli import main
from lazyrich.measurement import cost as cost_module


def test_memory_operations_and_time(capsys, monkeypatch):
    monkeypatch.setattr(cost_module, "machine_rates", lambda: (1e9, 1e9, 1e9, 1e9))
    assert main(["cost", "--samples", "1000", "--features", "64", "--outputs", "10", "--layers", "32", "64"]) == 0
    *table, seconds = capsys.readouterr().out.splitlines()
    estimate = measurement_cost(1000, 64, 10, layers=(32, 64))
    assert table == str(estimate).splitlines()
    assert seconds == f"time on this CPU               about {estimate.seconds(1e9, 1e9, 1e9, 1e9):.2g} s"
