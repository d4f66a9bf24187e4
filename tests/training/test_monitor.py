"""The measure during training: nothing changes but that one knows."""

import copy
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import lazyrich
from lazyrich import DataError, Monitor, crosses, falls, schedules
from lazyrich.results.series import SeriesFolder
from lazyrich.schedules import Moment

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 12),
        nn.ReLU(), nn.Linear(12, 3),
    )  # fmt: skip


def images(n=120):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 4, 4, generator=generator), torch.randint(3, (n,), generator=generator)


def trained(steps=12, around=lambda model, optimizer: None):
    """Everything that training leaves behind; ``around`` gives what is called after every step."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    after = around(model, optimizer)
    x, y = images()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    for _ in range(steps):
        rows = torch.randint(len(x), (16,))
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if after is not None:
            after(loss, (x[rows], y[rows]))
    left = [*model.state_dict().values(), *(v for s in optimizer.state_dict()["state"].values() for v in s.values())]
    return left, torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), model


class TestUndisturbed:
    @pytest.mark.parametrize("preset", ["light", "standard", "full"])
    @pytest.mark.parametrize("loader", [False, True])
    def test_training_is_the_same_to_the_last_bit(self, preset, loader):
        data = images()
        if loader:
            data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=50, shuffle=True)
        monitors = []

        def around(model, optimizer):
            monitors.append(Monitor(model, data, every=3, preset=preset))
            return lambda loss, batch: monitors[0].step(loss=loss)

        with_it, without = trained(around=around), trained()
        assert len(monitors[0].series) == 5
        for a, b in zip(with_it[0], without[0], strict=True):
            assert torch.equal(a, b)
        assert torch.equal(with_it[1], without[1])
        assert with_it[2:4] == without[2:4]
        assert with_it[4].training
        assert not any(module._forward_hooks for module in with_it[4].modules())

    def test_an_exception_in_the_loop_is_the_users(self, tmp_path):
        model = network()

        def loop():
            with Monitor(model, images(), every=1, out=tmp_path) as monitor:
                monitor.step()
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            loop()
        assert SeriesFolder(tmp_path).read().steps.tolist() == [0, 1]
        assert model.training


class TestWhatIsMeasured:
    def test_it_is_the_measure_of_that_moment(self):
        x, y = images()
        copies = []

        def around(model, optimizer):
            monitor = Monitor(model, (x, y), every=4, preset="standard")
            copies.append(monitor)

            def after(loss, batch):
                if monitor.step() is not None:
                    copies.append(copy.deepcopy(model))

            return after

        trained(around=around)
        monitor, *models = copies
        expected = [lazyrich.measure(m, (x, y)) for m in models]
        assert monitor.series["low_rank"][1:].tolist() == [r.low_rank for r in expected]
        assert monitor.series["nc1"][1:].tolist() == [r.neural_collapse.nc1 for r in expected]
        np.testing.assert_allclose(monitor.series.curves(2)["quality"], expected[1].spectrum.cumulative_quality)

    def test_light_is_the_same_number_for_less(self):
        r = lazyrich.measure(network(), images())
        light = Monitor(network(), images(), preset="light").series
        for name in (
            "low_rank",
            "low_rank_corrected",
            "low_rank_stderr",
            "output_rank",
            "isotropic",
            "balanced",
            "output_alignment",
        ):
            assert light.last(name) == pytest.approx(getattr(r, name), abs=1e-9), name  # rows in another order

    def test_full_adds_layers_and_the_way_from_the_start(self):
        model = network()
        monitor = Monitor(model, images(), every=1, preset="full")
        with torch.no_grad():
            model[5].weight.mul_(torch.randn(12, 64))
        monitor.step()
        s = monitor.series
        assert (s["s_init"][0], s["parameter_distance"][0], s["tangent_kernel_change"][0]) == (pytest.approx(1), 0, 0)
        assert s["s_init"][1] < 0.999
        assert s["parameter_distance"][1] > 0
        assert s["tangent_kernel_change"][1] > 1e-3
        assert {"low_rank of 0", "low_rank of 5", "low_rank of 7"} <= set(s.measures)
        assert s["low_rank of 7"].tolist() == s["low_rank"].tolist()

    @pytest.mark.parametrize("preset", ["light", "standard", "full"])
    def test_the_laziness_ratio_when_the_last_layer_alone_is_trained(self, preset):
        """Batch norm sees its first batch in between; the features of the start are kept with its statistics."""
        model, (x, y) = network(), images(512)
        monitor = Monitor(model, (x, y), every=1, preset=preset)
        optimizer = torch.optim.SGD(model[7].parameters(), lr=0.5)
        for k in range(50):
            rows = slice(100 * (k % 5), 100 * (k % 5) + 100)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        monitor.step(50)
        s = monitor.series
        assert (s["laziness"][0], s["laziness_balanced"][0]) == pytest.approx((1, 1), abs=1e-12)
        assert s["laziness"][1] == pytest.approx(1, abs=0.01)
        assert s["laziness_balanced"][1] == pytest.approx(1, abs=0.01)
        if preset == "full":
            assert s["laziness of 0"].tolist() == pytest.approx([1, 1], abs=1e-12)

    def test_features_in_half_precision_are_kept(self, tmp_path):
        model = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3)).bfloat16()
        x = torch.randn(64, 6).bfloat16()
        Monitor(model, x, out=tmp_path)
        with torch.no_grad():
            model[2].weight.mul_(torch.randn(3, 20))
        assert Monitor(model, x, out=tmp_path, resume=True, every=1).step(3).values["laziness"] == pytest.approx(1, abs=1e-12)

    def test_rows_that_are_not_those_of_the_start_leave_the_ratio_out(self):
        def rows(batch):
            counted.append(len(counted))
            return torch.arange(len(batch[0])) >= len(counted)

        counted = []
        model, data = network(), images()
        monitor = Monitor(model, data, every=1, rows=rows)
        monitor.step()
        assert "laziness" not in monitor.series
        assert np.isfinite(monitor.series["low_rank"]).all()
        assert "both must give the same rows" in monitor.series.notes[0]

    def test_rows_that_change_after_the_start_leave_the_ratio_out(self):
        """The features of the start are kept, so that rows that count only later have none to be compared with."""
        fewer = []
        monitor = Monitor(network(), images(), every=1, rows=lambda batch: torch.arange(len(batch[0])) >= len(fewer))
        fewer.append(True)
        monitor.step()
        assert "laziness" in monitor.series
        assert np.isnan(monitor.series["laziness"][-1])
        assert np.isfinite(monitor.series["low_rank"]).all()
        assert "rows, and had" in monitor.series.notes[1]

    def test_features_too_large_to_keep(self, monkeypatch):
        monkeypatch.setattr("lazyrich.measurement.kept.KEPT_BYTES", 1000)
        series = Monitor(network(), images()).series
        assert "laziness" not in series
        assert "take over" in series.notes[0]

    def test_the_probe_set_is_drawn_once(self):
        x, y = images(400)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=32, shuffle=True)
        monitor = Monitor(network(), loader, every=1, num_samples=100)
        first = monitor.evaluations[0].values["low_rank"]
        x.zero_()  # what the user does with the data later is nothing to the probe
        assert monitor.step().values["low_rank"] == first

    def test_the_training_batches_themselves(self):
        x, y = images()
        monitor = Monitor(network(), every=2, num_samples=40, preset="standard")
        batches = [(x[k : k + 16], y[k : k + 16]) for k in range(0, 64, 16)]
        found = [monitor.step(batch=batch) for batch in batches]
        assert [e is not None for e in found] == [False, True, False, True]
        seen = lazyrich.measure(network(), batches[1:], num_samples=40)  # a convolution of another size may round otherwise
        assert found[3].values["low_rank"] == pytest.approx(seen.low_rank, abs=1e-12)

    def test_transformers_batches(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.head = nn.Embedding(9, 8), nn.Linear(8, 2)

            def forward(self, input_ids, labels=None):
                return {"logits": self.head(self.embed(input_ids).mean(1))}

        batches = [{"input_ids": torch.randint(9, (20, 5)), "labels": torch.randint(2, (20,))} for _ in range(3)]
        monitor = Monitor(Model(), batches, num_samples=50, preset="standard")
        assert monitor.evaluations[0].values["num_samples"] == 50
        assert "nc1" in monitor.evaluations[0].values

    def test_a_dead_network_does_not_end_training(self, tmp_path):
        model = network()
        monitor = Monitor(model, images(), every=1, out=tmp_path)
        with torch.no_grad():
            model[5].weight.zero_()
            model[5].bias.zero_()
        monitor.step(loss=torch.tensor(2.5, requires_grad=True))
        with torch.no_grad():
            model[5].weight.fill_(float("nan"))
        monitor.step()
        s = SeriesFolder(tmp_path).read()
        assert s.steps.tolist() == [0, 1, 2]
        assert "constant" in s.notes[1]
        assert "NaN" in s.notes[2]
        assert s["loss"][1] == 2.5
        assert "constant" in str(Monitor(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), torch.zeros(9, 2)))


class TestWhen:
    def due(self, schedule, steps=20, **moment):
        found, previous = [], None
        for step in range(steps):
            now = Moment(step, previous=previous, **moment)
            if schedule(now):
                found.append(step)
                previous = now
        return found

    def test_usual(self):
        assert self.due(schedules.every(7)) == [0, 7, 14]
        assert self.due(schedules.at(3, 4)) == [3, 4]
        assert self.due(schedules.any_of(schedules.every(10), schedules.at(3))) == [0, 3, 10]

    @given(per_decade=st.integers(1, 30))
    def test_log_spaced_is_what_it_says(self, per_decade):
        expected = sorted({0, *(round(10 ** (k / per_decade)) for k in range(3 * per_decade + 1))})
        assert self.due(schedules.log_spaced(per_decade), 1001) == expected

    def test_epochs(self):
        monitor = Monitor(network(), images(), every=schedules.epochs(2))
        for step in range(12):
            monitor.step(epoch=step // 2)
        assert monitor.series.steps.tolist() == [0, 5, 9]

    def test_when_the_loss_has_halved(self):
        monitor = Monitor(network(), images(), every=schedules.loss_falls(0.5))
        for loss in (8.0, 5.0, 4.0, 3.0, 1.9, 7.0, 0.96, 0.9):
            monitor.step(loss=torch.tensor(loss))
        assert monitor.series["loss"][1:].tolist() == pytest.approx([8, 4, 1.9, 0.9])

    def test_within_a_share_of_the_time(self):
        schedule = schedules.within(0.02)
        before = Moment(10)
        assert schedule(Moment(0))
        assert schedule(Moment(20, seconds=100, spent=1.0, cost=0.49, previous=before))  # and 0.49 at the end: 1.98 s
        assert not schedule(Moment(20, seconds=100, spent=1.0, cost=0.51, previous=before))
        assert not schedule(Moment(11, seconds=100, spent=0, cost=0, previous=before))  # no log-spaced step since

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: schedules.every(0), "every: steps must be an integer of at least 1, got 0"),
            (lambda: schedules.every(2.5), "got 2.5"),
            (lambda: schedules.log_spaced(0), "per_decade must be at least 1"),
            (lambda: schedules.loss_falls(1.0), "factor must be between 0 and 1, got 1.0"),
            (lambda: schedules.within(2.0), "share must be between 0 and 1, got 2.0"),
            (lambda: Monitor(network(), images(), every=0), "an integer of at least 1, got 0"),
            (lambda: Monitor(network(), images(), preset="all"), "preset must be one of light, standard, full, got 'all'"),
            (lambda: Monitor(network(), images(), num_samples=1), "num_samples must be at least 2"),
            (lambda: Monitor(network(), images(), resume=True), "resume=True needs out"),
            (lambda: Monitor(network(), []), "data gave no samples to keep as a probe set"),
            (lambda: Monitor(network(), every=1).step(), "the monitor has no data: pass a probe set"),
            (lambda: Monitor(network(), every=1).close(), "nothing to measure: no step was taken with a batch"),
            (lambda: Monitor(network(), images(), every=schedules.epochs()).step(), r"call monitor.step\(epoch=…\)"),
            (lambda: Monitor(network(), images(), every=schedules.loss_falls()).step(), r"call monitor.step\(loss=…\)"),
        ],
    )  # fmt: skip
    def test_errors(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


class TestAlarms:
    def test_crossing(self):
        rung = []
        model, data = network(), images()
        lazy = Monitor(model, data).evaluations[0].values["low_rank"]
        monitor = Monitor(model, data, every=1, alarms=[crosses("low_rank", lazy + 1e-6, rung.append)])
        monitor.step()
        assert not rung
        with torch.no_grad():
            model[5].weight.mul_(torch.randn(12, 64))
        now = monitor.step().values["low_rank"]
        assert [e.step for e in rung] == ([2] if now > lazy + 1e-6 else [])
        assert now != lazy

    def test_rank_falls(self):
        rung = []
        model = network()
        monitor = Monitor(model, images(), every=1, alarms=[falls("output_rank", rung.append)])
        with torch.no_grad():
            model[7].weight[2] = model[7].weight[1]
            model[7].bias[2] = model[7].bias[1]
        monitor.step()
        monitor.step()
        assert [(e.step, e.values["output_rank"]) for e in rung] == [(1, 2)]

    @pytest.mark.parametrize(
        ("values", "rings"), [((0.6, 0.4), True), ((0.4, 0.6), True), ((0.6, 0.7), False), ((None, 0.1), False)]
    )
    def test_both_ways(self, values, rings):
        rung = []
        before, found = ({} if v is None else {"low_rank": v} for v in values)
        crosses("low_rank", 0.5, rung.append)(lazyrich.Evaluation(2, found), lazyrich.Evaluation(1, before))
        assert bool(rung) == rings


PROGRAM = """
import sys, torch, lazyrich
sys.path.insert(0, {tests!r})
from test_monitor import network, images
out, resume = sys.argv[1], len(sys.argv) > 2
model = network()
done = int(sys.argv[2]) if resume else 0
with lazyrich.Monitor(model, images(), every=1, preset="standard", out=out, resume=resume) as monitor:
    for step in range(done + 1, 100_000 if not resume else done + 4):
        monitor.step(step)
        print(step, flush=True)
"""


class TestKilled:
    def test_what_was_measured_is_there_and_it_goes_on(self, tmp_path):
        code = PROGRAM.format(tests=str(Path(__file__).parent))
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            while int(process.stdout.readline()) < 5:
                pass
            process.kill()
            said = [int(line) for line in process.stdout]
        told = max([5, *said])
        s = SeriesFolder(tmp_path).read()
        assert s.steps.tolist() == list(range(len(s)))
        assert told <= s.steps[-1] <= told + 1
        assert len(set(s["low_rank"])) == 1
        assert all(s.curves(k) for k in range(len(s)))
        again = subprocess.run([*command, "3"], env=environment, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert SeriesFolder(tmp_path).read().steps.tolist() == [0, 1, 2, 3, 4, 5, 6]  # from step 3 it was trained anew

    def test_what_is_resumed_does_not_take_its_weights_for_the_start(self, tmp_path):
        model = network()
        Monitor(model, images(), preset="full", out=tmp_path)
        with torch.no_grad():
            model[5].weight.mul_(torch.randn(12, 64))
        found = Monitor(model, images(), preset="full", out=tmp_path, resume=True, every=1).step(7).values
        assert "low_rank of 5" in found
        assert not {"s_init", "parameter_distance", "tangent_kernel_change"} & set(found)

    @pytest.mark.parametrize("preset", ["light", "full"])
    def test_a_resumed_series_still_has_the_laziness_ratio(self, tmp_path, preset):
        model = network().eval()
        start = copy.deepcopy(model)
        Monitor(model, images(), preset=preset, out=tmp_path)
        with torch.no_grad():
            model[5].weight.mul_(torch.randn(12, 64))
        monitor = Monitor(model, images(), preset=preset, out=tmp_path, resume=True, every=1)
        expected = lazyrich.measure(model, images(), start=start)
        values = monitor.step(7).values
        assert values["laziness"] == pytest.approx(expected.laziness, abs=1e-12)
        assert values["laziness_balanced"] == pytest.approx(expected.laziness_balanced, abs=1e-12)
        assert 0 < values["laziness"] < 0.99
        assert not monitor.series.notes

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda path: path.unlink(), "start-features.npz does not exist"),
            (lambda path: path.write_bytes(path.read_bytes()[:-99]), "start-features.npz is damaged"),
            (None, "the probe set is another than at the start"),
        ],
    )
    def test_where_the_features_of_the_start_are_lost_a_note_says_so(self, tmp_path, change, reason):
        model, (x, y) = network(), images()
        Monitor(model, (x, y), out=tmp_path)
        if change is not None:
            change(tmp_path / "start-features.npz")
        found = Monitor(model, (x if change else x + 1, y), out=tmp_path, resume=True, every=1).step(7)
        assert "laziness" not in found.values
        assert 0 < found.values["low_rank"] < 1
        assert found.note.startswith("the laziness ratio is left out: ")
        assert reason in found.note

    def test_a_folder_that_is_taken(self, tmp_path):
        Monitor(network(), images(), out=tmp_path)
        with pytest.raises(DataError, match="holds a series already: pass resume=True to continue, or another out="):
            Monitor(network(), images(), out=tmp_path)
