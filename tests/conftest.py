"""Hypothesis draws the same examples in every run; ``pytest --hypothesis-profile=explore`` draws new ones.

mutmut runs the tests more than once in one process, where every run has other instances of the classes that hold them. That
is what one of hypothesis's health checks forbids, for the sake of its database, which is not used here.
"""

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")  # no longer: while it is open, an event loop runs
def browser():
    """Chromium, that on PATH or the one that the variable CHROMIUM names."""
    executable = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip("no Chromium on PATH, and CHROMIUM names none")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = started.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()
