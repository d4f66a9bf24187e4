"""``python -m lazyrich.conformance``: the suite on the implementation that ``--implementation`` names."""

import os
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    folder = str(Path(__file__).parent)
    # neither this library's test settings nor those of the folder it is called from
    raise SystemExit(pytest.main(["-c", os.devnull, "--rootdir", folder, "-p", "no:cacheprovider", folder, *sys.argv[1:]]))
