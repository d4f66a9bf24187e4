"""Labels of positions and of samples: which rows count because of them."""

import numpy as np
import torch
from torch import nn

from lazyrich import DataError

from .by_hand import array, convolution, linear, relu
from .entries import Answer, Case, Net, Refusal, Shelf, split
from .tagging import Bare, Tagger, padding, positions, tokens, unshifted

shelf = Shelf("labels and ignored labels")
WEIGHTS = (0.2, 1.0, 3.0)


def _tags(ignored=-100):
    ids, y = tokens(), torch.randint(3, (12, 8))
    y[:, ::2] = ignored
    return ids, y


LOSSES = {
    "cross-entropy": unshifted,
    "weighted cross-entropy": lambda out, y: nn.functional.cross_entropy(
        out.flatten(0, 1), y.flatten(), torch.tensor(WEIGHTS).to(out)
    ),
    "summed cross-entropy": lambda out, y: nn.functional.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="sum"),
    "label smoothing": lambda out, y: nn.functional.cross_entropy(out.flatten(0, 1), y.flatten(), label_smoothing=0.1),
    "a second loss on the logits": lambda out, y: unshifted(out, y) + 1e-3 * out[y >= 0].logsumexp(-1).square().mean(),
}


@shelf.entries({f"tokens in a mapping, the model returns {name}": loss for name, loss in LOSSES.items()})
def _(loss):
    (ids, y), model = _tags(), Tagger(loss, classes=3)
    right = positions(model, ids, y >= 0, y, counted="positions with a label")
    return Case(model, [{"input_ids": ids, "labels": y}], right)


@shelf.entry("tokens in a pair")
def _():
    (ids, y), model = _tags(), Bare(classes=3)
    return Case(model, (ids, y), positions(model, ids, y >= 0, y, counted="positions with a label"))


@shelf.entry("tokens, with a mask: both must keep a position")
def _():
    (ids, y), mask, model = _tags(), padding(), Tagger(unshifted, classes=3)
    right = positions(model, ids, (y >= 0) & (mask > 0), y, counted="positions with a label that the mask keeps")
    return Case(model, list(split({"input_ids": ids, "attention_mask": mask, "labels": y}, 5)), right)


@shelf.entry("tokens of which one batch has no label at all")
def _():
    (ids, y), model = _tags(), Tagger(unshifted, classes=3)
    y[6:] = -100
    right = positions(model, ids, y >= 0, y, counted="positions with a label")
    return Case(model, list(split({"input_ids": ids, "labels": y}, 6)), right, trains=False)


@shelf.entries({f"tokens, with ignore_index={value}": value for value in (255, -1)})
def _(value):
    (ids, y), model = _tags(ignored=value), Bare(classes=3)
    right = positions(model, ids, y != value, y, counted="positions with a label")
    return Case(model, (ids, y), right, {"ignore_index": value})


@shelf.entry("label 255 without ignore_index")
def _():
    ids, y = _tags(ignored=255)
    return Case(Bare(classes=3), (ids, y), Refusal(DataError, ("255", "ignore_index")))


@shelf.entries({f"samples with ignored labels, {form}": form for form in ("in a pair", "in batches", "in a mapping")})
def _(form):
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

        def forward(self, x, labels=None):
            out = self.head(torch.tanh(self.fc(x)))
            return out if labels is None else {"loss": nn.functional.cross_entropy(out, labels), "logits": out}

    model, x, y = Classifier(), torch.randn(60, 6), torch.arange(60) % 3
    y[::4] = -100
    features, kept = np.tanh(linear(x, model.fc)), y.numpy() >= 0
    data = {"in a pair": (x, y), "in batches": list(split((x, y), 7)), "in a mapping": [{"x": x, "labels": y}]}[form]
    outputs = linear(features, model.head)[kept]
    right = Answer("head", features[kept], outputs, y.numpy()[kept], left_out=15, counted="samples with a label")
    return Case(model, data, right)


def _segmenter():
    body = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU())
    x = torch.randn(10, 2, 6, 6)
    features = np.concatenate([relu(convolution(image, body[0])).reshape(8, -1).T for image in array(x)])
    return Net(body, nn.Conv2d(8, 3, 1)), x, features


@shelf.entry("segmentation: a label for every pixel, some ignored")
def _():
    (model, x, features), y = _segmenter(), torch.randint(3, (10, 4, 4))
    y[:, :, 0] = 255
    kept = (y != 255).flatten().numpy()
    outputs = linear(features, model.head)[kept]
    right = Answer("head", features[kept], outputs, y.flatten().numpy()[kept], row="position", left_out=40,
                   counted="pixels with a label")  # fmt: skip
    return Case(model, (x, y), right, {"ignore_index": 255})


@shelf.entry("segmentation with a channel of labels (n, 1, h, w)")
def _():
    (model, x, features), y = _segmenter(), torch.randint(3, (10, 1, 4, 4))
    outputs = linear(features, model.head)
    return Case(model, (x, y), Answer("head", features, outputs, y.flatten().numpy(), row="position"))


@shelf.entry("segmentation: logits of a lower resolution than the labels")
def _():
    (model, x, features), y = _segmenter(), torch.randint(3, (10, 8, 8))
    right = Answer("head", features, linear(features, model.head), row="position", note="labels")
    return Case(model, (x, y), right)


@shelf.entry("multiple choice: one score for each choice, one label for each question")
def _():
    class Choice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(6, 12), nn.Linear(12, 1)

        def forward(self, x, labels=None):
            scores = self.head(torch.tanh(self.fc(x.flatten(0, 1)))).view(len(x), -1)
            return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}

    model, x = Choice(), torch.randn(20, 4, 6)
    features = np.tanh(linear(x, model.fc)).reshape(-1, 12)
    right = Answer("head", features, linear(features, model.head), row=None, note="labels", counted="every choice")
    return Case(model, [{"x": x, "labels": torch.arange(20) % 4}], right)


@shelf.entry("labels one-hot")
def _():
    model, x, y = Net(nn.Sequential(nn.Linear(6, 12), nn.Tanh()), nn.Linear(12, 3)), torch.randn(60, 6), torch.arange(60) % 3
    features = np.tanh(linear(x, model.body[0]))
    one_hot = nn.functional.one_hot(y).to(x)
    return Case(model, (x, one_hot), Answer("head", features, linear(features, model.head), y.numpy()))


@shelf.entry("one-dimensional convolution: labels (n, T), logits (n, C, T)")
def _():
    body = nn.Sequential(nn.Conv1d(2, 8, 3), nn.ReLU())
    model, x, y = Net(body, nn.Conv1d(8, 3, 1)), torch.randn(12, 2, 9), torch.randint(3, (12, 7))
    y[:, -2:] = -100
    kept = (y >= 0).flatten().numpy()
    features = np.concatenate([relu(convolution(sample, body[0])).T for sample in array(x)])[kept]
    right = Answer("head", features, linear(features, model.head), y.flatten().numpy()[kept], row="position", left_out=24)
    return Case(model, (x, y), right)


@shelf.entry("fewer labels than samples")
def _():
    data = [(torch.randn(12, 6), torch.arange(11) % 3)]
    return Case(nn.Linear(6, 3), data, Refusal(DataError, ("11", "12")), trains=False)
