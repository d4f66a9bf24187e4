"""``lazyrich compare`` prints and writes what ``lazyrich.compare`` returns."""

import copy
import json

import pytest
import torch

import lazyrich
from lazyrich.cli import main


@pytest.fixture
def networks(project):
    """The networks of three files."""
    import userproject

    found = {"start": userproject.build_model()}
    for k, name in enumerate(("early", "late")):
        found[name] = copy.deepcopy(found["start"])
        with torch.no_grad():
            found[name][0].weight[4 * k :] *= 0.3
    for name, model in found.items():
        torch.save(model.state_dict(), project / f"{name}.pt")
    return found


def run(*arguments, data="userproject:build_loader"):
    return main(["compare", *arguments, "--data", data, "--no-progress"])


def test_the_same_as_in_python(project, networks, capsys):
    import userproject

    pair = {name: networks[name] for name in ("early", "late")}
    expected = lazyrich.compare(pair, userproject.build_loader(), start=networks["start"])
    arguments = ["userproject:build_model", "early.pt", "late.pt", "--start", "start.pt", "--out", "found"]
    assert run(*arguments) == 0
    assert str(expected) in capsys.readouterr().out
    assert json.loads((project / "found/comparison.json").read_text()) == json.loads(json.dumps(expected.to_dict()))
    assert (project / "found/comparison.png").stat().st_size > 10_000
    (project / "found/comparison.png").unlink()
    assert run(*arguments) == 1
    assert "found holds comparison.json already: pass --overwrite" in capsys.readouterr().err
    assert run(*arguments, "--overwrite", "--class-balanced", "--num-samples", "100") == 0


def test_several_models_and_names(project, networks, capsys):
    (project / "a").mkdir()
    torch.save(networks["late"].state_dict(), project / "a/early.pt")
    assert run("userproject:build_model", "early.pt", "a/early.pt", "userproject:build_model") == 0
    out = capsys.readouterr().out
    assert "a/early.pt and userproject:build_model" in out or "than userproject:build_model" in out
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["early.pt", "a/early.pt", "userproject:build_model"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["userproject:build_model"], 2, "two networks or more, got 1: pass MODEL FILE FILE, or MODEL MODEL"),
        (["userproject:build_model", "early.pt"], 2, "two networks or more, got 1"),
        (
            ["early.pt", "late.pt"],
            2,
            "MODEL must come first, as package.module:function, and then files of weights; got 'early.pt'",
        ),
        (["userproject:build_model", "early.pt", "early.pt"], 2, "early.pt is named twice"),
        (["userproject:build_model", "early.pt", "none.pt"], 1, "none.pt does not exist"),
        (["userproject:build_modle", "early.pt", "late.pt"], 1, "MODEL: userproject has no function 'build_modle'"),
        (["userproject:build_model", "early.pt", "late.pt", "--head", "x"], 1, "--head x is not a module of Sequential"),
        (["userproject:build_model", "early.pt", "late.pt", "--start", "none.pt"], 1, "none.pt does not exist"),
        (["userproject:build_model", "early.pt", "late.pt", "--out", "early.pt"], 1, "--out early.pt cannot be written to"),
    ],
)
def test_a_mistake_is_one_sentence(project, networks, capsys, arguments, status, message):
    assert run(*arguments) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lazyrich: ")
    assert message in line
