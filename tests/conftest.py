"""Hypothesis generates the same examples in every run; ``pytest --hypothesis-profile=explore`` generates new ones.

mutmut runs the tests several times in one process, each time with new instances of the test classes. One of hypothesis's health
checks forbids this because of its database, which is not used here, so that check is off.
"""

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")  # not for the session: an event loop runs while it is open
def browser():
    """Chromium: the one that the variable CHROMIUM names, or the first on PATH."""
    executable = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip("no Chromium on PATH, and CHROMIUM names none")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = started.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()
