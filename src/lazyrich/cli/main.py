"""The entry point: it parses the command line, calls one command, and turns errors into a sentence and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from .._support.extras import needs
from .._support.text import plain
from ..errors import HeadError
from .words import in_options

DESCRIPTION = "Measure whether a neural network trains in the rich or the lazy regime.\n`lazyrich --version` prints the version."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after ``lazyrich``; by default those of this process. Without any, help is printed.

    Returns:
        The exit status: 0, 1 after an error, 2 for arguments that cannot be parsed, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if arguments == ["--version"]:
        print(f"lazyrich {version('lazyrich')}")
        return 0
    commands: dict[str, Callable[..., None]] = {}
    try:
        tyro = needs("tyro", "cli")
        commands = _commands()
        tyro.extras.subcommand_cli_from_dict(commands, prog="lazyrich", description=DESCRIPTION, args=arguments)
    except SystemExit as stop:  # how tyro ends after --help or arguments that it cannot parse
        return int(stop.code or 0)
    except (HeadError, ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"lazyrich: {_sentence(error, commands.get(arguments[0]))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        reason = _sentence(stop, commands.get(arguments[0]))
        print(f"lazyrich: stopped{': ' * bool(reason)}{reason}", file=sys.stderr)
        return 130  # 128 + SIGINT, as shells report it
    return 0


def _commands() -> dict[str, Callable[..., None]]:
    """Name -> command, in the order of the help. They need tyro, so they are imported when it is known to be installed."""
    from .cost import cost
    from .demo import demo
    from .experiments import experiments
    from .measure import measure
    from .report import report
    from .run import run
    from .sweep import sweep
    from .trace import trace

    commands = (demo, measure, trace, cost, report, experiments, run, sweep)
    return {command.__name__: command for command in commands}


def _sentence(error: BaseException, command: Callable[..., None] | None) -> str:
    """The message of an error, safe to print, in the words of the command line."""
    message = plain(str(error), keep="\n\t")
    return message if command is None else in_options(message, command)
