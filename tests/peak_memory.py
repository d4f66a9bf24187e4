"""The peak memory of a program, in a process of its own.

``resource.getrusage`` will not do: on Linux its peak begins with that of the process that started the program.
"""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

STATUS = Path("/proc/self/status")
PEAK = f"""
def peak():  # in MiB
    status = dict(line.split(":", 1) for line in open("{STATUS}"))
    return int(status["VmHWM"].split()[0]) / 1024
"""

reads_peak_memory = pytest.mark.skipif(not STATUS.exists(), reason="peak memory is read in /proc")


def printed(program: str, *arguments: object) -> float:
    """The number that a program prints, which may call ``peak()``."""
    code = PEAK + textwrap.dedent(program)
    run = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return float(run.stdout)
