"""Outputs that are changed after the head: what the model returns is no head's output, and the error offers the head."""

import numpy as np
import torch
from torch import nn

from lazyrich import HeadError

from .by_hand import linear, relu
from .entries import Answer, Case, Refusal, Shelf

shelf = Shelf("outputs changed after the head")


class Changed(nn.Module):
    """A head, and what is made of its outputs with a second path from the inputs to the answers."""

    def __init__(self, change, classes=4):
        super().__init__()
        self.fc, self.head, self.change = nn.Linear(8, 16), nn.Linear(16, classes), change
        self.direct = nn.Parameter(torch.randn(8, classes))

    def forward(self, x):
        return self.change(self.head(torch.relu(self.fc(x))), x @ self.direct)


def _overwritten(out, other):
    out[:, 0] = 0
    return out


def _every_second(out, other):
    out[::2] += 1
    return out


CHANGES = {
    "added in place": lambda out, other: out.add_(3 * torch.sin(other)),
    "a residual": lambda out, other: out + torch.sin(other),
    "a residual, then softmax": lambda out, other: (out + other).softmax(-1),
    "a gate, in place": lambda out, other: out.mul_(torch.sigmoid(other)),
    "a gate": lambda out, other: out * torch.sigmoid(other[:, :1]),
    "divided by what differs by sample": lambda out, other: out / (1 + other[:, :1] ** 2),
    "unit length": lambda out, other: nn.functional.normalize(out, dim=-1),
    "one column overwritten": _overwritten,
    "every second sample changed in place": _every_second,
    "masked by zeros that differ by sample": lambda out, other: out * (other > 0),
    "sorted": lambda out, other: out.sort(-1).values,
    "the largest three": lambda out, other: out.topk(3).values,
    "the value of one action for each sample": lambda out, other: out.gather(1, other.argmax(1, keepdim=True)),
    "squared": lambda out, other: out**2,
    "cosine, which is not monotone": lambda out, other: torch.cos(out),
    "constant after a clamp": lambda out, other: out.clamp(50, 51),
    "summed over the batch": lambda out, other: out.cumsum(0),
    "normalised over the batch": lambda out, other: (out - out.mean(0)) / out.std(0),
    "the larger of two paths": lambda out, other: torch.maximum(out, other),
}


@shelf.entries(CHANGES)
def _(change):
    return Case(Changed(change), torch.randn(80, 8), Refusal(HeadError, offers=("head", "fc"), first="head"))


@shelf.entry("one output times a gate with inputs of its own")
def _():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.gate = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)), nn.Linear(5, 1)

        def forward(self, x, w):
            return self.body(x) * torch.sigmoid(self.gate(w))

    data = [((torch.randn(80, 8), torch.randn(80, 5)), None)]
    return Case(Gated(), data, Refusal(HeadError, offers=("body.2", "gate")))


@shelf.entry("temperature that a second layer predicts")
def _():
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.t, self.fc, self.temperature = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(8, 1)

        def forward(self, x):
            return self.fc(torch.relu(self.t(x))) * torch.sigmoid(self.temperature(x))

    return Case(Tempered(), torch.randn(80, 8), Refusal(HeadError, offers=("fc", "temperature")))


class Adapted(nn.Module):
    """As low-rank adapters wrap a layer."""

    def __init__(self, features, outputs, *, zero=False):
        super().__init__()
        self.base_layer = nn.Linear(features, outputs)
        self.down, self.up = nn.Linear(features, 2, bias=False), nn.Linear(2, outputs, bias=False)
        if zero:
            nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base_layer(x) + self.up(self.down(x))


@shelf.entry("adapter on the head")
def _():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), Adapted(16, 4))
    return Case(model, torch.randn(80, 8), Refusal(HeadError, offers=("2", "2.base_layer")))


@shelf.entry("adapter on the head, named")
def _():
    model, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), Adapted(16, 4)), torch.randn(80, 8)
    features, head = relu(linear(x, model[0])), model[2]
    outputs = linear(features, head.base_layer) + linear(linear(features, head.down), head.up)
    return Case(model, x, Answer("2", features, outputs, linear=False), {"head": "2"})


@shelf.entry("adapter within the body")
def _():
    model, x = nn.Sequential(Adapted(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(80, 8)
    body = model[0]
    features = relu(linear(x, body.base_layer) + linear(linear(x, body.down), body.up))
    return Case(model, x, Answer("2", features, linear(features, model[2])))


@shelf.entry("adapter on the head that starts at zero")
def _():
    """What the model returns is what its wrapped layer computes, as long as nothing was trained."""
    model, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), Adapted(16, 4, zero=True)), torch.randn(80, 8)
    features = relu(linear(x, model[0]))
    right = Answer("2.base_layer", features, linear(features, model[2].base_layer))
    return Case(model, x, right, trains=False)  # a monitor has to refuse it after the first step: test_zoo


@shelf.entry("graph convolution: the head's outputs are averaged over neighbours")
def _():
    class Convolution(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 16, bias=False), nn.Linear(16, 4, bias=False)

        def forward(self, x, adjacency):
            return adjacency @ self.second(torch.relu(adjacency @ self.first(x)))

    adjacency = torch.rand(80, 80) < 0.1
    adjacency = (adjacency | adjacency.T | torch.eye(80, dtype=torch.bool)).to(torch.get_default_dtype())
    data = [((torch.randn(80, 8), adjacency / adjacency.sum(1, keepdim=True)), None)]
    return Case(Convolution(), data, Refusal(HeadError, offers=("second",), first="second"))


@shelf.entry("mixture of experts")
def _():
    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.gate = nn.Linear(8, 16), nn.Linear(16, 3)
            self.experts = nn.ModuleList(nn.Linear(16, 4) for _ in range(3))

        def forward(self, x):
            h = torch.relu(self.body(x))
            share = self.gate(h).softmax(-1)
            return sum(share[:, k : k + 1] * expert(h) for k, expert in enumerate(self.experts))

    return Case(Mixture(), torch.randn(80, 8), Refusal(HeadError, offers=("experts.0", "experts.1", "experts.2")))


@shelf.entry("mean of two heads")
def _():
    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.left, self.right = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(16, 4)

        def forward(self, x):
            h = torch.relu(self.body(x))
            return (self.left(h) + self.right(h)) / 2

    return Case(Ensemble(), torch.randn(80, 8), Refusal(HeadError, offers=("left", "right")))


@shelf.entry("logits brought to a higher resolution")
def _():
    class Segmenter(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.classifier = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 3, 1)

        def forward(self, x):
            out = self.classifier(torch.relu(self.body(x)))
            return nn.functional.interpolate(out, size=x.shape[-2:], mode="bilinear", align_corners=False)

    return Case(Segmenter(), torch.randn(10, 2, 6, 6), Refusal(HeadError, offers=("classifier",), first="classifier"))


@shelf.entry("1×1 convolution, rectified before it is averaged over the pixels")
def _():
    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.classifier = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 3, 1)

        def forward(self, x):
            return torch.relu(self.classifier(torch.relu(self.body(x)))).mean((2, 3))

    return Case(Squeezed(), torch.randn(10, 2, 6, 6), Refusal(HeadError, offers=("classifier",), first="classifier"))


@shelf.entry("as it is in the first batch, a residual in the second")
def _():
    class Sometimes(Changed):
        def forward(self, x):
            out = super().forward(x)
            return out + x @ self.direct if x.mean() > 1 else out

    model = Sometimes(lambda out, other: out)
    return Case(model, [torch.randn(40, 8), torch.randn(40, 8) + 3], Refusal(HeadError, offers=("head",)))


@shelf.entry("as it is for the first samples, a residual for those that follow")
def _():
    """Every batch is looked at in rows of its own, not in the first ones alone."""

    def change(out, other):
        later = (torch.arange(len(out)) >= 8).to(out).unsqueeze(1)
        return out + later * other

    return Case(Changed(change), torch.randn(80, 8), Refusal(HeadError, offers=("head",)))


@shelf.entry("rebuilt by a second model around a first one")
def _():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.blend = Changed(lambda out, other: out), nn.Parameter(torch.tensor(0.3))

        def forward(self, x):
            out = self.inner(x)
            return self.blend * out + (1 - self.blend) * np.pi * torch.tanh(out.flip(-1))

    return Case(Wrapper(), torch.randn(80, 8), Refusal(HeadError, offers=("inner.head",), first="inner.head"))
