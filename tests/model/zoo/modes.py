"""Changes of mode: each module comes back through the ``train(mode)`` that its class has."""

import numpy as np
import torch
from torch import nn

from lazyrich import HeadError

from .by_hand import array, linear, relu
from .entries import Answer, Case, Net, Refusal, Shelf

shelf = Shelf("changes of mode")


class Merging(nn.Linear):
    """A low-rank update that train(False) merges into the weights and train(True) takes out again."""

    def __init__(self, features, outputs):
        super().__init__(features, outputs)
        self.merged = False
        self.down, self.up = nn.Parameter(torch.randn(2, features)), nn.Parameter(torch.randn(outputs, 2))

    def train(self, mode=True):
        super().train(mode)
        if self.merged == mode:
            self.weight.data += (-1 if mode else 1) * (self.up.data @ self.down.data)
            self.merged = not mode
        return self

    def forward(self, x):
        out = super().forward(x)
        return out if self.merged else out + x @ self.down.T @ self.up.T


@shelf.entries({f"low-rank update that is merged in evaluation mode, {mode}": mode for mode in ("training", "evaluating")})
def _(mode):
    model, x = nn.Sequential(Merging(8, 16), nn.ReLU(), nn.Linear(16, 3)).train(), torch.randn(60, 8)
    layer = model[0]
    features = relu(linear(x, layer) + array(x) @ array(layer.down).T @ array(layer.up).T)
    if mode == "evaluating":
        model.eval()
    right = Answer("2", features, linear(features, model[2]))
    return Case(model, x, right, writes=True)


@shelf.entry("low-rank update on the head that is merged in evaluation mode")
def _():
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), Merging(16, 3)).train(), torch.randn(60, 8)
    features = np.tanh(linear(x, model[0]))
    outputs = linear(features, model[2]) + features @ array(model[2].down).T @ array(model[2].up).T
    return Case(model, x, Answer("2", features, outputs), writes=True)


class Fused(nn.Module):
    """Two branches that become one in evaluation mode, as RepVGG's do; the sum is a plain attribute."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.weight = nn.Linear(8, 16), nn.Linear(8, 16, bias=False), None

    def train(self, mode=True):
        super().train(mode)
        self.weight = None if mode else (self.left.weight + self.right.weight).detach()
        return self

    def forward(self, x):
        if self.weight is None:
            return self.left(x) + self.right(x)
        return nn.functional.linear(x, self.weight, self.left.bias)


@shelf.entry("branches that are fused in evaluation mode")
def _():
    model, x = nn.Sequential(Fused(), nn.ReLU(), nn.Linear(16, 3)).train(), torch.randn(60, 8)
    features = relu(linear(x, model[0].left) + linear(x, model[0].right))
    return Case(model, x, Answer("2", features, linear(features, model[2])))


@shelf.entry("a frozen backbone: train() keeps a part in evaluation mode")
def _():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.5)), nn.Linear(16, 3)
            self.backbone.requires_grad_(False)

        def train(self, mode=True):
            super().train(mode)
            self.backbone.eval()
            return self

        def forward(self, x):
            return self.head(self.backbone(x))

    model, x = Frozen().train(), torch.randn(60, 8)
    features = linear(x, model.backbone[0]) / np.sqrt(1 + model.backbone[1].eps)
    return Case(model, x, Answer("head", features, linear(features, model.head)))


@shelf.entry("modes that are mixed")
def _():
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Tanh(), nn.Linear(16, 3)).train(), torch.randn(60, 8)
    model[1].training, model[3].training = False, False
    features = np.tanh(linear(x, model[0]))
    return Case(model, x, Answer("3", features, linear(features, model[3])))


@shelf.entry("layers whose width is not known yet")
def _():
    model = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(3))
    return Case(model, torch.randn(60, 8), Refusal((HeadError, ValueError), ("'0'", "lazy")), trains=False)


@shelf.entry("hooks, gradients and parameters that are not trained")
def _():
    model, x = Net(nn.Sequential(nn.Linear(8, 16), nn.Tanh()), nn.Linear(16, 3)), torch.randn(60, 8)
    model.body.register_forward_hook(lambda *_: None)
    model.head.register_full_backward_hook(lambda *_: None)
    model.body[0].weight.register_hook(lambda grad: grad * 2)
    model(x).sum().backward()
    model.head.bias.requires_grad_(False)
    features = np.tanh(linear(x, model.body[0]))
    return Case(model, x, Answer("head", features, linear(features, model.head)))
