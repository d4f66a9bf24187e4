"""The zoo and its tester: the answers are rows that the head sees, the table is whole, and a changed bit is found."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from everything import differences, everything, values
from torch import nn
from zoo import ENTRIES, SHELVES, Answer, as_markdown
from zoo.running import batches_of, run

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "how-a-network-is-read.md"
MARKERS = ("<!-- the zoo begins -->\n", "<!-- the zoo ends -->")
OTHER_OUTPUTS = ("selected columns", "constant")  # measured is what is returned, not what the head computes


def test_every_kind_is_there():
    names = [(entry.kind, entry.name) for entry in ENTRIES]
    assert len(names) == len(set(names)) >= 80
    assert all(len(shelf) >= 4 for shelf in SHELVES)


def test_builders_are_seeded():
    for entry in ENTRIES:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            first, second = entry.build(), entry.build()
        states = [everything(case.model, case.data, versions=False) for case in (first, second)]
        assert differences(*(values(state) for state in states)) == [], entry.name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shelf", SHELVES, ids=[shelf.kind for shelf in SHELVES])
def test_the_answers_are_rows_that_the_head_sees(shelf):
    """Computed by hand here, captured by a plain hook there: every row of an answer was seen."""
    for entry in shelf:
        case = entry.build()
        right = case.right
        if not isinstance(right, Answer) or right.head is None or "mean over positions" in f"{entry.name}, {right.returned}":
            continue  # a mean of rows is none of them
        features, outputs = seen(case, right.head)
        assert missing(right.features, features) < 3 * right.tolerance, entry.name
        if right.returned not in OTHER_OUTPUTS:
            assert missing(right.outputs, outputs) < 3 * right.tolerance, entry.name


def seen(case, head):
    """What the head's calls were given and returned, a row for each sample or position, in evaluation mode."""
    model, rows = case.model.module if isinstance(case.model, nn.DataParallel) else case.model, ([], [])

    def hook(module, args, output):
        places = len(module.kernel_size) if isinstance(module, (nn.Conv1d, nn.Conv2d)) else 0
        for found, x in zip(rows, (args[0], output), strict=True):
            x = x.movedim(-1 - places, -1) if x.ndim > 1 + places else x  # a subclass may take rows
            found.append(x.detach().double().reshape(-1, x.shape[-1]).numpy().copy())

    module = model if head == "(the model itself)" else model.get_submodule(head)
    module.register_forward_hook(hook)
    model.eval()
    with case.around(), torch.no_grad():
        for batch in batches_of(case.data):
            run(case, batch.to(next(filter(is_float, model.parameters())).dtype) if is_float(batch) else batch)
    return [np.concatenate(found) for found in rows]


def is_float(x):
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def missing(rows, among):
    """How far the row that is farthest from all others is from the nearest of them, relative to the largest entry."""
    distances = [np.abs(among - row).max(1).min() for row in rows]
    return max(distances) / max(1e-12, np.abs(rows).max())


class TestTheTable:
    def test_names_every_entry_once(self):
        header, _, *lines = as_markdown(ENTRIES).splitlines()
        assert header == "| kind | networks | what is counted | evidence |"
        cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
        assert sorted(name for row in cells for name in row[1].split("; ")) == sorted(entry.name for entry in ENTRIES)
        assert [row[0] for row in cells if row[0]] == [shelf.kind for shelf in SHELVES]
        assert cells[0][2:] == ["every sample, with its class label", "linear; returned: as it is"]

    @pytest.mark.skipif(not GUIDE.is_file(), reason="the guide's page is not written yet")
    def test_is_the_one_in_the_guide(self):
        _, rest = GUIDE.read_text(encoding="utf-8").split(MARKERS[0])
        assert rest.split(MARKERS[1])[0] == as_markdown(ENTRIES), "run python tests/model/zoo and paste its table"


class TestTheTester:
    """What it looks for it finds."""

    def test_a_changed_bit(self):
        model, x = nn.Sequential(nn.Linear(3, 2), nn.Dropout()), torch.randn(4, 3)
        model[1].memory = [torch.zeros(2)]
        before = everything(model, x, versions=True)
        assert differences(before, everything(model, x, versions=True)) == []
        changes = {
            "tensor 0.bias": lambda: model[0].bias.data.mul_(1.0000001),
            "version of 0.weight": lambda: model[0].weight.detach().mul_(1),
            "mode of '1'": lambda: model[1].eval(),
            "attribute memory of '1'": lambda: model[1].memory[0].add_(1),
            "attributes of '0'": lambda: setattr(model[0], "spare", 3),
            "_forward_hooks of '0'": lambda: model[0].register_forward_hook(lambda *_: None),
            "tensor 0 of the data": lambda: x.add_(1),
            "random state of torch": lambda: torch.rand(1),
        }
        for path, change in changes.items():
            change()
            after = everything(model, x, versions=True)
            assert any(line.startswith(path) for line in differences(before, after)), path
            before = after
