"""Tests on other versions than the locked ones (last results: results/versions.md). ``pipx run nox -l`` lists the sessions.

nox -s oldest newest package        # the lowest and highest versions, and the wheel in an empty environment
nox -s security                     # bandit on the source, pip-audit on the locked versions
"""

from __future__ import annotations

import re
from pathlib import Path

import nox

nox.options.sessions = ["oldest", "newest", "package"]
nox.options.reuse_existing_virtualenvs = True
EXTRAS = ("metrics", "plot", "report", "cli", "experiments", "lightning", "transformers")  # a sweep needs no Ray
TESTS = ("pytest", "hypothesis", "scipy", "tensorboard")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def declared(*extras: str) -> list[str]:
    """Return the requirements of the core and of some extras, as in pyproject.toml."""
    text = Path("pyproject.toml").read_text(encoding="utf-8")
    lists = [re.search(rf"^{name} = \[(.*)\]$", text, re.MULTILINE) for name in ("dependencies", *extras)]
    return [item for match in lists if match for item in re.findall(r'"([^"]+)"', match[1]) if not item.startswith("lazyrich")]


def run_tests(session: nox.Session) -> None:
    session.install("--no-deps", ".")
    tests = session.posargs or ["tests", "src/lazyrich/conformance"]
    session.run("python", "-m", "pytest", "-q", "-W", "default", *tests)  # a warning of another version is not a failure


@nox.session(python="3.10")
def oldest(session: nox.Session) -> None:
    """Every declared lower bound, exactly."""
    session.install(*(requirement.replace(">=", "==") for requirement in declared(*EXTRAS)), *TESTS)
    run_tests(session)


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """The newest versions on the package index."""
    session.install("--upgrade", *declared(*EXTRAS), *TESTS)
    run_tests(session)


@nox.session(python=PYTHONS)
def package(session: nox.Session) -> None:
    """Wheel and source archive, each in an empty environment: the entry point starts, the conformance suite passes."""
    session.install("build")
    out = Path(session.create_tmp())
    session.run("python", "-m", "build", "--outdir", str(out))
    for pattern in ("*.whl", "*.tar.gz"):
        built = max(out.glob(pattern), key=lambda path: path.stat().st_mtime)
        session.install("--force-reinstall", "--no-deps", str(built))
        session.install(f"{built}[cli,conformance]")
        with session.chdir(out):  # a folder from which the source cannot be imported
            session.run("lazyrich", "--help", silent=True)
            session.run("python", "-m", "lazyrich.conformance", "-q")


@nox.session
def security(session: nox.Session) -> None:
    """bandit on the source (without the conformance suite, which asserts), pip-audit on the locked versions."""
    session.install("bandit", "pip-audit")
    session.run("bandit", "-q", "-r", "src", "-x", "src/lazyrich/conformance", "--skip", "B403")
    session.run("pip-audit", "--no-deps", "--disable-pip", "-r", "requirements/dev.txt")
