"""The library's messages in the words of the command line: the arguments that they name become options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

FORMS = (  # how a message names an argument, and what it says in its place, where {} is the option
    (r"(?<![^\s(])NAME=True\b", r"{}"),
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
    for name, parameter in inspect.signature(command).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            option = "--" + name.replace("_", "-")
            for form, words in FORMS:
                message = re.sub(form.replace("NAME", name), words.replace("{}", option), message)
    return message
