"""The entry point: it parses the command line, calls one command, and turns errors into a sentence and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from .._support.extras import needs
from .._support.text import did_you_mean
from .failures import UsageError, sentence
from .words import required_options

DESCRIPTION = """Measure whether a neural network trains in the rich or the lazy regime.

$ lazyrich demo
$ lazyrich measure models:build --data data:loader --checkpoint last.pt
$ lazyrich measure --features f.npy --outputs o.npy --targets y.npy
$ lazyrich compare models:build early.pt late.pt --data data:loader
$ lazyrich trace models:build checkpoints/ --data data:loader --out trace
$ lazyrich report trace
$ lazyrich measure --help     the options of a command
$ lazyrich --version"""

EITHER = {"measure": ["{MODEL --data DATA | --features FILE --outputs FILE}"]}  # what its usage shows as required


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after ``lazyrich``; by default those of this process. Without any, help is printed.

    Returns:
        The exit status: 0, 1 after an error, 2 for arguments that cannot be parsed, 130 after Ctrl-C.
    """
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name == "--version":
        print(f"lazyrich {version('lazyrich')}")
        return 0
    if os.environ.get("NO_COLOR"):
        os.environ["PYTHON_TYRO_ANSI_CODES"] = "False"
    command = None
    try:
        tyro = needs("tyro", "cli")
        commands = _commands()
        if name.startswith("-"):
            tyro.extras.subcommand_cli_from_dict(commands, prog="lazyrich", description=DESCRIPTION, args=[name, *arguments])
        elif (command := commands.get(name)) is None:
            return _failed(f"there is no command {name!r}{did_you_mean(name, commands)} There are: {', '.join(commands)}", 2)
        else:
            helps = {"-h", "--help"} & {*arguments}  # tyro's usage of a command with many options does not list the required ones
            tyro.cli(
                command,
                prog=" ".join(["lazyrich", name, *(EITHER.get(name, required_options(command)) if helps else [])]),
                args=arguments,
            )
    except SystemExit as stop:  # how tyro ends after --help or arguments that it cannot parse
        return int(stop.code or 0)
    except UsageError as error:
        return _failed(str(error), 2)
    except BrokenPipeError:  # `lazyrich experiments | head`: nobody reads the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as stop:
        reason = sentence(stop, command)
        return _failed(f"stopped{f': {reason}' if reason else ''}", 130)  # 128 + SIGINT, as shells report it
    except Exception as error:
        reason = sentence(error, command)
        if reason is None:
            raise  # a bug, for which the traceback is needed
        return _failed(reason, 1)
    return 0


def _failed(reason: str, status: int) -> int:
    print(f"lazyrich: {reason}", file=sys.stderr)
    return status


def _commands() -> dict[str, Callable[..., None]]:
    """Name -> command, in the order of the help. They need tyro, so they are imported when it is known to be installed."""
    from .compare import compare
    from .cost import cost
    from .demo import demo
    from .experiments import experiments
    from .measure import measure
    from .report import report
    from .run import run
    from .sweep import sweep
    from .trace import trace

    commands = (demo, measure, compare, trace, cost, report, experiments, run, sweep)
    return {command.__name__: command for command in commands}
