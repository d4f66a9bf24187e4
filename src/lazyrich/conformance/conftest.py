"""The option that names an implementation, and the fixture that looks a function up in it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

DEFAULT = "lazyrich.functional,lazyrich.metrics"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--implementation``."""
    parser.addoption("--implementation", default=DEFAULT, help="modules to test, with commas between", metavar="MODULE")


class Implementation:
    """The functions of one or several modules, by name."""

    def __init__(self, names: str) -> None:
        self.names = names
        self._modules = [importlib.import_module(name) for name in names.split(",")]

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """The function; without it the test is skipped."""
        found = next((getattr(module, name) for module in self._modules if hasattr(module, name)), None)
        return found or pytest.skip(f"{self.names} has no {name}")


@pytest.fixture(scope="session")
def implementation(request: pytest.FixtureRequest) -> Implementation:
    """What is tested."""
    return Implementation(str(request.config.getoption("--implementation", DEFAULT)))


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """The matrices are small: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
