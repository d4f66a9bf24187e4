"""The command line: a thin door that parses, calls and prints."""

from __future__ import annotations

import sys

from .._support.extras import needs
from .._support.text import plain
from ..errors import CheckpointError, DataError, HeadError, MissingExtraError


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``lazyrich``; returns the exit status."""
    try:
        tyro = needs("tyro", "cli")
        from .commands import cost, demo, experiments, measure, report, run, sweep, trace

        tyro.extras.subcommand_cli_from_dict(
            {
                "demo": demo,
                "measure": measure,
                "cost": cost,
                "trace": trace,
                "experiments": experiments,
                "run": run,
                "sweep": sweep,
                "report": report,
            },
            prog="lazyrich",
            description="Tells whether a neural network trains in the rich or the lazy regime.",
            args=argv,
        )
    except (DataError, HeadError, CheckpointError, MissingExtraError, TypeError, ValueError, OSError) as error:
        print(f"lazyrich: {plain(str(error), keep=chr(10) + chr(9))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"lazyrich: stopped{': ' * bool(str(stop))}{stop}", file=sys.stderr)
        return 130  # as shells have it
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
