"""The options of a command, and the library's messages in their words: the arguments that they name become options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

FORMS = (  # how a message names an argument, and what it says in its place, where {} is the option and {name} its name
    (r"(?<![^\s(])NAME=True\b", r"{}"),
    (r"(?<![^\s(])NAME=False\b", r"--no-{name}"),
    (r"(?<![^\s(])NAME=None\b", r"no {}"),
    (r"""(?<![^\s(])NAME=(["'])(.*?)\1""", r"{} \2"),
    (r"(?<![^\s(])NAME=\[(.*?)\]", r"{} \1"),
    (r"(?<![^\s(])NAME=(?=[\s.,;:)]|$)", r"{}"),
    (r"(?<![^\s(])NAME=", r"{} "),
    (r"^NAME(?=:| must | is | are )", r"{}"),
)


def in_options(message: str, command: Callable[..., object]) -> str:
    """The message with the options of a command in place of the Python arguments of the same names.

    >>> def run(name, *, out=None, resume=False): ...
    >>> print(in_options("out=results holds runs: pass resume=True to continue them, or another out=", run))
    --out results holds runs: pass --resume to continue them, or another --out
    """
    for name, _ in _options(command):
        for form, words in FORMS:
            said = words.replace("{}", _option(name)).replace("{name}", _option(name)[2:])
            message = re.sub(form.replace("NAME", name), said, message)
    return message


def required_options(command: Callable[..., object]) -> list[str]:
    """The options without a default, as a usage line shows them.

    >>> def trace(model, *, data, out, resume=False): ...
    >>> required_options(trace)
    ['--data DATA', '--out OUT']
    """
    return [f"{_option(name)} {name.upper()}" for name, p in _options(command) if p.default is p.empty]


def _options(command: Callable[..., object]) -> list[tuple[str, inspect.Parameter]]:
    return [(name, p) for name, p in inspect.signature(command).parameters.items() if p.kind is p.KEYWORD_ONLY]


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
