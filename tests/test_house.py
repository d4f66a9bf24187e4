"""Rules of the house that no linter checks: every module can be imported first, and what is private stays in its room."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import lazyrich

SRC = Path(__file__).parents[1] / "src/lazyrich"
FILES = sorted(path for path in SRC.rglob("*.py") if "conformance" not in path.parts)

ALONE = """
import sys, types
import lightning.fabric, torch, torchmetrics, transformers, tyro  # once; what is below them does not import lazyrich
sys.dont_write_bytecode, sys.pycache_prefix = False, sys.argv[2]  # each file of this package is compiled once
for line in sys.stdin:
    for name in [name for name in sys.modules if name.split(".")[0] == "lazyrich"]:
        del sys.modules[name]
    parent = types.ModuleType("lazyrich")
    parent.__path__ = [sys.argv[1]]  # the package without its __init__, whose order of imports may hide a cycle
    sys.modules["lazyrich"] = parent
    try:
        __import__(line.strip())
    except BaseException as error:
        print(line.strip(), repr(error))
"""


def module(path: Path) -> str:
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room(path: Path) -> str:
    """The folder directly below the package, or the file itself."""
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imported(path: Path):
    """Module and name of everything that a file imports from this package, wherever in the file it does so."""
    package = module(path).split(".") if path.name == "__init__.py" else module(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            for name in node.names:
                yield ".".join([*base, *(node.module or "").split(".")]).rstrip("."), name.name


def test_every_module_can_be_imported_first(tmp_path):
    names = "".join(f"{module(path)}\n" for path in FILES if path.name not in ("__main__.py",) and path != SRC / "__init__.py")
    command = [sys.executable, "-W", "ignore", "-c", ALONE, str(SRC), str(tmp_path)]
    done = subprocess.run(command, input=names, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", done.stderr


@pytest.mark.parametrize("path", FILES, ids=module)
def test_private_names_stay_in_their_room(path):
    for source, name in imported(path):
        other = [*source.split("."), name][1]
        if other != room(path):
            assert not name.startswith("_") or name.startswith("__"), f"{name} of {source}"


def test_private_files():
    """No file of a room begins with an underscore: the room decides what is public."""
    assert [module(path) for path in FILES if path.name.startswith("_") and not path.name.startswith("__")] == []


def test_dir_lists_each_public_name_once():
    names = dir(lazyrich)
    assert len(names) == len(set(names))
    assert set(lazyrich.__all__) < set(names)


def test_public_names_are_those_that_type_checkers_see():
    """They are imported when they are first used; type checkers and editors read the imports under TYPE_CHECKING."""
    tree = ast.parse((SRC / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert sorted(seen) == sorted(lazyrich.__all__)
    for name, source in seen.items():
        of = importlib.import_module("lazyrich" if source is None else f"lazyrich.{source}")
        assert getattr(lazyrich, name) is getattr(of, name), name
    with pytest.raises(AttributeError, match="no attribute 'mesure'"):
        _ = lazyrich.mesure
