"""Outputs that are returned through a function of them which is verified by value."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from .by_hand import linear
from .entries import SINGLE, Answer, Case, Net, Shelf

shelf = Shelf("returned through a function")


def _case(finish, outputs=6, *, body=None, returned="as it is", measured=lambda out: out, x=None):
    """Measured are the head's own outputs, or those returned where ``measured`` says so."""
    model = Net(body or nn.Sequential(nn.Linear(8, 16), nn.Tanh()), nn.Linear(16, outputs), finish)
    x = torch.randn(80, 8) if x is None else x
    features = np.tanh(linear(x, model.body[0]))
    return Case(model, x, Answer("head", features, measured(linear(features, model.head)), returned=returned))


SOFTMAX = {
    "softmax": lambda out, *_: out.softmax(-1),
    "softmax at a temperature": lambda out, *_: (out / 3).softmax(-1),
    "softmax in float32": lambda out, *_: out.float().softmax(-1),
    "log-softmax": lambda out, *_: out.log_softmax(-1),
    "softmax next to other tensors": lambda out, features, x: {"probabilities": out.softmax(-1), "features": features},
    "softmax over actions that are allowed": lambda out, f, x: out.masked_fill(x[:, :6] > 1, -torch.inf).softmax(-1),
}
INCREASING = {
    "sigmoid": lambda out, *_: out.sigmoid(),
    "hyperbolic tangent": lambda out, *_: out.tanh(),
    "temperature": lambda out, *_: out / 0.07,
    "soft-capping": lambda out, *_: 2 * torch.tanh(out / 2),
    "softplus": lambda out, *_: nn.functional.softplus(out),
    "exponential": lambda out, *_: out.exp(),
    "clamp": lambda out, *_: out.clamp(-0.3, 0.3),
    "clamp in place": lambda out, *_: out.clamp_(-0.3, 0.3),
    "ReLU": lambda out, *_: out.relu(),
    "ReLU in place": lambda out, *_: out.relu_(),
    "ReLU in place as a module": lambda out, *_: nn.ReLU(inplace=True)(out),
    "multiplied in place": lambda out, *_: out.mul_(0.5),
    "scaled and shifted, as actions are": lambda out, *_: 2 * out.tanh() + 1,
}
AS_IT_IS = {
    "the same tensor": lambda out, *_: out,
    "a copy": lambda out, *_: out.clone(),
    "detached": lambda out, *_: {"loss": out.square().mean(), "logits": out.detach()},
    "reshaped": lambda out, *_: out.reshape(-1, 2, 3),
    "transposed": lambda out, *_: out.T,
    "as contiguous memory after a transpose": lambda out, *_: out.T.contiguous(),
    "cast to float32": lambda out, *_: out.float(),
    "cast to float16": lambda out, *_: out.half(),
    "columns split into two tensors": lambda out, *_: (out[:, :2], out[:, 2:]),
    "columns split into a mapping": lambda out, *_: {"start": out[:, 0], "end": out[:, 1], "rest": out[:, 2:]},
    "columns split into one tensor each": lambda out, *_: [column.squeeze(-1) for column in out.split(1, dim=-1)],
    "samples in two tensors": lambda out, *_: (out[:30], out[30:]),
    "with the classes next to it": lambda out, *_: (out, out.argmax(-1)),
    "with its own softmax next to it": lambda out, *_: (out, out.softmax(-1)),
    "actions that are not allowed at minus infinity": lambda out, f, x: out.masked_fill(x[:, :6] > 1, -torch.inf),
}


@shelf.entries(SOFTMAX)
def _(finish):
    return _case(finish, returned="softmax")


@shelf.entries(INCREASING)
def _(finish):
    return _case(finish, returned="increasing function")


@shelf.entries(AS_IT_IS)
def _(finish):
    return _case(finish)


@shelf.entry("features overwritten afterwards")
def _():
    return replace(_case(lambda out, features, x: (out, features.zero_())[0]), trains=False)


SELECTED = {
    "the first columns": (lambda out, *_: out[:, :4], [0, 1, 2, 3]),
    "chosen columns": (lambda out, *_: out[..., [4, 1, 2]], [4, 1, 2]),
    "all columns but the last, in a mapping": (lambda out, *_: {"logits": out[:, :-1]}, [0, 1, 2, 3, 4]),
    "one column": (lambda out, *_: out[:, 2], [2]),
    "all columns in another order": (lambda out, *_: out[:, [3, 1, 5, 0, 2, 4]], [3, 1, 5, 0, 2, 4]),
}


@shelf.entries(SELECTED)
def _(how):
    finish, columns = how
    return _case(finish, returned="selected columns", measured=lambda out: out[:, columns])


@shelf.entry("a constant vector added, as in logit adjustment")
def _():
    shift = torch.randn(6)
    return _case(lambda out, *_: out + shift, returned="constant", measured=lambda out: out + shift.numpy())


@shelf.entry("a constant vector added in place")
def _():
    shift = torch.randn(6)
    return _case(lambda out, *_: out.sub_(shift), returned="constant", measured=lambda out: out - shift.numpy())


@shelf.entry("one bias for each output after a layer without")
def _():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head, self.bias = nn.Linear(8, 16), nn.Linear(16, 6, bias=False), nn.Parameter(torch.randn(6))

        def forward(self, x):
            return self.head(torch.tanh(self.fc(x))) + self.bias

    model, x = Shifted(), torch.randn(80, 8)
    features = np.tanh(linear(x, model.fc))
    outputs = linear(features, model.head) + model.bias.detach().numpy()
    return Case(model, x, Answer("head", features, outputs, returned="constant"))


ONE = {
    "one output, squeezed": (lambda out, *_: out.squeeze(-1), "as it is"),
    "one output, flattened": (lambda out, *_: out.flatten(), "as it is"),
    "one output, a probability": (lambda out, *_: out.sigmoid().squeeze(-1), "increasing function"),
    "one output, exponential": (lambda out, *_: out[:, 0].exp(), "increasing function"),
}


@shelf.entries(ONE)
def _(how):
    return _case(how[0], outputs=1, returned=how[1])


POSITIONS = {
    "mean over positions": (lambda out, *_: out.mean(1), lambda h: h.mean(1), "mean over positions", "sample"),
    "mean over positions, then softmax": (lambda out, *_: out.mean(1).softmax(-1), lambda h: h.mean(1), "", "sample"),
    "softmax at every position": (lambda out, *_: out.softmax(-1), lambda h: h.reshape(-1, 16), "softmax", "position"),
    "the last position": (lambda out, *_: out[:, -1], lambda h: h[:, -1], "selected", "sample"),
    "the first position, then softmax": (lambda out, *_: out[:, 0].softmax(-1), lambda h: h[:, 0], "", "sample"),
    "all positions but the first": (lambda out, *_: out[:, 1:], lambda h: h[:, 1:].reshape(-1, 16), "selected", "position"),
    "channels first": (lambda out, *_: out.transpose(1, 2), lambda h: h.reshape(-1, 16), "as it is", "position"),
    "positions and samples in one dimension": (lambda out, *_: out.flatten(0, 1), lambda h: h.reshape(-1, 16), "as it is", None),
}


@shelf.entries(POSITIONS)
def _(how):
    finish, rows, returned, row = how
    model, x = Net(nn.Sequential(nn.Linear(8, 16), nn.Tanh()), nn.Linear(16, 6), finish), torch.randn(20, 5, 8)
    features = rows(np.tanh(linear(x, model.body[0])))
    left_out = None if returned in ("selected", "") else 0  # positions that are not returned may count as left out, or not
    right = Answer("head", features, linear(features, model.head), returned=returned, row=row, left_out=left_out)
    return Case(model, x, right)


@shelf.entry("the last position that counts, chosen after the head")
def _():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(8, 16), nn.Linear(16, 6)

        def forward(self, x, attention_mask):
            out = self.head(torch.tanh(self.fc(x)))
            return out[torch.arange(len(x)), attention_mask.sum(1) - 1]

    model, x, lengths = Last(), torch.randn(24, 5, 8), 1 + torch.arange(24) % 5
    mask = (torch.arange(5) < lengths[:, None]).long()
    features = np.tanh(linear(x, model.fc))[np.arange(24), lengths.numpy() - 1]
    right = Answer("head", features, linear(features, model.head), returned="selected", left_out=None)
    return Case(model, [{"x": x, "attention_mask": mask}], right)


@shelf.entry("softmax of a network in float32")
def _():
    model = Net(nn.Sequential(nn.Linear(8, 16), nn.Tanh()), nn.Linear(16, 6), lambda out, *_: out.softmax(-1)).float()
    x = torch.randn(80, 8).float()
    features = np.tanh(linear(x, model.body[0]))
    outputs = linear(features, model.head)
    return Case(model, x, Answer("head", features, outputs, returned="softmax", tolerance=1e-5, eps=SINGLE))
