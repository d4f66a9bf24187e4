"""Progress in a log file is some lines; on a terminal it is a bar; neither where it is off."""

import io
import sys

import pytest

from lazyrich._support.progress import progress_bar


def shown(monkeypatch, steps, *, terminal=False, show=True, **options):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(show, text="reading\x1b[31m", unit=" batches", **options) as bar:
        for k in range(steps):
            bar.note(f"D_LR {k}")
            bar.update()
    return stream.getvalue()


def test_a_line_for_every_ten_per_cent(monkeypatch):
    lines = shown(monkeypatch, 600, total=600).splitlines()
    assert len(lines) == 10
    assert lines[0] == "reading\\x1b[31m: 60 of 600 (10%) batches, D_LR 59"
    assert lines[-1] == "reading\\x1b[31m: 600 of 600 (100%) batches, D_LR 599"


@pytest.mark.parametrize(
    ("steps", "options", "counts"),
    [
        (3, {"total": 3}, ["1 of 3", "2 of 3", "3 of 3"]),
        (5, {"total": 10, "done": 5}, ["6 of 10", "7 of 10", "8 of 10", "9 of 10", "10 of 10"]),
        (150, {"total": None}, ["10", "100"]),
        (0, {"total": 0}, []),
    ],
)
def test_counts(monkeypatch, steps, options, counts):
    lines = shown(monkeypatch, steps, **options).splitlines()
    assert [line.partition(": ")[2].partition(" (")[0].partition(" batches")[0] for line in lines] == counts


def test_a_bar_on_a_terminal_erases_itself(monkeypatch):
    said = shown(monkeypatch, 3, total=3, terminal=True)
    assert "reading" in said
    assert said.count("\n") == 0


def test_silence(monkeypatch):
    assert shown(monkeypatch, 600, total=600, show=False) == ""
