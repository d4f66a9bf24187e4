"""Which numbers the callbacks give to a logger."""

from types import SimpleNamespace

import pytest

from lazyrich import Evaluation
from lazyrich.integrations.monitored import Monitored

VALUES = {"low_rank": 0.5, "nc1": 2.0, "rankme": 7.0, "mine": 3.0, "low_rank of fc": 0.4, "loss": 1.0}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, {"low_rank", "nc1"}),
        ({"extra": ["mine"]}, {"low_rank", "nc1", "mine"}),
        ({"measures": ["rankme"]}, {"rankme"}),
        ({"measures": "all"}, {"low_rank", "nc1", "rankme", "mine", "low_rank of fc"}),
    ],
)
def test_the_numbers_that_are_logged(options, names):
    callback = Monitored(prefix="r/", **options)
    callback.monitor = SimpleNamespace(evaluations=[Evaluation(3, VALUES)])
    assert list(callback.to_log()) == [(3, {f"r/{name}": VALUES[name] for name in VALUES if name in names})]
    assert list(callback.to_log()) == []
