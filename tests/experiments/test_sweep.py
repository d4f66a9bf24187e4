"""A grid of settings, its runs on Ray: what is typed wrongly, what is lost, stopped, continued and counted."""

import csv
import dataclasses
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_experiment import CPU, SMALL, Blobs
from small_sweep import CHECKPOINT, KILLED_AT, LOGGED, RATES, STEPS, sweep, trained

from lazyrich import DataError
from lazyrich.cli.main import main
from lazyrich.experiments import EXPERIMENTS, Cluster, Images, Machine, run_experiment
from lazyrich.experiments.sweeps import on_ray
from lazyrich.experiments.sweeps import sweep as rooms
from lazyrich.experiments.sweeps.grid import Point, read_grid
from lazyrich.report import write_report
from lazyrich.report.found import find

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning"),
]
needs_ray = pytest.mark.skipif(
    sys.platform == "win32" or importlib.util.find_spec("ray") is None,
    reason="Ray is not installed, or no signal kills a process",
)
SETUPS = SMALL.setups("quick")
TESTS = str(Path(__file__).parents[1])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def log(tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("SWEEP_LOG", str(path))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # the default of 15 starves them on a busy machine
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([TESTS, *filter(None, [os.environ.get("PYTHONPATH")])]))
    return path


@pytest.fixture
def without_ray(monkeypatch):
    """The jobs one after the other in this process: all of a sweep but Ray."""

    def in_turn(work, jobs, cluster, watch):
        outcome = on_ray.Outcome(version="none")
        for name, arguments in jobs.items():
            try:
                work(*arguments)
            except DataError as error:
                outcome.failed[name] = str(error)
            watch(outcome)
        return outcome

    monkeypatch.setattr(rooms, "run_jobs", in_turn)


def numbers(folder):
    """(rate, seed, step, measure) -> value as it is written."""
    with (folder / "results.csv").open() as file:
        return {(r["optimizer.rate"], r["seed"], r["step"], r["measure"]): r["value"] for r in csv.DictReader(file)}


@pytest.fixture(scope="module")
def without_a_sweep(tmp_path_factory):
    """The numbers of the same runs, as conditions of an experiment."""
    folder = tmp_path_factory.mktemp("without")

    def setups(preset):
        logged = LOGGED.setups(preset)["full"]
        plain = dataclasses.replace(logged, data=Blobs(), optimizer=SMALL.setups(preset)["full"].optimizer)
        return {
            rate: dataclasses.replace(plain, optimizer=dataclasses.replace(plain.optimizer, rate=float(rate))) for rate in RATES
        }

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run_experiment(dataclasses.replace(SMALL, setups=setups, claims=(), published={}), "quick", folder, seeds=2, machine=CPU)
    torch.set_num_threads(before)
    with (folder / "results.csv").open() as file:
        return {(r["condition"], r["seed"], r["step"], r["measure"]): r["value"] for r in csv.DictReader(file)}


class TestGrid:
    def test_every_combination(self):
        grid = read_grid(["optimizer.rate=0.1,1e-2", "model.width=8,16,32"], SETUPS)
        assert [str(point) for point in grid][:2] == ["optimizer.rate=0.1, model.width=8", "optimizer.rate=0.1, model.width=16"]
        found = {(s["full"].optimizer.rate, s["full"].model.width) for s in grid.values()}
        assert found == {(rate, width) for rate in (0.1, 0.01) for width in (8, 16, 32)}
        for setups in grid.values():
            for condition, setup in setups.items():
                same = dataclasses.replace(
                    SETUPS[condition],
                    optimizer=dataclasses.replace(SETUPS[condition].optimizer, rate=setup.optimizer.rate),
                    model=dataclasses.replace(SETUPS[condition].model, width=setup.model.width),
                )
                assert setup == same

    def test_without_a_grid_nothing_changes(self):
        assert read_grid([], SETUPS) == {Point(()): SETUPS}
        assert Point(()).folder == str(Point(())) == ""

    @pytest.mark.parametrize(
        ("word", "read"),
        [
            ("loss.name=cross-entropy", lambda s: s.loss.name == "cross-entropy"),
            ("model.init_scale=none", lambda s: s.model.init_scale is None),
            ("model.init_scale=2", lambda s: s.model.init_scale == 2.0),
            ("optimizer.betas=0.8+0.99", lambda s: s.optimizer.betas == (0.8, 0.99)),
            ("optimizer.milestones=10+20", lambda s: s.optimizer.milestones == (10, 20)),
            ("optimizer.milestones=none", lambda s: s.optimizer.milestones == ()),
            ("held_out=true", lambda s: s.held_out is True),
            ("trained=last layer", lambda s: s.trained == "last layer"),
            ("steps=40", lambda s: (s.steps, s.evaluate) == (40, (0, 30, 40))),
            ("steps=240", lambda s: (s.steps, s.evaluate) == (240, (0, 30, 60, 90, 120, 240))),
            ("evaluate=5+7", lambda s: s.evaluate == (5, 7, 120)),
        ],
    )
    def test_types(self, word, read):
        (setups,) = read_grid([word], {"full": SETUPS["full"]}).values()
        assert read(setups["full"])

    @given(st.floats(1e-9, 1e9), st.integers(1, 10**9), st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)), st.booleans())
    def test_what_is_shown_reads_the_same(self, rate, steps, betas, held_out):
        named = (("optimizer.rate", rate), ("batch_size", steps), ("optimizer.betas", betas), ("held_out", held_out))
        words = [f"{name}={value}" for name, value in Point(named).cells.items()]
        assert list(read_grid(words, {"full": SETUPS["full"]})) == [Point(named)]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["optimizer.rate"], r"'optimizer.rate' is not FIELD=VALUE,VALUE…, such as optimizer.rate=0.01,0.1 without spaces"),
            (["=3"], "'=3' is not FIELD=VALUE"),
            (["optimizer.rate="], "a value is empty in 'optimizer.rate='"),
            (["optimizer.rate=0.1,,0.2"], "a value is empty in 'optimizer.rate=0.1,,0.2'"),
            (["optimizer.rate=0.1,", "0.2"], "a value is empty"),
            (
                ["optimizer.rat=1"],
                r"no field 'optimizer.rat' in .*'full', whose optimizer is Optimizer; did you mean optimizer.rate\?",
            ),
            (["rate=1"], r"no field 'rate' in the condition 'full'; did you mean optimizer.rate\? There are: .*batch_size"),
            (["model.widht=8"], r"whose model is Mlp; did you mean model.width\? There are: model.output_scale"),
            (["data.train=8"], r"whose data is Blobs\. There are: "),
            (["model=8"], "model is not one value but several: vary one of model.output_scale"),
            (["model.width=8.5"], "model.width must be a whole number, got '8.5'"),
            (["optimizer.rate=fast"], "optimizer.rate must be a number, got 'fast'"),
            (["optimizer.rate=nan"], "optimizer.rate must be finite, got 'nan'"),
            (["held_out=yes"], "held_out must be true or false, got 'yes'"),
            (["loss.name=squard"], r"loss.name must be one of squared, cross-entropy, got 'squard'; did you mean squared\?"),
            (["optimizer.betas=0.9"], r"optimizer.betas holds 2 values, joined by \+, got '0.9'"),
            (
                ["optimizer.rate=-1"],
                "optimizer.rate=-1.0 cannot be set in the condition 'full': rate must be 0 or more, got -1.0",
            ),
            (["model.width=0"], "model.width=0 cannot be set in the condition 'full': width must be at least 1, got 0"),
            (["steps=0"], "steps=0 cannot be set .*: steps, batch_size and measured must be positive, got 0"),
            (["optimizer.rate=0.1,0.10"], "optimizer.rate takes 0.1 twice in '0.1,0.10'"),
            (["optimizer.rate=0.1", "optimizer.rate=0.2"], "optimizer.rate is named twice: put all its values into one list"),
        ],
    )
    def test_errors(self, words, message):
        with pytest.raises(DataError, match=f"^grid: .*{message}"):
            read_grid(words, SETUPS)

    def test_conditions_that_become_one(self):
        adam = SETUPS["full"].optimizer
        setups = {
            f"rate {rate}": dataclasses.replace(SETUPS["full"], optimizer=dataclasses.replace(adam, rate=rate))
            for rate in (0.1, 0.2)
        }
        message = "at optimizer.rate=0.3 the conditions 'rate 0.1' and 'rate 0.2' are the same run.*conditions="
        with pytest.raises(DataError, match=message):
            read_grid(["optimizer.rate=0.3"], setups)

    def test_conditions_of_other_kinds(self):
        setups = {"blobs": SETUPS["full"], "images": dataclasses.replace(SETUPS["full"], data=Images("mnist", train=100))}
        with pytest.raises(DataError, match="no field 'data.train' in the condition 'blobs', whose data is Blobs"):
            read_grid(["data.train=10,20"], setups)


class TestSweep:
    def test_what_it_leaves(self, tmp_path, log, without_ray):
        out = tmp_path / "out"
        swept = sweep(out, rates=("0.003", "0.03"))
        assert (swept.runs, swept.failed, swept.lost) == (4, {}, {})
        assert (out / "table.txt").read_text() == f"{swept}\n"
        lines = str(swept).splitlines()
        assert lines[2].split()[:3] == ["optimizer.rate", "condition", "seeds"]
        assert [line.split()[:3] for line in lines[4:6]] == [["0.003", "full", "2"], ["0.03", "full", "2"]]
        values = [float(numbers(out)["0.03", seed, str(STEPS), "low_rank"]) for seed in "01"]
        assert f"{sum(values) / 2:.3f} ± {abs(values[0] - values[1]) / 2**0.5:.3f}" in lines[5]  # sd of two: |a - b| / √2
        about = json.loads((out / "sweep.json").read_text())
        assert about["command"] == "lazyrich sweep small --grid optimizer.rate=0.003,0.03 --preset quick --seeds 2"
        assert about["points"] == [{"optimizer.rate": 0.003}, {"optimizer.rate": 0.03}]
        assert (about["runs"], about["failed"], about["lost"], about["threads"]) == (4, {}, {}, 1)

    def test_the_report_reads_it(self, tmp_path, log, without_ray):
        pytest.importorskip("plotly")
        out = tmp_path / "out"
        sweep(out, rates=("0.003", "0.03"))
        names = ["optimizer.rate=0.003, full", "optimizer.rate=0.03, full"]
        found = find(out)
        assert [(run.name, len(run.seeds)) for run in found.runs] == [(name, 2) for name in names]
        assert [of.facts["command"].split(" --")[0] for of in found.experiments] == ["lazyrich sweep small"]
        assert "optimizer.rate=0.03, full" in write_report(out).read_text()
        (out / "runs").rename(tmp_path / "elsewhere")
        assert [run.name for run in find(out).runs] == names

    def test_a_bad_configuration_does_not_stop_the_others(self, tmp_path, log, without_ray):
        out = tmp_path / "out"
        swept = sweep(out, rates=("1e30", "0.003"))
        assert list(swept.failed) == [f"optimizer.rate=1e+30, full, seed {seed}" for seed in (0, 1)]
        assert "Failed, 2 of 4 runs:\n  optimizer.rate=1e+30, full, seed 0: training diverged before step 30" in str(swept)
        assert [line.split()[2] for line in str(swept).splitlines()[4:6]] == ["0", "2"]
        assert json.loads((out / "sweep.json").read_text())["failed"] == swept.failed

    def test_more_points_and_seeds_are_added(self, tmp_path, log, without_ray):
        out = tmp_path / "out"
        lines = str(sweep(out, rates=("0.003",), seeds=1)).splitlines()
        assert lines[1] == "in all runs optimizer.rate=0.003"
        assert lines[3].split()[:2] == ["condition", "seeds"]
        first = numbers(out)
        with pytest.raises(DataError, match="holds runs already: pass resume=True to continue, or another out="):
            sweep(out, rates=("0.003",))
        swept = sweep(out, rates=("0.003", "0.004"), seeds=2, resume=True, progress=True)
        assert len(trained(log)) == swept.runs == 4
        assert all(processes == [list(range(1, STEPS + 1))] for processes in trained(log).values())
        assert first.items() < numbers(out).items()

    def test_another_setup_in_the_folder(self, tmp_path, log, without_ray):
        sweep(tmp_path / "out", rates=("0.003",), seeds=1)
        path = next(tmp_path.rglob("setup.json"))
        path.write_text(path.read_text().replace('"batch_size": 64', '"batch_size": 32'))
        with pytest.raises(DataError, match="holds a run with another setup: batch_size differ"):
            sweep(tmp_path / "out", rates=("0.003",), seeds=1, resume=True)

    def test_a_damaged_run_is_named(self, tmp_path, log, without_ray):
        sweep(tmp_path / "out", rates=("0.003", "0.004"), seeds=1)
        (tmp_path / "out/runs/optimizer.rate=0.003/full/seed-0/evaluations.jsonl").write_text("{}\n")
        swept = sweep(tmp_path / "out", rates=("0.003", "0.004"), seeds=1, resume=True)
        assert list(swept.failed) == ["optimizer.rate=0.003, full, seed 0"]
        assert "is damaged" in str(swept)

    def test_two_sweeps_in_one_folder(self, tmp_path, log):
        with rooms._alone(tmp_path / "out"), pytest.raises(DataError, match="another sweep uses .*out: wait until"):
            sweep(tmp_path / "out")

    def test_a_disk_that_is_not_shared(self, tmp_path):
        (run,) = rooms._planned(read_grid([], {"full": SETUPS["full"]}), (0,), tmp_path)
        with pytest.raises(DataError, match="does not see .*seed-0: out= must be on a shared disk"):
            rooms._train(run, tmp_path, Machine("cpu"), 1)

    def test_ctrl_c_says_what_is_whole(self, tmp_path, log, monkeypatch, capsys):
        def stopped(work, jobs, cluster, watch):
            work(*next(iter(jobs.values())))
            raise KeyboardInterrupt

        monkeypatch.setattr(rooms, "run_jobs", stopped)
        monkeypatch.setitem(EXPERIMENTS, "small", LOGGED)
        assert main(["sweep", "small", "--seeds", "2", "--out", str(tmp_path / "out"), "--no-progress"]) == 130
        assert capsys.readouterr().err == "lazyrich: stopped: 1 of 2 runs are complete; --resume continues the others\n"


class TestCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["groking"], "no experiment 'groking'; did you mean grokking? There are: encoded-mnist,"),
            (["small", "--conditions", "ful"], "--conditions: no condition 'ful'; did you mean full? There are: 'full'"),
            (["small", "--seeds", "0"], "lazyrich: --seeds must be at least 1, got 0"),
            (["small", "--cpus-per-run", "0"], "lazyrich: --cpus-per-run must be at least 1, got 0"),
            (
                ["small", "--gpus-per-run", "2"],
                "lazyrich: --gpus-per-run must be between 0 and 1, because a run trains on one GPU, got 2.0",
            ),
            (["small", "--retries", "-1"], "lazyrich: --retries must be 0 or more, got -1"),
            (["small", "--grid", "steps=10,x"], "--grid: steps must be a whole number, got 'x'"),
        ],
    )
    def test_errors(self, arguments, message, capsys, monkeypatch, tmp_path):
        monkeypatch.setitem(EXPERIMENTS, "small", LOGGED)
        assert main(["sweep", *arguments, "--out", str(tmp_path), "--no-progress"]) == 1
        assert message in capsys.readouterr().err

    def test_failures_end_in_an_exit_status(self, tmp_path, log, without_ray, monkeypatch, capsys):
        monkeypatch.setitem(EXPERIMENTS, "small", LOGGED)
        arguments = ["sweep", "small", "--grid", "optimizer.rate=1e30", "--seeds", "1", "--out", str(tmp_path), "--no-progress"]
        assert main(arguments) == 1
        shown = capsys.readouterr()
        assert shown.err == "lazyrich: 1 of 1 runs failed; try them again with --resume\n"
        assert "Failed, 1 of 1 runs:" in shown.out

    def test_without_ray(self, tmp_path, log, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "ray", None)
        monkeypatch.setitem(EXPERIMENTS, "small", LOGGED)
        assert main(["sweep", "small", "--out", str(tmp_path / "out"), "--no-progress"]) == 1
        assert not (tmp_path / "out").exists()
        assert 'this needs ray, which is not installed: pip install "lazyrich[ray]"' in capsys.readouterr().err

    def test_more_than_the_machine_has(self):
        small = SimpleNamespace(
            nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 8.0}}]
        )
        on_ray._check_room(small, Cluster(cpus_per_run=2))
        with pytest.raises(DataError, match="cpus_per_run is 4, and this machine has 2 CPUs"):
            on_ray._check_room(small, Cluster(cpus_per_run=4))
        with pytest.raises(DataError, match="gpus_per_run is 0.5, and this machine has 0 GPUs"):
            on_ray._check_room(small, Cluster(gpus_per_run=0.5))
        with pytest.warns(UserWarning, match="cpus_per_run is 4, and no machine of the cluster has more than 2: waiting"):
            on_ray._check_room(small, Cluster("auto", cpus_per_run=4))

    def test_a_kill_ends_in_order(self):
        before = signal.getsignal(signal.SIGTERM)
        with on_ray._sigterm() as end_in_order:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray sets its own
            end_in_order()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == before

    def test_a_handler_of_the_program_stays(self):
        heard = []
        before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
        try:
            with on_ray._sigterm() as end_in_order:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                end_in_order()
                signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert heard == [signal.SIGTERM, signal.SIGTERM]

    def test_help_does_not_import_ray(self):
        code = (
            "import sys\nfrom lazyrich.cli.main import main\n"
            "assert main(['--help']) == 0\nassert 'ray' not in sys.modules\nsys.exit(7)"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 7


def whole(out):
    return list(out.rglob("done.json"))


def processes_of(log):
    """Everything that was started with this log in its environment, this process aside."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            theirs = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # gone, or another's
            continue
        if f"SWEEP_LOG={log}".encode() in theirs and int(process.name) != os.getpid():
            found.append((process / "cmdline").read_bytes())
    return found


def wait_until_gone(log):
    """Returns when no process of this log is left, however long the machine takes."""
    while processes_of(log):
        time.sleep(0.1)


@needs_ray
class TestOnRay:
    @pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "somewhere"])
    def test_nobody_answers(self, address, tmp_path, log, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with on_ray._environment(Cluster()):  # some of it is read when Ray is imported, which the next tests rely on
            import ray

        monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray itself tries for a quarter of an hour"))
        with pytest.raises(DataError, match="no Ray cluster answers at address='.*; `ray start --head` starts one"):
            on_ray.run_jobs(print, {"a": ()}, Cluster(address.format(port)), rooms._unwatched)

    def test_a_lost_process_and_a_bad_configuration(self, tmp_path, log, without_a_sweep, capfd):
        """12 runs and a bad one, a process killed in the middle: all 12, none twice, none of what the checkpoint held again."""
        out = tmp_path / "out"
        Path(f"{log}.kill").touch()
        swept = sweep(out, rates=(*RATES, "1e30"))
        assert capfd.readouterr() == ("", "")
        wait_until_gone(log)
        assert len(whole(out)) == 12
        assert list(swept.failed) == [f"optimizer.rate=1e+30, full, seed {seed}" for seed in (0, 1)]
        assert list(swept.lost.values()) == [1]
        (lost,) = swept.lost
        assert f"their process or machine was lost:\n  {lost}\n" in str(swept)
        all_steps, last = list(range(1, STEPS + 1)), int(lost[-1])
        for run, processes in trained(log).items():
            if run == (0.003, last):
                assert processes == [all_steps[:KILLED_AT], all_steps[CHECKPOINT:]]
            elif run[0] < 1:
                assert processes == [all_steps]
        assert numbers(out) == without_a_sweep

    @pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts processes in /proc")
    def test_stopped_killed_and_continued(self, tmp_path, log, without_a_sweep, monkeypatch, capsys):
        """Ctrl-C, then kill -9 of the command, then to the end: nothing is lost, nothing whole is trained again."""
        out = tmp_path / "out"
        code = "import sys, small_sweep; sys.exit(small_sweep.program(sys.argv[1:]))"
        grid = ["--grid", f"optimizer.rate={','.join(RATES)}", "--seeds", "2", "--out", str(out), "--no-progress", "--resume"]
        when, hold = {}, Path(f"{log}.hold")
        for stop, least, status in ((signal.SIGINT, 2, 130), (signal.SIGKILL, 6, -9)):
            hold.write_text(str(log.read_text().count("begin") + least - len(whole(out))))
            program = subprocess.Popen([sys.executable, "-c", code, *grid], stderr=subprocess.PIPE, text=True)
            with program:
                while len(whole(out)) < least and program.poll() is None:
                    time.sleep(0.02)
                program.send_signal(stop)
                errors = program.communicate()[1]
            assert program.returncode == status, errors
            if stop == signal.SIGINT:
                wait_until_gone(log)
                assert errors == f"lazyrich: stopped: {len(whole(out))} of 12 runs are complete; --resume continues the others\n"
            assert all(path.stat().st_mtime_ns == before for path, before in when.items())
            when = {path: path.stat().st_mtime_ns for path in whole(out)}
        hold.unlink()
        monkeypatch.setitem(EXPERIMENTS, "small", LOGGED)
        assert main(["sweep", "small", *grid]) == 0  # while what was killed may still be ending
        wait_until_gone(log)  # an agent of Ray may then wait a minute for its server
        assert all(path.stat().st_mtime_ns == before for path, before in when.items())
        assert len(whole(out)) == 12
        assert "Table and numbers:" in capsys.readouterr().out
        taken_up = [len(processes) for processes in trained(log).values()]
        assert len(taken_up) == 12
        assert 12 <= sum(taken_up) <= 12 + 2 * (os.cpu_count() or 1)  # again only what was under way when it was stopped
        assert numbers(out / "quick/small") == without_a_sweep
