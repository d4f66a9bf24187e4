"""The code in the documents runs as printed, and the examples do what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lazyrich

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def test_the_ten_lines_of_the_readme(tmp_path, monkeypatch, capsys):
    block = re.search(r"## Ten lines\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(compile(block[1], "README.md", "exec"), namespace)  # noqa: S102
    assert str(namespace["r"]) in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"r.json", "r.png"}


def test_the_code_of_the_guide(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3))
    data = torch.utils.data.TensorDataset(torch.randn(200, 6), torch.randint(3, (200,)))
    with torch.no_grad():
        batches = [(model[:2](x), model(x), y) for x, y in torch.utils.data.DataLoader(data, batch_size=50)]
    loader = torch.utils.data.DataLoader(data, batch_size=50)
    namespace = {"model": model, "loader": loader, "lazyrich": lazyrich, "batches": batches, "copy": __import__("copy")}
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/using.md").read_text(), re.DOTALL):
        code = block.replace('"layer3"', '"2"').replace("\n...\n", "\nmodel[0].weight.data += 1\n")
        exec(compile(code, "using.md", "exec"), namespace)  # noqa: S102
    assert "low_rank_measure".replace("_", "") in capsys.readouterr().out.lower()
    assert {p.name for p in tmp_path.iterdir()} == {"layers.png", "run"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::FutureWarning:lightning")
def test_an_experiment_of_ones_own(tmp_path, monkeypatch, capsys):
    block = re.search(r"```python\n(.*?)```", (ROOT / "docs/experiments/index.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(block[1], "experiments/index.md", "exec"), {})  # noqa: S102
    assert "wider is lazier (" in capsys.readouterr().out
    assert (tmp_path / "width/over-time.png").is_file()


def test_two_processes_print_the_table_of_one():
    """The example under torchrun, on the CPU."""
    example = ROOT / "examples/distributed.py"
    options = {"capture_output": True, "text": True, "timeout": 300}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    one = subprocess.run([sys.executable, example], **options).stdout
    both = subprocess.run([*launcher, example], **options)
    assert both.returncode == 0, both.stderr
    assert "samples                           2,001" in one
    assert "layer  features" in one
    assert both.stdout == one


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))], ids=lambda p: p.name)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
