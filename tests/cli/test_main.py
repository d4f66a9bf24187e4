"""The entry point: it starts, prints help and the version, and ends with the documented exit statuses."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

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


def test_the_choices_are_those_of_the_library():
    assert get_args(options.PoolingName) == get_args(Pooling)
    assert get_args(options.PresetName) == get_args(Preset)


def test_ctrl_c(project, monkeypatch, capsys):
    monkeypatch.setattr("lazyrich.measurement.measure.measure", interrupted)
    assert main(["measure", "userproject:build_model", "--data", "userproject:build_loader"]) == 130
    assert capsys.readouterr().err == "lazyrich: stopped\n"


def interrupted(*arguments, **options):
    raise KeyboardInterrupt
