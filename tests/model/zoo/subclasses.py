"""Heads that are linear layers in name, but compute something else: measured from their outputs, not from their weights."""

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from .by_hand import array, linear, sigmoid, unit
from .entries import Answer, Case, Net, Shelf

shelf = Shelf("head with a forward of its own")
MANY = 4200  # more outputs than are copied of a layer that is linear


class Cosine(nn.Linear):
    def forward(self, x):
        return 16 * nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight))


class Scaled(nn.Linear):
    def forward(self, x):
        return 0.1 * super().forward(x)


class Standardized(nn.Linear):
    def forward(self, x):
        weight = self.weight - self.weight.mean(1, keepdim=True)
        return nn.functional.linear(x, weight / weight.std(1, keepdim=True), self.bias)


class Masked(nn.Linear):
    def __init__(self, features, outputs):
        super().__init__(features, outputs)
        self.register_buffer("mask", (torch.rand(outputs, features) < 0.5).to(self.weight))

    def forward(self, x):
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


class Gated(nn.Linear):
    def forward(self, x):
        return super().forward(x) * torch.sigmoid(x[..., :1])


class Plain(nn.Linear):
    def forward(self, x):
        return super().forward(x)


def _cosine(h, head):
    return 16 * unit(h) @ unit(array(head.weight)).T


def _standardized(h, head):
    weight = array(head.weight) - array(head.weight).mean(1, keepdims=True)
    return h @ (weight / weight.std(1, ddof=1, keepdims=True)).T + array(head.bias)


def _masked(h, head):
    return h @ (array(head.weight) * array(head.mask)).T + array(head.bias)


def _centred(h, head):
    return h @ (array(head.weight) - array(head.weight).mean(0)).T + array(head.bias)


FORWARDS = {
    "cosines": (Cosine, _cosine),
    "scaled outputs": (Scaled, lambda h, head: 0.1 * linear(h, head)),
    "standardised weights": (Standardized, _standardized),
    "masked weights": (Masked, _masked),
    "outputs times a function of the features": (Gated, lambda h, head: linear(h, head) * sigmoid(h[:, :1])),
}


def _case(kind, by_hand, outputs, linear_map):
    model, x = Net(nn.Sequential(nn.Linear(8, 16), nn.ReLU()), kind(16, outputs)), torch.randn(80, 8) * torch.rand(80, 1) * 5
    features = np.maximum(linear(x, model.body[0]), 0)
    return Case(model, x, Answer("head", features, by_hand(features, model.head), linear=linear_map))


@shelf.entries({f"{name}, {n} outputs": (*how, n) for name, how in FORWARDS.items() for n in (3, MANY)})
def _(how):
    return _case(*how, linear_map=False)


@shelf.entries({f"a subclass that changes nothing, {n} outputs": n for n in (3, MANY)})
def _(outputs):
    return _case(Plain, linear, outputs, True)


@shelf.entry(f"a linear layer, {MANY} outputs, several batches")
def _():
    case = _case(nn.Linear, linear, MANY, True)
    return Case(case.model, list(case.data.split(30)), case.right)


@shelf.entries({f"a hook that changes the outputs, {n} outputs": n for n in (3, MANY)})
def _(outputs):
    case = _case(nn.Linear, lambda h, head: np.tanh(linear(h, head)), outputs, False)
    case.model.head.register_forward_hook(lambda module, args, output: torch.tanh(output))
    return case


@shelf.entry("a hook that changes the features")
def _():
    model, x = Net(nn.Sequential(nn.Linear(8, 16), nn.ReLU()), nn.Linear(16, 3)), torch.randn(80, 8)
    model.head.register_forward_pre_hook(lambda module, args: (args[0] ** 2,))
    features = np.maximum(linear(x, model.body[0]), 0) ** 2
    return Case(model, x, Answer("head", features, linear(features, model.head)))


@shelf.entries({f"a parametrised weight, {n} outputs": n for n in (3, MANY)})
def _(outputs):
    class Centred(nn.Module):
        def forward(self, weight):
            return weight - weight.mean(0)

    case = _case(nn.Linear, _centred, outputs, True)
    parametrize.register_parametrization(case.model.head, "weight", Centred())
    return case


@shelf.entry("noisy layer of reinforcement learning, in evaluation mode, named")
def _():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.sigma = nn.Parameter(torch.randn(3, 16)), nn.Parameter(torch.randn(3, 16))

        def forward(self, x):
            return nn.functional.linear(x, self.mean + self.sigma * torch.randn(3, 16).to(x) if self.training else self.mean)

    model, x = Net(nn.Sequential(nn.Linear(8, 16), nn.ReLU()), Noisy()), torch.randn(80, 8)
    features = np.maximum(linear(x, model.body[0]), 0)
    right = Answer("head", features, features @ array(model.head.mean).T, linear=False)
    return Case(model, x, right, {"head": "head"})


@shelf.entry("a convolution over the features, as pitch trackers end, named")
def _():
    class Toeplitz(nn.Conv1d):
        def __init__(self, features, outputs):
            super().__init__(1, 1, features + outputs - 1, padding=outputs - 1, bias=False)

        def forward(self, x):
            return super().forward(x.unsqueeze(1)).squeeze(1)

    model, x = Net(nn.Sequential(nn.Linear(8, 16), nn.ReLU()), Toeplitz(16, 3)), torch.randn(80, 8)
    features, kernel = np.maximum(linear(x, model.body[0]), 0), array(model.head.weight).ravel()
    outputs = np.stack([np.pad(features, ((0, 0), (2, 2)))[:, k : k + 18] @ kernel for k in range(3)], axis=1)
    return Case(model, x, Answer("head", features, outputs, linear=False), {"head": "head"})
