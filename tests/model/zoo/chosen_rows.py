"""``rows=`` decides alone which rows count; and the same content in another form gives the same rows."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lazyrich import DataError

from .by_hand import array, linear, relu
from .entries import Answer, Case, Refusal, Shelf, split
from .tagging import Tagger, padding, positions, tokens, unshifted

shelf = Shelf("rows=")
forms = Shelf("forms of a batch")


def _batch():
    y = torch.randint(3, (12, 8))
    y[:, ::3] = -100
    return {"input_ids": tokens(), "attention_mask": padding(), "labels": y}


@shelf.entry("all")
def _():
    model, batch = Tagger(classes=3), {"input_ids": tokens(), "attention_mask": padding()}
    return Case(model, [batch], positions(model, batch["input_ids"], torch.ones(12, 8)), {"rows": "all"})


@shelf.entry("mask, of a batch with labels")
def _():
    model, batch = Tagger(unshifted, classes=3), _batch()
    batch["labels"] = batch["labels"].clamp_min(0).masked_fill(batch["attention_mask"] == 0, -100)
    batch["labels"][:, 0] = 1
    right = positions(model, batch["input_ids"], batch["attention_mask"], batch["labels"])
    return Case(model, [batch], right, {"rows": "mask"})


@shelf.entry("labels, whatever the mask says")
def _():
    model, batch = Tagger(unshifted, classes=3), _batch()
    y = batch["labels"]
    return Case(model, list(split(batch, 5)), positions(model, batch["input_ids"], y >= 0, y), {"rows": "labels"})


@shelf.entry("mask where there is none")
def _():
    return Case(Tagger(classes=3), [{"input_ids": tokens()}], Refusal(DataError, ("mask",)), {"rows": "mask"}, trains=False)


@shelf.entry("labels where there are none")
def _():
    return Case(Tagger(classes=3), [{"input_ids": tokens()}], Refusal(DataError, ("labels",)), {"rows": "labels"}, trains=False)


class Keyed(Tagger):
    def forward(self, input_ids, chosen=None, attention_mask=None):
        return super().forward(input_ids)


@shelf.entry("a tensor of the batch, by its key")
def _():
    model, batch = Keyed(classes=3), {"input_ids": tokens(), "attention_mask": padding(), "chosen": torch.rand(12, 8) < 0.5}
    return Case(model, [batch], positions(model, batch["input_ids"], batch["chosen"]), {"rows": "chosen"})


@shelf.entry("a key that the batch does not have")
def _():
    batch = {"input_ids": tokens(), "chosen": torch.rand(12, 8) < 0.5}
    return Case(Keyed(classes=3), [batch], Refusal(DataError, ("chosne", "chosen")), {"rows": "chosne"}, trains=False)


@shelf.entry("a function of the batch: positions")
def _():
    model, ids = Tagger(classes=3), tokens()
    return Case(model, [{"input_ids": ids}], positions(model, ids, ids > 4), {"rows": lambda batch: batch["input_ids"] > 4})


@shelf.entry("a function of the batch: samples, of a network with labels")
def _():
    model, x, y = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)), torch.randn(60, 6), torch.arange(60) % 3
    kept = x[:, 0].numpy() > 0
    features = np.tanh(linear(x, model[0]))[kept]
    right = Answer("2", features, linear(features, model[2]), y.numpy()[kept], left_out=int((~kept).sum()))
    return Case(model, list(split((x, y), 25)), right, {"rows": lambda batch: batch[0][:, 0] > 0})


WRONG: dict[str, Any] = {
    "a tensor of another length": lambda batch: torch.ones(5, dtype=torch.bool),
    "numbers in place of truth values": lambda batch: batch[:, 0],
    "no tensor": lambda batch: [True] * len(batch),
    "nothing that is kept": lambda batch: torch.zeros(len(batch), dtype=torch.bool),
}


@shelf.entries({f"a function that returns {name}": function for name, function in WRONG.items()})
def _(function):
    return Case(nn.Linear(6, 3), torch.randn(60, 6), Refusal(DataError, ("rows",)), {"rows": function}, trains=False)


# --- the same content, in another form --------------------------------------------------------------------------------


@dataclass
class Texts:
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


NamedTexts = namedtuple("NamedTexts", ["input_ids", "attention_mask", "labels"])


class Either(Tagger):
    """Takes its inputs as keywords, or one object that holds them."""

    def forward(self, input_ids, attention_mask=None, labels=None):
        if not isinstance(input_ids, Tensor):
            input_ids, attention_mask, labels = input_ids.input_ids, input_ids.attention_mask, input_ids.labels
        return super().forward(input_ids, attention_mask, labels)


FORMS: dict[str, Any] = {
    "mapping": lambda batch: batch,
    "ordered mapping": OrderedDict,
    "mapping of a class of its own": UserDict,
    "dataclass": lambda batch: Texts(**batch),
    "named tuple": lambda batch: NamedTexts(**batch),
    "pair of a mapping and labels": lambda batch: ({k: batch[k] for k in ("input_ids", "attention_mask")}, batch["labels"]),
    "list of a mapping and labels": lambda batch: [{k: batch[k] for k in ("input_ids", "attention_mask")}, batch["labels"]],
}


@forms.entries(FORMS)
def _(form):
    model, batch = Either(unshifted, classes=3), _batch()
    kept = (batch["labels"] >= 0) & (batch["attention_mask"] > 0)
    right = positions(model, batch["input_ids"], kept, batch["labels"], counted="positions with a label that the mask keeps")
    return Case(model, [form(part) for part in split(batch, 6)], right)


class Graph:
    """A batch of nodes as graph libraries hold it: an object with tensors."""

    def __init__(self, **tensors: Tensor) -> None:
        self.__dict__.update(tensors)

    def to(self, device: Any, **_: Any) -> Graph:
        """A copy on a device, as graph libraries offer it."""
        return Graph(**{name: tensor.to(device) for name, tensor in self.__dict__.items()})


class Convolution(nn.Module):
    """Two rounds of averages over neighbours, then the head; with ``batch``, one answer for each graph."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(5, 16), nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, graph):
        h = torch.relu(self.second(graph.adjacency @ torch.relu(self.first(graph.adjacency @ graph.x))))
        if hasattr(graph, "batch"):
            owner = nn.functional.one_hot(graph.batch).to(h)
            h = owner.T @ h / owner.sum(0).unsqueeze(1)
        return self.head(h)

    def nodes(self, graph):
        a = array(graph.adjacency)
        return relu(linear(a @ relu(linear(a @ array(graph.x), self.first)), self.second))


def _graph(nodes=30, **more):
    a = torch.rand(nodes, nodes) < 0.15
    a = (a | a.T | torch.eye(nodes, dtype=torch.bool)).to(torch.get_default_dtype())
    return Graph(x=torch.randn(nodes, 5), adjacency=a / a.sum(1, keepdim=True), **more)


@forms.entries({"graph, an answer at every node": None, "graph, the nodes of a mask": "train_mask"})
def _(rows):
    model, y, chosen = Convolution(), torch.arange(30) % 3, torch.arange(30) < 18
    graph = _graph(y=y, train_mask=chosen)
    kept = np.ones(30, dtype=bool) if rows is None else chosen.numpy()
    features = model.nodes(graph)[kept]
    right = Answer("head", features, linear(features, model.head), y.numpy()[kept], left_out=int((~kept).sum()))
    return Case(model, [graph], right, {} if rows is None else {"rows": rows})


@forms.entry("graphs, one answer for each")
def _():
    model, data, features, y = Convolution(), [], [], torch.arange(12) % 3
    for k in range(2):
        owner = torch.arange(30) // 5
        graph = _graph(batch=owner, y=y[6 * k : 6 * k + 6])
        nodes = model.nodes(graph)
        data.append(graph)
        features += [nodes[owner.numpy() == g].mean(0) for g in range(6)]
    return Case(model, data, Answer("head", np.stack(features), linear(np.stack(features), model.head), y.numpy()))


@forms.entry("graph in a pair with labels")
def _():
    model, y, graph = Convolution(), torch.arange(30) % 3, _graph()
    features = model.nodes(graph)
    return Case(model, [(graph, y)], Answer("head", features, linear(features, model.head), y.numpy()))
