"""The code in the pages runs as printed and gives the printed output, and the links exist."""

import copy
import re
import runpy
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from pages import assert_same_text, python_blocks, run
from torch import nn

from lazyrich.results import catalogue

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]


def name(page):
    return page.relative_to(ROOT).as_posix()


def small_things():
    """The names that the blocks of a page may use: a network and its start, data, and batches of features, outputs, labels."""
    torch.manual_seed(0)
    layers = {
        "layer1": nn.Linear(6, 20), "relu1": nn.ReLU(),
        "layer2": nn.Linear(20, 20), "relu2": nn.ReLU(),
        "layer3": nn.Linear(20, 20), "relu3": nn.ReLU(),
        "fc": nn.Linear(20, 3),
    }  # fmt: skip
    model = nn.Sequential(OrderedDict(layers))
    data = torch.utils.data.TensorDataset(torch.randn(200, 6), torch.randint(3, (200,)))
    loader = torch.utils.data.DataLoader(data, batch_size=50)
    with torch.no_grad():
        batches = [(model[:-1](x), model(x), y) for x, y in loader]
    return {"model": model, "untrained": copy.deepcopy(model), "loader": loader, "batches": batches}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::FutureWarning:lightning")
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # when torch_geometric is imported
@pytest.mark.parametrize("page", [page for page in PAGES if any(not block.built for block in python_blocks(page))], ids=name)
def test_the_blocks_run_and_print_the_text_below_them(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(catalogue, "CATALOGUE", dict(catalogue.CATALOGUE))  # a page may add a measure
    before = set(sys.modules)
    run(page, small_things())
    plt.close("all")
    for imported in set(sys.modules) - before:  # modules that the page itself wrote
        if (tmp_path / f"{imported}.py").is_file():
            del sys.modules[imported]
    for block in python_blocks(page):
        for written in [] if block.built else re.findall(r'"([\w/-]+\.(?:png|json|html))"', block.code):
            assert list(tmp_path.rglob(written)), written


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_of_python_runs_somewhere(page):
    """In this test, or in the build of the documentation, which fails if a block fails."""
    built = [block for block in python_blocks(page) if block.built]
    assert not built or page.is_relative_to(ROOT / "docs")
    assert "- markdown-exec" in (ROOT / "mkdocs.yml").read_text()


@pytest.mark.parametrize(
    "fence", ["```py", "~~~python", "    ```python", "```{.python}", "> ```python", "- ```python", "```pycon"]
)
def test_a_block_that_nothing_would_run_is_an_error(tmp_path, fence):
    page = tmp_path / "page.md"
    page.write_text(f"```python\n1\n```\n\n{fence}\n1 / 0\n```\n")
    with pytest.raises(ValueError, match="line 5: nothing runs this block"):
        python_blocks(page)


@pytest.mark.parametrize(
    "text",
    [
        "```python\n1 / 0\n```\n",  # an error that the page does not show
        "```python\nprint(0.5)\n```\n\n```text\n0.6\n```\n",
        "```python\nprint('a b')\n```\n\n```text\na c\n```\n",
        "```python\n1 / 1\n```\n\n```text\nZeroDivisionError: division by zero\n```\n",  # shows an error that is not raised
        '```python\ndef f():\n    """\n    >>> f()\n    2\n    """\n    return 1\n```\n',
    ],
)
def test_a_page_with_wrong_output_fails(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises((AssertionError, ZeroDivisionError)):
        run(page, {})


def test_the_gallery_quotes_the_tables():
    """Every decimal in a section of the gallery is in the table of the run that the section names."""
    checked = 0
    for section in (ROOT / "docs/concepts/gallery.md").read_text().split("\n## "):
        run_name = re.search("`lazyrich run ([a-z-]+)`", section)
        if run_name:
            quoted = re.findall(r"\d+\.\d+", section)
            table = (ROOT / "results/quick" / run_name[1] / "table.txt").read_text()
            assert set(quoted) <= set(re.findall(r"\d+\.\d+", table)), section
            checked += len(quoted)
    assert checked > 20


def test_two_processes_print_the_table_of_one(capsys):
    """The example under torchrun, on the CPU."""
    example = ROOT / "examples/distributed.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = subprocess.run([*launcher, example], capture_output=True, text=True)
    assert both.returncode == 0, both.stderr
    runpy.run_path(str(example))
    one = capsys.readouterr().out
    assert "samples                           2,001" in one
    assert "layer  features" in one
    assert_same_text(both.stdout, one)  # the retained rows are nearly the same


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
