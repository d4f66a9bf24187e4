"""The entry point: it starts, prints help and the version, and ends with the documented exit statuses."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

import lazyrich
from lazyrich.cli import main, options
from lazyrich.experiments.experiment import Preset
from lazyrich.model.layers import Pooling

COMMANDS = ("demo", "measure", "trace", "cost", "report", "experiments", "run", "sweep")


def test_the_installed_program_starts():
    """Peers' mistake 12: an entry point that does not start."""
    done = subprocess.run([Path(sys.executable).with_name("lazyrich"), "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"lazyrich {lazyrich.__version__}\n", "")


def test_without_arguments_it_prints_help(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == shown
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr()
    assert f"usage: lazyrich {command}" in shown.out
    assert "None" not in shown.out
    assert shown.err == ""


def test_help_imports_no_torch():
    """It alone takes a second, and ``lazyrich`` without a command needs none of it."""
    code = (
        "import sys\nfrom lazyrich.cli import main\nimport lazyrich\n"
        "assert all(main(line) == 0 for line in eval(sys.argv[1]))\nlazyrich.__version__, dir(lazyrich)\n"
        "print(sorted({'torch', 'numpy', 'ray', 'sklearn'} & set(sys.modules)))"
    )
    lines = [["--version"], [], *([command, "--help"] for command in COMMANDS)]
    done = subprocess.run([sys.executable, "-c", code, repr(lines)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize("setting", [{}, {"NO_COLOR": "1"}])
def test_no_color(setting):
    import pty

    ours, theirs = pty.openpty()
    variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm", **setting}
    command = [sys.executable, "-m", "lazyrich.cli", "experiments", "--help"]
    done = subprocess.run(command, stdout=theirs, env=variables)
    os.close(theirs)
    assert done.returncode == 0
    assert (b"\x1b[" in os.read(ours, 100_000)) == (not setting)
    os.close(ours)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell, capsys):
    assert main(["--tyro-print-completion", shell]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in (*COMMANDS, "--class-balanced"))


def test_required_options_are_in_the_usage(capsys):
    assert main(["trace", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: lazyrich trace --data DATA --out OUT ")


def test_the_choices_are_those_of_the_library():
    assert get_args(options.PoolingName) == get_args(Pooling)
    assert get_args(options.PresetName) == get_args(Preset)


def test_ctrl_c(project, monkeypatch, capsys):
    monkeypatch.setattr("lazyrich.measurement.measure.measure", interrupted)
    assert main(["measure", "userproject:build_model", "--data", "userproject:build_loader"]) == 130
    assert capsys.readouterr().err == "lazyrich: stopped\n"


def test_a_failed_run_does_not_lock_its_folder(project):
    import userproject

    (project / "weights").mkdir()
    torch.save(userproject.build_model().state_dict(), project / "weights/step-1.pt")
    common = ["weights", "--data", "userproject:build_loader", "--out", "taken", "--no-progress"]
    assert main(["trace", "userproject:build_two_heads", *common]) == 1
    assert main(["trace", "userproject:build_two_heads", *common, "--head", "left"]) == 1  # the checkpoint does not fit
    assert main(["trace", "userproject:build_model", *common]) == 0
    assert main(["trace", "userproject:build_model", *common]) == 1
    assert main(["trace", "userproject:build_model", *common, "--resume"]) == 0


def interrupted(*arguments, **options):
    raise KeyboardInterrupt
