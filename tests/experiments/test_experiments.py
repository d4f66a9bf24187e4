"""Training, resuming, and what comes of a run."""

import csv
import dataclasses
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_experiment
import torch
from killed import Killable
from small_experiment import CPU, SMALL, Blobs, run
from torch import nn

from lazyrich import DataError
from lazyrich.cli.main import main
from lazyrich.experiments import EXPERIMENTS, Claim, Loss, Machine, Mlp, Optimizer, Results, Setup, provenance
from lazyrich.experiments.ingredients.seeds import derived, seed_numbers
from lazyrich.experiments.run_folder import Run, RunFolder
from lazyrich.experiments.setup import log_spaced_steps, regular_steps
from lazyrich.experiments.table import table_text
from lazyrich.experiments.training import batch_rows
from lazyrich.results.series import Evaluation, Series

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning"),
]


def rows(folder):
    with (folder / "results.csv").open() as file:
        return {(r["condition"], r["seed"], r["step"], r["measure"]): float(r["value"]) for r in csv.DictReader(file)}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the programs have that are compared with: another number of threads rounds otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_thread):
    """The small experiment, uninterrupted: folder, table."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Runs in the children of one program, which has imported what they need; the file that has their errors."""
    errors = tmp_path_factory.mktemp("program") / "errors"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command, variables = [sys.executable, small_experiment.__file__], {**os.environ, "OMP_NUM_THREADS": "1"}
    with errors.open("a") as written, subprocess.Popen(command, stderr=written, env=variables, **pipes) as started:
        yield Killable(started), errors


class TestParts:
    def test_losses(self):
        f, y = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
        hot = nn.functional.one_hot(y, 3).float()
        torch.testing.assert_close(Loss("squared", 3.0, 2.0)(f, y), 2 * nn.functional.mse_loss(f, 3 * hot))
        torch.testing.assert_close(Loss("cross-entropy", weight=2.0)(f, y), 2 * nn.functional.cross_entropy(f, y))

    def test_learning_rate(self):
        described = Optimizer("sgd", 0.1, warmup=10, milestones=(50, 80), factor=0.2)
        model = nn.Linear(2, 2)
        optimizer = described.build(model, Mlp())
        for step, rate in ((1, 0.01), (5, 0.05), (10, 0.1), (50, 0.1), (51, 0.02), (81, 0.004)):
            described.set_rate(optimizer, step)
            assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)

    def test_every_epoch_sees_every_row_once(self):
        epochs = [[batch_rows(100, 25, 0, step) for step in range(4 * e + 1, 4 * e + 5)] for e in range(2)]
        for epoch in epochs:
            assert torch.equal(torch.cat(epoch).sort().values, torch.arange(100))
        assert not torch.equal(epochs[0][0], epochs[1][0])
        assert len(batch_rows(7, 25, 0, 3)) == 7

    def test_an_antisymmetric_network_starts_at_zero_with_the_tangent_kernel_of_one_copy(self):
        x = torch.randn(5, 1, 4, 4, dtype=torch.float64)
        kernels = []
        for antisymmetric in (False, True):
            torch.manual_seed(3)
            model = Mlp(width=6, depth=3, antisymmetric=antisymmetric, output_scale=4.0).build(x, 2).double()
            parameters = [p for name, p in model.named_parameters() if "head" not in name or "weight" in name]
            rows = [
                torch.cat([g.flatten() for g in torch.autograd.grad(f, parameters, retain_graph=True)]) for f in model(x)[:, 1]
            ]
            kernels.append(torch.stack(rows) @ torch.stack(rows).T)
        assert model(x).abs().max() < 1e-12
        torch.testing.assert_close(*kernels)
        names = [name for name, _ in model.named_modules()]
        assert names[-1].startswith("head")

    def test_seeds_differ_by_purpose(self):
        assert len({derived(seed, purpose) for seed in range(20) for purpose in ("a", "b")}) == 40
        assert derived(3, "start") == derived(3, "start")

    @pytest.mark.parametrize(
        ("seeds", "message"),
        [
            (0, "must be at least 1, got 0"),
            ("3-1", "must be different numbers from 0, and at least one"),
            ("1,1", "must be different numbers"),
            ("1;2", "must be a count such as 3, or numbers such as 100-104 or 0,3,7, got '1;2'"),
            ([-1], "must be different numbers from 0"),
        ],
    )
    def test_seeds_that_are_none(self, seeds, message):
        with pytest.raises(ValueError, match=f"seeds {message}"):
            seed_numbers(seeds)

    def test_a_machine_without_git_or_a_name_of_its_processor(self, monkeypatch):
        monkeypatch.setattr(provenance.shutil, "which", lambda name: None)
        assert provenance.commit() == (None, None)
        monkeypatch.setattr(provenance.platform, "processor", lambda: "")
        monkeypatch.setattr(provenance.Path, "read_text", lambda self, **options: "")
        assert provenance.processor() is None

    def test_the_commit_is_that_of_the_package(self, monkeypatch, tmp_path):
        """In a repository made here: its commit, clean and then not; another folder in it, which git does not track, has none."""
        package = tmp_path / "src" / "experiments"
        package.mkdir(parents=True)
        file = package / "provenance.py"
        file.write_text("a")
        git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
        for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "a"]):
            subprocess.run([*git, *arguments], check=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        monkeypatch.setattr(provenance, "__file__", str(file))
        assert provenance.commit() == (head, True)
        file.write_text("b")
        assert provenance.commit() == (head, False)
        (tmp_path / "src" / "installed").mkdir()
        monkeypatch.setattr(provenance, "__file__", str(tmp_path / "src" / "installed" / "provenance.py"))
        assert provenance.commit() == (None, None)

    def test_schedules(self):
        assert log_spaced_steps(1000, 4) == (0, 1, 10, 100, 1000)
        assert regular_steps(30, 100, also=(5,)) == (0, 5, 30, 60, 90, 100)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"steps": 0}, "must be positive, got 0, 64, 2000"),
            ({"evaluate": (200,)}, r"evaluate must hold steps between 0 and 120, got \(200,\)"),
        ],
    )
    def test_setup_errors(self, change, message):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(SMALL.setups("quick")["full"], **change)

    def test_verdicts(self):
        claim = Claim("", "", lambda s: s["x"])
        for holds, verdict in (
            ([1, 1, 1], "shown"),
            ([1, 1, 0], "undecided"),
            ([1, 0, 0], "not shown"),
            ([0, 0, 0], "not shown"),
        ):
            assert claim.verdict([{"x": h} for h in holds]) == (verdict, sum(holds))


class TestRun:
    def test_what_it_leaves(self, whole):
        folder, text = whole
        assert (folder / "table.txt").read_text() == text + "\n"
        assert (
            "EXPLORATORY  it learns (2 of 2 seeds; because the claim is not registered; rule: last test accuracy > 50 %)" in text
        )
        assert "\nSHOWN" not in text
        assert "0.25" in text
        about = json.loads((folder / "run.json").read_text())
        assert about["command"] == "lazyrich run small --preset quick --seeds 2 --accelerator cpu"
        assert about["versions"]["torch"].startswith(torch.__version__.split("+")[0])
        assert about["seeds"] == [0, 1]
        assert about["threads"] == 1
        name, arrays = Blobs().arrays(Path())
        content = b"".join(f"{a.dtype.str} {a.shape} ".encode() + a.tobytes() for a in arrays)
        assert about["arrays"] == {name: hashlib.sha256(content).hexdigest()}
        values = rows(folder)
        assert {step for (condition, _, step, _) in values if condition == "full"} == {"0", "30", "60", "90", "120"}
        assert not list(folder.rglob("checkpoint.pt"))

    def test_the_last_layer_alone_keeps_the_features(self, whole):
        values = rows(whole[0])
        for seed in "01":
            assert values["last", seed, "80", "s_init"] == pytest.approx(1, abs=1e-6)
            assert values["last", seed, "80", "laziness"] == pytest.approx(1, abs=1e-12)
            assert values["full", seed, "120", "s_init"] < 0.99
            assert 0 < values["full", seed, "120", "laziness"] < 0.9
        heading, _, *lines = whole[1].splitlines()[2:6]
        column = heading.index(" λ ") + 1
        assert {line[:4]: line[column:].split()[0] for line in lines}["last"] == "1.000"

    def test_a_measure_that_no_run_has_gets_no_column(self, tmp_path):
        """Runs that were recorded before a measure was added."""
        evaluations = [Evaluation(1, {"low_rank": 0.2, "test_accuracy": 0.9} | more) for more in ({}, {"laziness": 0.5})]
        before, after = (Run(Series([evaluation]), tmp_path, 0.0) for evaluation in evaluations)
        columns = []
        for full in (before, after):
            text = table_text(SMALL, "quick", Results({"full": [full], "last": [before]}, (0,)))
            columns.append(text.splitlines()[2].split())
        assert "λ" not in columns[0]
        assert [name for name in columns[1] if name not in columns[0]] == ["λ"]

    def test_the_measures_are_those_of_the_network(self, whole):
        """Trained again by hand in plain PyTorch, and measured."""
        import lazyrich

        setup = SMALL.setups("quick")["full"]
        data = Blobs().load(1, Path())
        torch.manual_seed(derived(1, "start"))
        model = setup.model.build(data.train.inputs, 10)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for step in range(1, 121):
            x = data.train[batch_rows(360, 64, 1, step)]
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x.inputs), nn.functional.one_hot(x.labels, 10).float()).backward()
            optimizer.step()
        r = lazyrich.measure(model, (data.train.inputs, data.train.labels))
        values = rows(whole[0])
        assert values["full", "1", "120", "low_rank"] == pytest.approx(r.low_rank, abs=1e-6)
        assert values["full", "1", "120", "balanced"] == pytest.approx(r.balanced, abs=1e-6)
        accuracy = (model(data.test.inputs).argmax(1) == data.test.labels).double().mean().item()
        assert values["full", "1", "120", "test_accuracy"] == pytest.approx(accuracy, abs=1e-6)

    def test_same_seed_same_numbers_and_other_seeds_others(self, whole, tmp_path):
        torch.manual_seed(7)
        before = torch.get_rng_state()
        again = run(tmp_path)
        assert again == whole[1]
        assert rows(tmp_path) == rows(whole[0])
        assert torch.equal(torch.get_rng_state(), before)
        last = [rows(tmp_path)["full", seed, "120", "low_rank"] for seed in "01"]
        assert last[0] != last[1]

    def test_more_seeds_are_added(self, whole, tmp_path):
        run(tmp_path, seeds=1)
        run(tmp_path, seeds=3, resume=True)
        values = rows(tmp_path)
        assert {k: v for k, v in values.items() if k[1] != "2"} == rows(whole[0])
        assert len({values["full", seed, "120", "low_rank"] for seed in "012"}) == 3

    def test_seed_numbers_and_conditions(self, whole, tmp_path):
        text = run(tmp_path, seeds="1-1", conditions=["full"])
        assert "small (quick), 1 seed (1):" in text
        assert "(1 of 1 seeds" in text
        assert rows(tmp_path) == {k: v for k, v in rows(whole[0]).items() if k[:2] == ("full", "1")}
        command = json.loads((tmp_path / "run.json").read_text())["command"]
        assert command == "lazyrich run small --preset quick --seeds 1-1 --conditions full --accelerator cpu"
        text = run(tmp_path, seeds=[1], conditions=["last"], resume=True)
        assert "full" not in text.split("Claims")[0]
        assert "Claims" not in text  # the claim reads the other condition
        with pytest.raises(DataError, match="conditions: no condition 'ful'; did you mean full"):
            run(tmp_path / "other", conditions=["ful"])

    def test_two_processes_are_one(self, whole, tmp_path):
        run(tmp_path, machine=Machine("cpu", 2))
        one, two = rows(whole[0]), rows(tmp_path)
        for measure in ("low_rank", "balanced", "test_accuracy", "train_loss"):
            for seed in "01":
                key = ("full", seed, "120", measure)
                assert two[key] == pytest.approx(one[key], abs=0.02), key


class TestInterrupted:
    def test_killed_ten_times(self, whole, program, tmp_path):
        """kill -9 at ten writes, some of them torn, resumed each time: the table and every number are those of the whole run."""
        draws, (runs, _) = random.Random(0), program
        for k in range(10):
            assert runs(tmp_path, draws.randint(1, 40), torn=k % 2 == 0)
        assert not runs(tmp_path)
        assert (tmp_path / "table.txt").read_text() == whole[1] + "\n"
        assert rows(tmp_path) == rows(whole[0])
        for curves in whole[0].rglob("*.npz"):
            with np.load(curves) as a, np.load(tmp_path / curves.relative_to(whole[0])) as b:
                assert all(np.array_equal(a[name], b[name]) for name in a.files)

    @pytest.mark.skipif(sys.platform == "win32", reason="the size of files is limited with the resource module")
    def test_a_full_disk_leaves_nothing_that_passes_for_whole(self, whole, program, tmp_path):
        (tmp_path / "out.disk").write_text("20000")
        runs, errors = program
        os.truncate(errors, 0)  # because the limit holds for this file too
        assert runs.end(out := tmp_path / "out") == 1
        assert "cannot write" in (last := errors.read_text().splitlines()[-1])
        assert str(out) in last
        assert not list(out.rglob("done.json"))
        assert not list(out.rglob("*.partial"))
        assert run(out, resume=True) == whole[1]

    def test_a_preset_that_the_experiment_does_not_have(self, tmp_path):
        with pytest.raises(DataError, match="encoded-mnist has no preset 'medium'; it has quick and paper"):
            small_experiment.run_experiment(EXPERIMENTS["encoded-mnist"], "medium", tmp_path)

    def test_the_folder_is_taken(self, whole):
        with pytest.raises(DataError, match="holds runs already: pass resume=True to continue, or another out="):
            run(whole[0])

    def test_another_setup(self, tmp_path):
        folder = RunFolder(tmp_path / "a", "a, seed 0")
        setup = SMALL.setups("quick")["full"]
        folder.claim(setup, 0)
        folder.claim(setup, 0)
        with pytest.raises(DataError, match=r"another setup: batch_size, seed differ \(batch_size is 64 there and 32 here\)"):
            folder.claim(dataclasses.replace(setup, batch_size=32), 1)

    @pytest.mark.parametrize("file", ["evaluations.jsonl", "done.json", "setup.json"])
    def test_a_damaged_folder_is_named(self, whole, tmp_path, file):
        shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
        path = tmp_path / "runs" / "full" / "seed-0" / file
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(DataError, match=f"(?s){file}.*delete"):
            run(tmp_path, seeds=1, resume=True)

    def test_a_damaged_checkpoint_is_named(self, whole, tmp_path):
        shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
        folder = tmp_path / "runs" / "full" / "seed-0"
        (folder / "done.json").unlink()
        (folder / "checkpoint.pt").write_bytes(b"no checkpoint")
        with pytest.raises(DataError, match=r"checkpoint\.pt is damaged .*: delete .* to run it again"):
            run(tmp_path, seeds=1, resume=True)

    def test_divergence_is_said(self, tmp_path):
        def wild(preset):
            setup = dataclasses.replace(SMALL.setups("quick")["full"], optimizer=Optimizer("sgd", 1e6))
            return {"full": setup}

        experiment = dataclasses.replace(SMALL, setups=wild)
        with pytest.raises(DataError, match=r"full, seed 0: training diverged before step 30: .* Lower the learning rate 1e\+06"):
            small_experiment.run_experiment(experiment, "quick", tmp_path, seeds=1, machine=CPU)


@pytest.mark.parametrize("name", list(EXPERIMENTS))
class TestTheTen:
    def test_every_preset_has_whole_setups(self, name):
        for preset in EXPERIMENTS[name].presets:
            setups = EXPERIMENTS[name].setups(preset)
            assert len({RunFolder(Path(), c).name for c in setups}) == len(setups)
            for setup in setups.values():
                assert json.dumps(setup.to_dict())

    @pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")
    def test_table_claims_and_figures_come_out(self, name, tmp_path):
        """With a small network and few steps: not the results, but everything that is done with them."""

        def tiny(preset):
            return {
                condition: Setup(Blobs(), Mlp(width=24, depth=3), setup.loss, Optimizer("adam", 3e-3), 8, 64, (0, 2))
                for condition, setup in EXPERIMENTS[name].setups("quick").items()
            }

        experiment = dataclasses.replace(EXPERIMENTS[name], setups=tiny)
        text = small_experiment.run_experiment(experiment, "quick", tmp_path, seeds=1, machine=CPU)
        assert all(condition in text for condition in tiny("quick"))
        assert text.count("(0 of 1 seeds; because") + text.count("(1 of 1 seeds; because") == len(experiment.claims)
        figures = list(tmp_path.glob("*.png"))
        assert figures
        assert all(figure.read_bytes()[:4] == b"\x89PNG" for figure in figures)


class TestCommandLine:
    def test_list(self, capsys):
        assert main(["experiments"]) == 0
        out = capsys.readouterr().out
        assert all(name in out and e.question in out for name, e in EXPERIMENTS.items())

    def test_unknown(self, capsys):
        assert main(["run", "groking"]) == 1
        assert "no experiment 'groking'; did you mean grokking? There are: encoded-mnist," in capsys.readouterr().err

    def test_missing_data(self, capsys, tmp_path, monkeypatch):
        from lazyrich.experiments.ingredients.images import SOURCES, Source

        source = SOURCES["mnist"]
        nowhere = Source(source.folder, source.files, "http://127.0.0.1:9/", source.checksums, 10)
        monkeypatch.setitem(SOURCES, "mnist", nowhere)
        command = ["run", "encoded-mnist", "--out", str(tmp_path / "out"), "--data", str(tmp_path), "--accelerator", "cpu"]
        assert main([*command, "--no-progress"]) == 1
        err = capsys.readouterr().err
        assert "train-images-idx3-ubyte" in err
        assert "Put the files there yourself, or name the folder that holds MNIST/raw with --data or LAZYRICH_DATA" in err
        assert main([*command, "--no-progress", "--resume", "--seeds", "0"]) == 1
        assert "lazyrich: --seeds must be at least 1, got 0" in capsys.readouterr().err
