"""Sessions on other versions than the locked ones; CONTRIBUTING.md has a table of what was run. ``pipx run nox -l`` lists them.

nox -s oldest newest package        # two ends of the declared versions, and the wheel in an empty environment
nox -s security                     # bandit on the source, pip-audit on the locked versions
"""

from __future__ import annotations

import re
from pathlib import Path

import nox

nox.options.sessions = ["oldest", "newest", "package"]
nox.options.reuse_existing_virtualenvs = True
EXTRAS = ("metrics", "plot", "report", "cli", "experiments", "lightning", "transformers")  # without Ray, the sweep runs in turn
TESTS = ("pytest", "hypothesis", "scipy", "tensorboard")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def declared(*extras: str) -> list[str]:
    """The requirements of the core and of some extras, as pyproject.toml states them."""
    text = Path("pyproject.toml").read_text(encoding="utf-8")
    lists = [re.search(rf"^{name} = \[(.*)\]$", text, re.MULTILINE) for name in ("dependencies", *extras)]
    return [item for found in lists if found for item in re.findall(r'"([^"]+)"', found[1]) if not item.startswith("lazyrich")]


def run_tests(session: nox.Session) -> None:
    session.install("--no-deps", ".")
    chosen = session.posargs or ["tests", "src/lazyrich/conformance"]
    session.run("python", "-m", "pytest", "-q", "-W", "default", *chosen)  # a warning of another version is no failure


@nox.session(python="3.10")
def oldest(session: nox.Session) -> None:
    """Every declared lower bound, exactly."""
    session.install(*(requirement.replace(">=", "==") for requirement in declared(*EXTRAS)), *TESTS)
    run_tests(session)


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """The newest that the package index has."""
    session.install("--upgrade", *declared(*EXTRAS), *TESTS)
    run_tests(session)


@nox.session(python=PYTHONS)
def package(session: nox.Session) -> None:
    """Wheel and source archive, each in an empty environment: the entry point starts, the suite that ships runs."""
    session.install("build")
    out = Path(session.create_tmp())
    session.run("python", "-m", "build", "--outdir", str(out))
    for pattern in ("*.whl", "*.tar.gz"):
        built = max(out.glob(pattern), key=lambda path: path.stat().st_mtime)
        session.install("--force-reinstall", "--no-deps", str(built))
        session.install(f"{built}[cli,conformance]")
        with session.chdir(out):  # not where the source could be imported from
            session.run("lazyrich", "--help", silent=True)
            session.run("python", "-m", "lazyrich.conformance", "-q")


@nox.session
def security(session: nox.Session) -> None:
    """bandit on the source (its tests of the suite aside, which assert), pip-audit on the locked versions."""
    session.install("bandit", "pip-audit")
    session.run("bandit", "-q", "-r", "src", "-x", "src/lazyrich/conformance", "--skip", "B403")
    session.run("pip-audit", "--no-deps", "--disable-pip", "-r", "requirements/dev.txt")
