"""The published record agrees with its numbers, its register and its pages; and faults that are planted in it are found."""

import re
import shutil
from pathlib import Path

import pytest

from lazyrich.experiments.check import check, main

ROOT = Path(__file__).parents[2]


def test_the_record_is_right():
    found = check(ROOT / "results", ROOT / "docs" / "experiments")
    assert found.problems == []
    assert found.cells > 700
    assert found.verdicts > 30
    assert found.decimals > 50


@pytest.fixture
def record(tmp_path):
    """The results and the page of one experiment."""
    shutil.copytree(ROOT / "results/quick/label-shuffle", tmp_path / "results/quick/label-shuffle")
    (tmp_path / "docs/experiments").mkdir(parents=True)
    shutil.copy(ROOT / "docs/experiments/label-shuffle.md", tmp_path / "docs/experiments")
    return tmp_path


def change(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def problems(record):
    return check(record / "results", record / "docs/experiments").problems


def test_nothing_is_wrong_with_the_copy(record):
    assert problems(record) == []


def test_a_changed_cell(record):
    table = record / "results/quick/label-shuffle/table.txt"
    cell = re.search(r"0\.\d{3} ± 0\.\d{3}", table.read_text())[0]
    change(table, cell, f"{cell[:4]}{(int(cell[4]) + 1) % 10}{cell[5:]}")
    assert len(problems(record)) == 1
    assert f"results.csv gives {cell}" in problems(record)[0]


def test_a_changed_published_figure(record):
    change(record / "results/quick/label-shuffle/table.txt", "95.0 %", "96.0 %")
    assert "the table has 96.0 %, and results.csv gives 95.0 %" in problems(record)[0]


def test_a_changed_number_of_the_results(record):
    path = record / "results/quick/label-shuffle/results.csv"
    line = next(line for line in path.read_text().splitlines() if ",800,low_rank," in line)
    change(path, line, re.sub(r"[^,]+$", "0.9", line))
    assert any("D_LR: the table has" in problem for problem in problems(record))


@pytest.mark.parametrize(("old", "new"), [("    SHOWN", "NOT SHOWN"), ("(5 of 5 seeds", "(4 of 5 seeds")])
def test_a_changed_verdict(record, old, new):
    change(record / "results/quick/label-shuffle/table.txt", old, new)
    messages = " ".join(problems(record))
    assert "and results.csv gives shown (5)" in messages
    assert "and shown (5 of 5) in the register" in messages


def test_a_claim_that_is_left_out(record):
    table = record / "results/quick/label-shuffle/table.txt"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if "stays low" not in line))
    assert "the table does not list" in problems(record)[0]


def test_a_rule_in_other_words(record):
    change(record / "results/quick/label-shuffle/table.txt", "at most 1.25 times", "at most 1.5 times")
    assert "no claim" in problems(record)[0]


def test_a_changed_decimal_of_a_page(record):
    page = record / "docs/experiments/label-shuffle.md"
    decimal = re.search(r"(?<= )0\.\d\d+", page.read_text())[0]
    change(page, decimal, decimal[:-1] + str((int(decimal[-1]) + 3) % 10))
    assert "is not in the list at the end of the page" in problems(record)[0]


def test_a_decimal_whose_source_is_wrong(record):
    page = record / "docs/experiments/label-shuffle.md"
    change(page, "| low_rank", "| balanced_stderr")
    assert any("is given as" in problem for problem in problems(record))
    change(page, "| balanced_stderr", "| no such measure")
    assert problems(record)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("100.0 ± 0.0 %  27.3", "100.0 ± 0.0 %  26.3", "results.csv does not give 26.3"),
        ("At equal training accuracy", "At equal test accuracy", "the tables at equal fit are"),
        ("training loss  train", "testing loss   train", "testing loss: results.csv does not give"),
    ],
)
def test_a_changed_table_at_equal_fit(record, old, new, message):
    change(record / "results/quick/label-shuffle/table.txt", old, new)
    assert any(message in problem for problem in problems(record))


def test_the_command(record, capsys):
    assert main(str(record / "results")) == 0
    change(record / "results/quick/label-shuffle/table.txt", "0.", "5.")
    assert main(str(record / "results")) == 1
    assert "results.csv gives" in capsys.readouterr().out
