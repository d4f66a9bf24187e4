import subprocess
import sys

import pytest

HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
"""


class TestMissingExtras:
    """Run without the optional packages, in a process where they cannot be imported."""

    def python(self, hidden, code):
        return subprocess.run(
            [sys.executable, "-c", HIDE.format(hidden=hidden) + code], capture_output=True, text=True, check=False
        )

    def test_measuring_imports_torch_and_numpy_alone(self):
        optional = ["matplotlib", "tyro", "tqdm", "safetensors", "sklearn", "scipy", "transformers", "torchmetrics"]
        code = (
            "import torch, lazyrich\ntorch.manual_seed(0)\n"
            "print(lazyrich.measure(torch.nn.Linear(4, 2), torch.randn(64, 4)).num_samples)"
        )
        done = self.python(optional, code)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "64\n"

    @pytest.mark.parametrize(
        ("hidden", "code", "extra"),
        [
            ("torchmetrics", "import lazyrich; lazyrich.LowRankMeasure", "metrics"),
            ("tyro", "from lazyrich.cli.main import main; raise SystemExit(main(['demo']))", "cli"),
            ("matplotlib", "import lazyrich.results.figures as p; p.plot_richness({'a': None})", "plot"),
            ("pandas", "import lazyrich; lazyrich.Series([]).to_frame()", "pandas"),
            ("plotly", "from lazyrich.report import Found, write_report; write_report(Found('a', ()))", "report"),
            ("jinja2", "from lazyrich.report import Found, write_report; write_report(Found('a', ()))", "report"),
            (
                "lightning",
                "from lazyrich.cli.main import main; raise SystemExit(main(['run', 'grokking']))",
                "experiments",
            ),
            (
                "tqdm",  # for the bar on a terminal
                "import sys, torch, lazyrich; sys.stderr.isatty = lambda: True\n"
                "lazyrich.measure(torch.nn.Linear(4, 2), torch.randn(64, 4), progress=True)",
                "cli",
            ),
            (
                "h5py",
                "import pathlib, tempfile; path = pathlib.Path(tempfile.mkdtemp()) / 'f.h5'; path.touch()\n"
                "from lazyrich.cli.array_files import read_array; read_array(str(path), '--features')",
                "hdf5",
            ),
        ],
    )
    def test_the_error_names_the_extra(self, hidden, code, extra):
        done = self.python([hidden], code)
        assert done.returncode == 1
        assert f'this needs {hidden}, which is not installed: pip install "lazyrich[{extra}]"' in done.stderr
