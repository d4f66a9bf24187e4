"""Several processes measure as one, and trouble on one of them ends all of them."""

import json

import numpy as np
import pytest
import torch
import workers

import lazyrich

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")

CASES = {
    "even": (200, {}),
    "padded": (203, {"loader": {"batch_size": 1}}),
    "shuffled and padded": (203, {"loader": {"batch_size": 16, "shuffle": True}}),
    "more rows than are kept": (3001, {"loader": {"batch_size": 64}}),
    "ddp": (200, {"wrap": "ddp", "check": True}),
    "fsdp": (203, {"wrap": "fsdp", "check": True}),
    "nc4 and balanced": (203, {"nc4": True, "class_balanced": True}),
    "layers and start": (203, {"layers": "all", "start": True}),
    "num_samples": (203, {"num_samples": 101, "loader": {"batch_size": 10}}),
}


@pytest.fixture(scope="module")
def found():
    return workers.in_two_processes(workers.measured, [(name, n, options) for name, (n, options) in CASES.items()])


def alone(name):
    n, options = CASES[name]
    options = {key: value for key, value in options.items() if key not in ("wrap", "loader", "start")}
    if "start" in CASES[name][1]:
        options["start"] = workers.network()
        with torch.no_grad():
            options["start"][0].weight += 0.3
    return lazyrich.measure(workers.network(), workers.samples(n), **options)


def flat(value):
    if isinstance(value, dict):
        return {f"{key}.{k}": v for key, inner in value.items() for k, v in flat(inner).items()}
    if isinstance(value, (list, tuple)):
        return {f"{key}.{k}": v for key, inner in enumerate(value) for k, v in flat(inner).items()}
    return {"": value}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_measure_as_one(found, name):
    """Every number of the result, the error bars too, to 1e-12; where not all rows are retained, those of errors to 2 %."""
    first, second = found[0][name], found[1][name]
    if name == "fsdp" and not hasattr(torch.cpu.Stream, "record_event"):
        pytest.skip(f"PyTorch {torch.__version__} shards parameters on accelerators alone")
    assert not isinstance(first, str), first
    assert not isinstance(second, str), second
    expected = alone(name)
    one, two, single = flat(first[0]), flat(second[0]), flat(expected.to_dict())
    assert one == two
    assert one.keys() == single.keys()
    part = name == "more rows than are kept"
    for key, value in single.items():
        if part and value is not None and any(word in key for word in ("corrected", "stderr", "interval")):
            assert one[key] == pytest.approx(value, rel=0.02), key
        elif isinstance(value, float):
            assert one[key] == pytest.approx(value, rel=1e-9, abs=1e-12), key
        else:
            assert one[key] == value, key
    assert part or first[1] == str(expected)
    assert json.dumps(first[0], allow_nan=False)


@pytest.fixture(scope="module")
def trouble():
    return workers.in_two_processes(workers.troubles)


class TestTrouble:
    def test_data_that_end_at_different_times(self, trouble):
        for result in trouble:
            assert result["uneven"].startswith("DataError: data: process 0 of 2 ran out after 4 batches")
            assert "DistributedSampler" in result["uneven"]
            assert result["uneven, later"].startswith("DataError: data: process 0 of 2 ran out after 9 batches")
            assert result["one without"].startswith("DataError: data: process 0 of 2 ran out after 0 batches")

    def test_an_error_on_one_is_an_error_on_all(self, trouble):
        assert trouble[1]["fails late"] == "OSError: the disk went away"
        assert trouble[0]["fails late"] == "DataError: process 1 of 2 failed: OSError: the disk went away"
        assert trouble[0]["nan"].startswith("NonFiniteError: features hold NaN or infinity in batch 2")
        assert trouble[1]["nan"].startswith("DataError: process 0 of 2 failed: NonFiniteError: features hold NaN")

    def test_shapes_that_disagree(self, trouble):
        for result in trouble:
            assert "the processes disagree on the widths" in result["width"]
            assert "'features': 20" in result["width"]
            assert "'features': 21" in result["width"]

    def test_heads_that_disagree(self, trouble):
        for result in trouble:
            assert result["head"] == "DataError: the processes measure different things: head '2' and head '0'"

    def test_no_data_at_all(self, trouble):
        assert all("data gave no samples" in result["no data"] for result in trouble)

    def test_a_model_that_is_not_deterministic_on_one(self, trouble):
        named = (
            "NondeterminismError: the model is not deterministic: the same batch gave other features the second time; the first"
        )
        assert trouble[1]["noise"].startswith(named)
        assert "1 (Noise)" in trouble[1]["noise"]
        assert trouble[0]["noise"].startswith(f"DataError: process 1 of 2 failed: {named}")

    def test_one_process_alone(self, trouble):
        assert [result["alone"] for result in trouble] == [32, 40]

    def test_the_same_data_everywhere_count_once(self, trouble):
        expected = lazyrich.measure(workers.network(), workers.samples(64)[0])
        for count, error, notes in (result["same data"] for result in trouble):
            assert count == 64
            assert error == pytest.approx(expected.low_rank_stderr, rel=1e-9)
            assert "all 2 processes were given the same data: counted once" in notes


def test_numbers_are_python_numbers(found):
    assert not any(isinstance(v, (np.generic, torch.Tensor)) for v in flat(found[0]["even"][0]).values())
