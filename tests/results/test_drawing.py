"""What all figures share: a file is written completely or not at all, and a name is drawn as text."""

import errno

import pytest
from matplotlib.cbook import is_math_text
from PIL import Image

from lazyrich._support import files
from lazyrich.results.drawing import as_text, new_figure, save_figure


def test_size_format_and_resolution(tmp_path):
    figure = new_figure(3, 2)
    save_figure(figure, tmp_path / "new folder/no-ending", dpi=50)
    save_figure(figure, str(tmp_path / "f.PNG"))
    for path, size in ((tmp_path / "new folder/no-ending", (150, 100)), (tmp_path / "f.PNG", (450, 300))):
        with Image.open(path) as image:
            assert (image.format, image.size) == ("PNG", size)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "f.png").write_text("old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*f\.png: No space left"):
        save_figure(new_figure(3, 2), tmp_path / "f.png")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("f.png", "old")]


def test_unknown_format(tmp_path):
    with pytest.raises(ValueError, match="Format 'xyz' is not supported"):
        save_figure(new_figure(3, 2), tmp_path / "f.xyz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["$x$", "$", r"$\frac{$", "a$b$c$d$", r"\$x$", "plain"])
def test_a_name_is_text(name):
    escaped = as_text(name)
    assert not is_math_text(escaped)
    assert escaped.replace(r"\$", "$") == name  # what matplotlib draws of text without formulas
