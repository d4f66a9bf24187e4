"""Small networks by kind, each with the right answer or the right error: ``python tests/model/zoo`` prints the table.

Every entry builds a network with data, the same each time, and the rows that a measurement must find. The rows are computed
by hand: in float64, by NumPy, sample by sample, without running a module. ``test_zoo.py`` measures all of them.
"""

from . import (
    changed,
    chosen_rows,
    counting,
    doors,
    escape,
    formats,
    functions,
    inner,
    labels,
    language,
    masks,
    memory,
    modes,
    parameter_heads,
    plain,
    several,
    subclasses,
    unreturned,
    wrapped,
)
from .entries import Answer, Case, Entry, Refusal, Shelf
from .table import as_markdown

SHELVES: list[Shelf] = [
    plain.shelf,
    parameter_heads.shelf,
    subclasses.shelf,
    changed.shelf,
    functions.shelf,
    several.two_heads,
    several.repeated,
    unreturned.shelf,
    labels.shelf,
    language.shelf,
    masks.shelf,
    masks.two_sequences,
    chosen_rows.shelf,
    chosen_rows.forms,
    counting.shelf,
    counting.targets,
    escape.shelf,
    inner.shelf,
    modes.shelf,
    memory.shelf,
    doors.shelf,
    formats.shelf,
    wrapped.shelf,
]
ENTRIES: list[Entry] = [entry for shelf in SHELVES for entry in shelf]

__all__ = ["ENTRIES", "SHELVES", "Answer", "Case", "Entry", "Refusal", "as_markdown"]
