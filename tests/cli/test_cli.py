import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lazyrich
from lazyrich import CheckpointError
from lazyrich.cli.main import main
from lazyrich.model.checkpoints import load_checkpoint

USER_CODE = """
import torch
from torch import nn

def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

def build_two_heads():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(8, 2), nn.Linear(8, 3)
        def forward(self, x):
            return self.left(x), self.right(x)
    return Two()

def build_loader():
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(200, 8, generator=g), torch.randint(3, (200,), generator=g)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=64)

def build_dropping():
    class Drops(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(x)
    return nn.Sequential(nn.Linear(8, 16), Drops(), nn.Linear(16, 3))

def build_shuffled():
    return torch.utils.data.DataLoader(build_loader().dataset, batch_size=64, shuffle=True, drop_last=True)

def not_a_model():
    return 3

CONSTANT = 3
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "userproject.py").write_text(USER_CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("userproject", None)
    yield tmp_path
    sys.modules.pop("userproject", None)


def run(*arguments):
    """The installed entry point, in a process of its own."""
    executable = Path(sys.executable).with_name("lazyrich")
    return subprocess.run([executable, *arguments], capture_output=True, text=True, cwd=Path.cwd(), check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["measure", "--help"]])
def test_help_starts(arguments):
    """Peers' mistake 12: an entry point that does not start."""
    done = run(*arguments)
    assert done.returncode == 0
    assert "lazyrich" in done.stdout
    assert done.stderr == ""


class TestDemo:
    def test_tells_rich_from_lazy_and_leaves_the_random_state_alone(self, tmp_path, capsys):
        before = torch.get_rng_state()
        assert main(["demo", "--out", str(tmp_path / "out"), "--no-progress"]) == 0
        assert torch.equal(torch.get_rng_state(), before)
        shown = capsys.readouterr()
        assert shown.err == ""
        assert "trained in full" in shown.out
        assert "last layer only" in shown.out
        full = lazyrich.load(tmp_path / "out" / "trained-in-full.json")
        last = lazyrich.load(tmp_path / "out" / "last-layer-only.json")
        assert full.low_rank < 0.5 * last.low_rank
        assert full.low_rank_corrected + 4 * full.low_rank_stderr < last.low_rank_corrected - 4 * last.low_rank_stderr
        assert f"{full.low_rank:.4f}" in shown.out
        assert (tmp_path / "out" / "demo.png").read_bytes().startswith(b"\x89PNG")


class TestMeasure:
    def test_the_same_as_in_python(self, project, capsys):
        common = ["measure", "userproject:build_model", "--data", "userproject:build_loader", "--no-progress", "--nc4"]
        assert main([*common, "--out", "found"]) == 0
        shown = capsys.readouterr()
        import userproject

        expected = lazyrich.measure(userproject.build_model(), userproject.build_loader(), nc4=True)
        assert str(expected) in shown.out
        assert lazyrich.load(project / "found" / "richness.json").to_dict() == expected.to_dict()
        assert (project / "found" / "richness.png").exists()

    @pytest.mark.parametrize(
        ("model", "loader", "named"),
        [
            ("build_dropping", "build_loader", "output to differ is that of 1 (Drops)"),
            ("build_model", "build_shuffled", "sampler"),
        ],
    )
    def test_check_names_what_is_not_deterministic(self, project, capsys, model, loader, named):
        common = ["measure", f"userproject:{model}", "--data", f"userproject:{loader}", "--no-progress"]
        assert main(common) == 0
        assert main([*common, "--check"]) == 1
        assert named in capsys.readouterr().err

    def test_check_changes_no_number(self, project, capsys):
        common = ["measure", "userproject:build_model", "--data", "userproject:build_loader", "--no-progress"]
        assert main(common) == main([*common, "--check"]) == 0
        shown = capsys.readouterr().out
        assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]

    @pytest.mark.parametrize("layers", [["all"], ["0", "2"]])
    def test_layers_start_and_balance(self, project, capsys, layers):
        import userproject

        start = userproject.build_model()
        nn.init.ones_(start[0].weight)
        torch.save(start.state_dict(), project / "start.pt")
        common = ["measure", "userproject:build_model", "--data", "userproject:build_loader", "--no-progress", "--class-balanced"]
        assert main([*common, "--start", "start.pt", "--layers", *layers, "--pooling", "first", "--out", "found"]) == 0
        expected = lazyrich.measure(
            userproject.build_model(),
            userproject.build_loader(),
            layers="all" if layers == ["all"] else layers,
            start=start,
            class_balanced=True,
        )
        assert expected.comparison.initial_alignment is not None
        assert str(expected) in capsys.readouterr().out
        assert lazyrich.load(project / "found" / "richness.json").to_dict() == expected.to_dict()
        assert (project / "found" / "layers.png").exists()

    def test_progress_goes_to_stderr(self, project):
        done = run("measure", "userproject:build_model", "--data", "userproject:build_loader")
        assert done.returncode == 0
        assert "measuring" in done.stderr
        assert "measuring" not in done.stdout

    @pytest.mark.parametrize("kind", ["pt", "safetensors", "nested", "wrapped"])
    def test_checkpoints(self, project, capsys, kind):
        import userproject

        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        state = model.state_dict()
        path = project / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
        if kind == "safetensors":
            save_file(state, path)
        elif kind == "nested":
            torch.save({"epoch": 3, "state_dict": state}, path)
        elif kind == "wrapped":
            torch.save({f"module._orig_mod.{name}": value for name, value in state.items()}, path)
        else:
            torch.save(state, path)
        arguments = ["measure", "userproject:build_model", "--data", "userproject:build_loader", "--no-progress"]
        assert main([*arguments, "--checkpoint", str(path)]) == 0
        assert str(lazyrich.measure(model, userproject.build_loader())) in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            (["userproject", "--data", "userproject:build_loader"], "MODEL must be package.module:function, got 'userproject'"),
            (["nowhere:build", "--data", "userproject:build_loader"], "MODEL: cannot import 'nowhere'"),
            (
                ["userproject:build", "--data", "userproject:build_loader"],
                "has no function 'build'; it has: build_model, build_two_heads",
            ),
            (["userproject:CONSTANT", "--data", "userproject:build_loader"], "has no function 'CONSTANT'"),
            (["userproject:not_a_model", "--data", "userproject:build_loader"], "gave a int, not a torch.nn.Module"),
            (["userproject:build_two_heads", "--data", "userproject:build_loader"], "head='left'.*head='right'"),
            (["userproject:build_model", "--data", "userproject:build_loader", "--head", "9"], "head='9' is not a module"),
            (["userproject:build_model", "--data", "userproject:not_a_model"], "data must be a DataLoader"),
            (["userproject:build_model", "--data", "userproject:build_loader", "--checkpoint", "no.pt"], "no.pt does not exist"),
            (
                ["userproject:build_model", "--data", "userproject:build_loader", "--num-samples", "0"],
                "num_samples must be at least",
            ),
            (
                ["userproject:build_model", "--data", "userproject:build_loader", "--device", "tpu9"],
                "device='tpu9' is not a device",
            ),
        ],
    )
    def test_mistakes_are_named(self, project, capsys, arguments, match):
        assert main(["measure", *arguments, "--no-progress"]) == 1
        shown = capsys.readouterr()
        assert shown.err.startswith("lazyrich: ")
        assert shown.err.count("\n") == 1
        assert re.search(match, shown.err), shown.err
        assert shown.out == ""


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


class TestCheckpointFiles:
    model = nn.Linear(2, 1)

    def refused(self, path, match):
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        with pytest.raises(CheckpointError, match=match):
            load_checkpoint(self.model, path)
        assert all(torch.equal(before[name], value) for name, value in self.model.state_dict().items())

    def test_unsafe_pickles_are_refused_and_never_run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pt")  # a zip file, as torch writes
        self.refused(tmp_path / "bomb.pt", "was refused: it is not a file of weights alone.*Reason: .*system")
        (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb()))
        self.refused(tmp_path / "plain.pt", "was refused")
        assert not (tmp_path / "exploded").exists()

    def test_whole_modules_are_refused(self, tmp_path):
        torch.save(self.model, tmp_path / "module.pt")
        self.refused(tmp_path / "module.pt", "torch.save\\(model.state_dict\\(\\), path\\)")

    def test_damaged_files(self, tmp_path):
        torch.save(self.model.state_dict(), tmp_path / "good.pt")
        whole = (tmp_path / "good.pt").read_bytes()
        (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
        self.refused(tmp_path / "cut.pt", "damaged|refused")
        (tmp_path / "empty.pt").write_bytes(b"")
        self.refused(tmp_path / "empty.pt", "damaged|refused")
        (tmp_path / "text.safetensors").write_text("hello")
        self.refused(tmp_path / "text.safetensors", "not a safetensors file")

    def test_weights_of_another_model(self, tmp_path):
        torch.save(nn.Linear(3, 1).state_dict(), tmp_path / "other.pt")
        self.refused(tmp_path / "other.pt", "(?s)does not fit Linear.*size mismatch")

    def test_no_weights_inside(self, tmp_path):
        torch.save({"epoch": 3, "loss": 0.1}, tmp_path / "log.pt")
        self.refused(tmp_path / "log.pt", r"holds \['epoch', 'loss'\] and no state dict")
        torch.save([1, 2], tmp_path / "list.pt")
        self.refused(tmp_path / "list.pt", "holds a list, not a state dict")


HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
"""


class TestMissingExtras:
    """Run without the optional packages, in a process where they cannot be imported."""

    def python(self, hidden, code):
        return subprocess.run(
            [sys.executable, "-c", HIDE.format(hidden=hidden) + code], capture_output=True, text=True, check=False
        )

    def test_measuring_imports_torch_and_numpy_alone(self):
        optional = ["matplotlib", "tyro", "tqdm", "safetensors", "sklearn", "scipy", "transformers", "torchmetrics"]
        code = (
            "import torch, lazyrich\ntorch.manual_seed(0)\n"
            "print(lazyrich.measure(torch.nn.Linear(4, 2), torch.randn(64, 4)).num_samples)"
        )
        done = self.python(optional, code)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "64\n"

    @pytest.mark.parametrize(
        ("hidden", "code", "extra"),
        [
            ("tyro", "from lazyrich.cli.main import main; raise SystemExit(main(['demo']))", "cli"),
            ("matplotlib", "import lazyrich.results.figures as p; p.plot_richness({'a': None})", "plot"),
            ("plotly", "from lazyrich.report import Found, write_report; write_report(Found('a', ()))", "report"),
            (
                "lightning",
                "from lazyrich.cli.main import main; raise SystemExit(main(['run', 'grokking']))",
                "experiments",
            ),
            ("tqdm", "import torch, lazyrich; lazyrich.measure(torch.nn.Linear(4, 2), torch.randn(64, 4), progress=True)", "cli"),
        ],
    )
    def test_the_error_names_the_extra(self, hidden, code, extra):
        done = self.python([hidden], code)
        assert done.returncode == 1
        assert f'this needs {hidden}, which is not installed: pip install "lazyrich[{extra}]"' in done.stderr


def test_results_are_plain_json(project):
    main(["measure", "userproject:build_model", "--data", "userproject:build_loader", "--no-progress", "--out", "found"])
    values = json.loads((project / "found" / "richness.json").read_text())
    assert values["schema"] == "lazyrich.richness"
    assert values["num_samples"] == 200
