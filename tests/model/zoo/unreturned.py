"""Models that return something other than their head's outputs: the error offers the head first, and naming it works."""

import numpy as np
import torch
from torch import nn

from lazyrich import HeadError

from .by_hand import array, convolution, linear, relu, sigmoid
from .entries import Answer, Case, Net, Refusal, Shelf

shelf = Shelf("outputs that are not returned")


def _boxes(out, features, x):
    centre, size = out[:, :2], out[:, 2:].exp()
    return torch.cat([centre - size / 2, centre + size / 2], -1)


INSTEAD = {
    "a loss alone": lambda out, *_: out.square().mean(),
    "a loss in a mapping": lambda out, *_: {"loss": nn.functional.cross_entropy(out, out.argmax(-1).roll(1))},
    "a loss for each sample": lambda out, *_: out.square().mean(-1),
    "the class": lambda out, *_: out.argmax(-1),
    "the class and its probability": lambda out, *_: out.softmax(-1).max(-1),
    "classes one-hot": lambda out, *_: nn.functional.one_hot(out.argmax(-1), 4).to(out),
    "boxes": _boxes,
    "the features": lambda out, features, x: features,
    "an embedding of unit length": lambda out, *_: nn.functional.normalize(out, dim=-1),
    "a list of numbers": lambda out, *_: out.argmax(-1).tolist(),
    "text": lambda out, *_: [f"class {k}" for k in out.argmax(-1).tolist()],
    "nothing": lambda out, *_: None,
    "a distribution": lambda out, *_: torch.distributions.Categorical(logits=out),
}
NOT_TRAINED = {"the class", "classes one-hot", "a list of numbers", "text", "nothing", "a distribution"}


def _model(name):
    """The features are products: they are no function of one output of a linear layer, which would count as returned."""
    return Net(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 24), nn.GLU()), nn.Linear(12, 4), INSTEAD[name])


def _features(x, body):
    left, right = np.split(linear(relu(linear(x, body[0])), body[2]), 2, axis=-1)
    return left * sigmoid(right)


@shelf.entries({f"{name}, no head named": name for name in INSTEAD})
def _(name):
    right = Refusal(HeadError, offers=("head", "body.0", "body.2"), first="head")
    return Case(_model(name), torch.randn(80, 8), right, trains=name not in NOT_TRAINED)


@shelf.entries({f"{name}, the head named": name for name in INSTEAD})
def _(name):
    model, x = _model(name), torch.randn(80, 8)
    features = _features(x, model.body)
    right = Answer("head", features, linear(features, model.head), returned="")
    return Case(model, x, right, {"head": "head"}, trains=name not in NOT_TRAINED)


@shelf.entry("logits brought to a higher resolution, the head named")
def _():
    body = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU())
    model = Net(body, nn.Conv2d(8, 3, 1), lambda out, *_: nn.functional.interpolate(out, scale_factor=2.0, mode="bilinear"))
    x = torch.randn(10, 2, 6, 6)
    features = np.concatenate([relu(convolution(image, body[0])).reshape(8, -1).T for image in x])
    right = Answer("head", features, linear(features, model.head), returned="", row="position")
    return Case(model, x, right, {"head": "head"})


@shelf.entry("an inner layer, named")
def _():
    model, x = _model("the features"), torch.randn(80, 8)
    features = relu(linear(x, model.body[0]))
    right = Answer("body.2", features, linear(features, model.body[2]), returned="")
    return Case(model, x, right, {"head": "body.2"})


@shelf.entry("an activation, named")
def _():
    """Any module can be the head; what it computes need not be linear."""
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Tanh()), torch.randn(80, 8)
    features = linear(x, model[0])
    return Case(model, x, Answer("1", features, np.tanh(features), linear=False), {"head": "1"})


@shelf.entry("a name that is no module")
def _():
    return Case(_model("nothing"), torch.randn(80, 8), Refusal(HeadError, ("'fc'",), ("head",)), {"head": "fc"}, trains=False)


@shelf.entry("a module that does not run")
def _():
    model = _model("nothing")
    model.spare = nn.Linear(3, 2)
    return Case(model, torch.randn(80, 8), Refusal(HeadError, ("spare", "did not run")), {"head": "spare"}, trains=False)


@shelf.entry("a trained model that decodes: class and score, the head is a 1×1 convolution")
def _():
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.score, self.threshold = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 3, 1), 0.5

        def forward(self, x):
            best = self.score(torch.relu(self.body(x))).sigmoid().flatten(2).max(-1)
            return [{"score": score[score > self.threshold]} for score in best.values]

    model, x = Detector(), torch.randn(10, 2, 6, 6)
    features = np.concatenate([relu(convolution(image, model.body)).reshape(8, -1).T for image in array(x)])
    right = Answer("score", features, linear(features, model.score), returned="", row="position")
    return Case(model, x, right, {"head": "score"}, trains=False)
