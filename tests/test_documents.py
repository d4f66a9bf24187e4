"""The code in the README runs as printed."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")
def test_the_ten_lines_of_the_readme(tmp_path, monkeypatch, capsys):
    block = re.search(r"## Ten lines\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(compile(block[1], "README.md", "exec"), namespace)  # noqa: S102
    assert str(namespace["r"]) in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"r.json", "r.png"}


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
