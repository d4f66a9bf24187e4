"""Prints the zoo as a table for the documentation: ``python tests/model/zoo``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from zoo import ENTRIES, as_markdown

print(as_markdown(ENTRIES), end="")
