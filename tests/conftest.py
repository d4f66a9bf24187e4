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

PATIENCE = 600_000  # milliseconds
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
        browser = started.chromium.launch(executable_path=executable, args=arguments, timeout=PATIENCE)
        new_context = browser.new_context

        def patient(**options):
            """A context whose waits end with what they wait for, and not with a clock, also on a busy machine."""
            context = new_context(**options)
            context.set_default_timeout(PATIENCE)
            return context

        browser.new_context = patient
        yield browser
        browser.close()
