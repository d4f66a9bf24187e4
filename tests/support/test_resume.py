"""A folder that is free, and results that belong to the work that continues them."""

import pytest

from lazyrich import DataError
from lazyrich._support.resume import check_free, check_same


def test_free(tmp_path):
    check_free(tmp_path, occupied=False, resume=False, content="runs")
    check_free(tmp_path, occupied=True, resume=True, content="runs")
    with pytest.raises(DataError, match="holds runs already: pass resume=True to continue, or another out="):
        check_free(tmp_path, occupied=True, resume=False, content="runs")


def test_same(tmp_path):
    check_same(tmp_path, {"a": [1, 2], "b": None}, {"a": (1, 2)}, "a run with another setup")
    with pytest.raises(DataError, match=r"holds a run with another setup: a, c differ \(a is 1 there and 2 here\); pass another"):
        check_same(tmp_path, {"a": 1, "b": 0}, {"a": 2, "b": 0, "c": 3}, "a run with another setup")
