"""``forward=``, ``targets=`` and ``rows=``: any batch and any model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import lazyrich
from lazyrich import DataError, HeadError

from .by_hand import array, linear, relu
from .entries import Answer, Case, Refusal, Shelf, split

shelf = Shelf("forward= and targets=")


def _perceptron():
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    x, y = torch.randn(60, 6), torch.arange(60) % 3
    features = np.tanh(linear(x, model[0]))
    return model, x, y, features, linear(features, model[2])


@dataclass
class Record:
    image: Any
    label: Any


BATCHES: dict[str, tuple[Any, Any, Any]] = {
    "a mapping with keys of its own": (
        lambda x, y: {"image": x, "label": y}, lambda m, b: m(b["image"]), lambda b: b["label"],
    ),
    "three tensors": (lambda x, y: (x, y, y + 10), lambda m, b: m(b[0]), lambda b: b[1]),
    "targets before inputs": (lambda x, y: (y, x), lambda m, b: m(b[1]), lambda b: b[0]),
    "a dataclass": (Record, lambda m, b: m(b.image), lambda b: b.label),
    "names next to the tensors": (
        lambda x, y: {"names": [f"{k}.png" for k in range(len(x))], "x": x, "y": y}, lambda m, b: m(b["x"]), lambda b: b["y"],
    ),
    "a list of samples": (
        lambda x, y: [{"x": xi, "y": yi} for xi, yi in zip(x, y, strict=True)],
        lambda m, b: m(torch.stack([s["x"] for s in b])), lambda b: torch.stack([s["y"] for s in b]),
    ),
    "arrays of NumPy": (
        lambda x, y: (x.numpy(), y.numpy()), lambda m, b: m(torch.as_tensor(b[0])), lambda b: torch.as_tensor(b[1]),
    ),
}  # fmt: skip


@shelf.entries(BATCHES)
def _(how):
    form, forward, targets = how
    model, x, y, features, outputs = _perceptron()
    data = [form(*part) for part in split((x, y), 25)]
    options = {"forward": forward, "targets": targets}
    return Case(model, data, Answer("2", features, outputs, y.numpy()), options)


@shelf.entry("forward= alone: targets as they are found")
def _():
    model, x, y, *_ = _perceptron()
    forward = {"forward": lambda model, batch: model(batch[0] * 2)}
    features = np.tanh(linear(2 * x, model[0]))
    return Case(model, (x, y), Answer("2", features, linear(features, model[2]), y.numpy()), forward)


@shelf.entry("targets= alone: other targets than the batch's")
def _():
    model, x, y, features, outputs = _perceptron()
    return Case(model, (x, y), Answer("2", features, outputs, (y.numpy() + 1) % 3), {"targets": lambda batch: (batch[1] + 1) % 3})


@shelf.entry("forward= calls another method of the model")
def _():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

        def classify(self, x):
            return self.head(torch.relu(self.fc(x)))

    model, x = Encoder(), torch.randn(60, 6)
    features = relu(linear(x, model.fc))
    right = Answer("head", features, linear(features, model.head))
    return Case(model, list(x.split(25)), right, {"forward": lambda model, batch: model.classify(batch)})


@shelf.entry("forward= returns a loss: the head is verified as ever")
def _():
    model, x, *_ = _perceptron()
    return Case(model, x, Refusal(HeadError, offers=("2",), first="2"), {"forward": lambda m, b: m(b).square().mean()})


class Towers(nn.Module):
    """Scores of users for items: there is no head."""

    def __init__(self):
        super().__init__()
        self.user, self.item = nn.Linear(6, 12), nn.Embedding(5, 12)

    def forward(self, x):
        return torch.tanh(self.user(x)) @ self.item.weight.T


def _tower_rows(model, batch):
    x = batch[0] if isinstance(batch, (tuple, list)) else batch
    h = torch.tanh(model.user(x))
    return lazyrich.Rows(h, h @ model.item.weight.T)


def _towers():
    model, x = Towers(), torch.randn(60, 6)
    features = np.tanh(linear(x, model.user))
    return model, x, features, features @ array(model.item.weight).T


@shelf.entry("rows of a model without a head")
def _():
    model, x, features, outputs = _towers()
    right = Answer(None, features, outputs, linear=False, returned="forward=")
    return Case(model, list(x.split(25)), right, {"forward": _tower_rows})


@shelf.entry("rows of a model without a head, with targets")
def _():
    (model, x, features, outputs), y = _towers(), torch.arange(60) % 5
    right = Answer(None, features, outputs, y.numpy(), linear=False, returned="forward=")
    return Case(model, list(split((x, y), 25)), right, {"forward": _tower_rows, "targets": lambda batch: batch[1]})


@shelf.entry("rows of a model without a head, some of them chosen")
def _():
    model, x, features, outputs = _towers()
    kept = x[:, 0].numpy() > 0
    right = Answer(None, features[kept], outputs[kept], linear=False, returned="forward=", left_out=int((~kept).sum()))
    options = {"forward": _tower_rows, "rows": lambda batch: batch[:, 0] > 0}
    return Case(model, list(x.split(25)), right, options)


@shelf.entry("rows of a model without a head, the first 20")
def _():
    model, x, features, outputs = _towers()
    right = Answer(None, features[:20], outputs[:20], linear=False, returned="forward=", left_out=None)
    return Case(model, list(x.split(8)), right, {"forward": _tower_rows, "num_samples": 20})


@shelf.entry("rows that are positions (n, T, p)")
def _():
    model, x, features, outputs = _towers()

    def forward(model, batch):
        rows = _tower_rows(model, batch)
        return lazyrich.Rows(rows.features.unflatten(0, (-1, 5)), rows.outputs.unflatten(0, (-1, 5)))

    right = Answer(None, features, outputs, linear=False, returned="forward=", row="position")
    return Case(model, list(x.split(20)), right, {"forward": forward})


@shelf.entry("more outputs than are copied, without a head")
def _():
    model, x = Towers(), torch.randn(60, 6)
    model.item = nn.Embedding(4200, 12)
    features = np.tanh(linear(x, model.user))
    right = Answer(None, features, features @ array(model.item.weight).T, linear=False, returned="forward=")
    return Case(model, list(x.split(25)), right, {"forward": _tower_rows})


BAD: dict[str, Any] = {
    "features and outputs of unlike length": lambda model, batch: lazyrich.Rows(model.user(batch), batch[:-1]),
    "features that are integers": lambda model, batch: lazyrich.Rows(model.user(batch).long(), batch),
}


@shelf.entries(BAD)
def _(forward):
    return Case(Towers(), torch.randn(60, 6), Refusal(DataError, ("Rows",)), {"forward": forward}, trains=False)


@shelf.entry("targets= of another length")
def _():
    model, x, y, *_ = _perceptron()
    return Case(model, (x, y), Refusal(DataError, ("targets",)), {"targets": lambda batch: batch[1][:-1]}, trains=False)


@shelf.entry("a mapping whose keys the model does not take")
def _():
    model, x, y, *_ = _perceptron()
    return Case(model, [{"image": x, "label": y}], Refusal(DataError, ("image", "forward=")), trains=False)
