"""Heads that are no module: nothing can be seen there, so the model must be changed, or ``forward=`` must return the rows."""

import numpy as np
import torch
from torch import nn

import lazyrich
from lazyrich import HeadError

from .by_hand import array, linear, relu, unit
from .entries import Answer, Case, Refusal, Shelf

shelf = Shelf("head that is no module")


class Parametric(nn.Module):
    """A hidden layer as wide as the outputs come in many networks, and a bare parameter that turns it into answers."""

    def __init__(self, answer, width=12, classes=3):
        super().__init__()
        self.fc, self.weight, self.answer = nn.Linear(6, width), nn.Parameter(torch.randn(classes, width)), answer

    def hidden(self, x):
        return torch.relu(self.fc(x))

    def forward(self, x):
        return self.answer(self.hidden(x), self.weight)


@shelf.entries(
    {
        "functional.linear with a parameter": lambda h, w: nn.functional.linear(h, w),
        "cosines with a parameter": lambda h, w: nn.functional.linear(nn.functional.normalize(h), nn.functional.normalize(w)),
        "matrix product with a parameter": lambda h, w: h @ w.T,
        "einsum with a parameter": lambda h, w: torch.einsum("np,cp->nc", h, w),
        "negative squared distances to prototypes": lambda h, w: -(h[:, None] - w).square().sum(-1),
        "negative distances by cdist": lambda h, w: -torch.cdist(h, w),
        "sum of products": lambda h, w: (h[:, None] * w).sum(-1),
        "softmax of a matrix product": lambda h, w: (h @ w.T).softmax(-1),
    }
)
def _(answer):
    return Case(Parametric(answer), torch.randn(60, 6), Refusal(HeadError, offers=("fc",)))


@shelf.entry("parameter after a hidden layer with as many units as there are outputs")
def _():
    model = Parametric(lambda h, w: h @ w.T, width=3)
    return Case(model, torch.randn(60, 6), Refusal(HeadError, offers=("fc",)))


class Language(nn.Module):
    def __init__(self, tied_module):
        super().__init__()
        self.embed, self.mix = nn.Embedding(20, 12), nn.Linear(12, 12)
        self.decoder = nn.Linear(12, 20, bias=False) if tied_module else None
        if self.decoder is not None:
            self.decoder.weight = self.embed.weight

    def forward(self, tokens):
        h = torch.tanh(self.mix(self.embed(tokens)))
        return nn.functional.linear(h, self.embed.weight) if self.decoder is None else self.decoder(h)


@shelf.entry("weights of the embedding, used without a module")
def _():
    return Case(Language(False), torch.randint(20, (12, 5)), Refusal(HeadError, offers=("mix",)))


@shelf.entry("weights of the embedding, tied to a linear layer")
def _():
    model, tokens = Language(True), torch.randint(20, (12, 5))
    features = np.tanh(linear(array(model.embed.weight)[tokens.flatten()], model.mix))
    outputs = features @ array(model.embed.weight).T
    return Case(model, tokens, Answer("decoder", features, outputs, row="position"))


@shelf.entry("weights of a linear layer that is not called")
def _():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Linear(6, 12), nn.Linear(12, 3)

        def forward(self, x):
            return nn.functional.linear(torch.relu(self.body(x)), self.fc.weight, self.fc.bias)

    return Case(Functional(), torch.randn(60, 6), Refusal(HeadError, offers=("body",)))


@shelf.entry("two towers: scores of users for items")
def _():
    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.user, self.item = nn.Linear(6, 12), nn.Embedding(5, 12)

        def forward(self, x):
            return torch.tanh(self.user(x)) @ self.item.weight.T

    return Case(Towers(), torch.randn(60, 6), Refusal(HeadError, offers=("user",)))


@shelf.entry("no linear layer and no parameter at the end: the features are returned")
def _():
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Case(model, torch.randn(20, 2, 6, 6), Refusal(HeadError))


@shelf.entry("features are returned after the last linear layer and an activation of more than one kind")
def _():
    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 12)

        def forward(self, x):
            left, right = self.fc(x).chunk(2, -1)
            return left * torch.sigmoid(right)

    return Case(Features(), torch.randn(60, 6), Refusal(HeadError, offers=("fc",)))


class Cosine(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 12))

    def forward(self, x):
        return nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight))


class WithCosine(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(6, 12), Cosine()

    def forward(self, x):
        return self.head(torch.relu(self.fc(x)))


@shelf.entry("cosine head as a module, named")
def _():
    model, x = WithCosine(), torch.randn(60, 6)
    features = relu(linear(x, model.fc))
    outputs = unit(features) @ unit(array(model.head.weight)).T
    return Case(model, x, Answer("head", features, outputs, linear=False), {"head": "head"})


@shelf.entry("cosine head as a module, not named")
def _():
    return Case(WithCosine(), torch.randn(60, 6), Refusal(HeadError, offers=("head", "fc"), first="head"))


@shelf.entry("prototypes as a module, named")
def _():
    class Prototypes(nn.Module):
        def __init__(self):
            super().__init__()
            self.centres = nn.Parameter(torch.randn(4, 12))

        def forward(self, x):
            return -torch.cdist(x, self.centres).square()

    model, x = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), Prototypes()), torch.randn(60, 6)
    features = np.tanh(linear(x, model[0]))
    outputs = -((features[:, None] - array(model[2].centres)) ** 2).sum(-1)
    return Case(model, x, Answer("2", features, outputs, linear=False), {"head": model[2]})


@shelf.entry("parameter, with the rows returned by forward=")
def _():
    model, x = Parametric(lambda h, w: h @ w.T), torch.randn(60, 6)

    def forward(model, batch):
        h = model.hidden(batch)
        return lazyrich.Rows(h, model.answer(h, model.weight))

    features = relu(linear(x, model.fc))
    outputs = features @ array(model.weight).T
    right = Answer(None, features, outputs, linear=False, returned="forward=")
    return Case(model, list(x.split(25)), right, {"forward": forward})
