"""How many rows there are: rows are counted and cut where they were captured, whatever the inputs look like."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lazyrich import DataError

from .by_hand import array, encoder_layer, gru, linear, lstm, relu
from .entries import Answer, Case, Refusal, Shelf, split
from .plain import Recurrent
from .tagging import Tagger, hidden_by_hand, padding, tokens

shelf = Shelf("counting rows")
targets = Shelf("integer targets")


@shelf.entry("time first, the first 20 samples of batches of 8")
def _():
    model, data = Recurrent(nn.GRU(4, 10)), [torch.randn(9, 8, 4) for _ in range(6)]
    features = np.stack([gru(batch[:, k], model.net)[-1] for batch in data for k in range(8)])[:20]
    return Case(model, data, Answer("fc", features, linear(features, model.fc), left_out=None), {"num_samples": 20})


@shelf.entry("time first with labels, the first 20 samples of batches of 8")
def _():
    model, data = Recurrent(nn.GRU(4, 10)), [(torch.randn(9, 8, 4), torch.arange(8) % 3) for _ in range(6)]
    features = np.stack([gru(x[:, k], model.net)[-1] for x, _ in data for k in range(8)])[:20]
    y = np.tile(np.arange(8) % 3, 6)[:20]
    return Case(model, data, Answer("fc", features, linear(features, model.fc), y, left_out=None), {"num_samples": 20})


@shelf.entry("packed sequences, the first 20 of batches of 3")
def _():
    model = Recurrent(nn.LSTM(4, 10))
    packs = [[torch.randn(length, 4) for length in (9, 7, 5)] for _ in range(12)]
    features = np.stack([lstm(sequence, model.net)[-1] for pack in packs for sequence in pack])[:20]
    right = Answer("fc", features, linear(features, model.fc), left_out=None)
    return Case(model, [pack_sequence(pack) for pack in packs], right, {"num_samples": 20})


@shelf.entry("packed sequences in a pair with labels, the first 20 of batches of 3")
def _():
    model = Recurrent(nn.LSTM(4, 10))
    packs = [[torch.randn(length, 4) for length in (9, 7, 5)] for _ in range(12)]
    features = np.stack([lstm(sequence, model.net)[-1] for pack in packs for sequence in pack])[:20]
    y = np.tile(np.arange(3), 12)[:20]
    data = [(pack_sequence(pack), torch.arange(3)) for pack in packs]
    return Case(model, data, Answer("fc", features, linear(features, model.fc), y, left_out=None), {"num_samples": 20})


@shelf.entry("patches first, the first 20 samples of batches of 8")
def _():
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.place, self.layer = nn.Parameter(torch.randn(5, 1, 16)), nn.TransformerEncoderLayer(16, 4, 24)
            self.fc = nn.Linear(16, 3)

        def forward(self, x):
            return self.fc(self.layer(x + self.place)[0])

    model, data = Patches(), [torch.randn(5, 8, 16) for _ in range(4)]
    place = array(model.place)[:, 0]
    samples = [encoder_layer(array(batch)[:, k] + place, model.layer)[0] for batch in data for k in range(8)]
    features = np.stack(samples)[:20]
    return Case(model, data, Answer("fc", features, linear(features, model.fc), left_out=None), {"num_samples": 20})


class Shared(nn.Module):
    """Looks its inputs up in a table that comes with every batch."""

    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, index, table):
        return self.head(torch.tanh(self.fc(table[index])))


@shelf.entries({f"a table of {n} rows, shared by batches of 8": n for n in (8, 30)})
def _(n):
    model, table = Shared(), torch.randn(n, 6)
    index = [torch.randint(n, (8,)) for _ in range(4)]
    features = np.tanh(linear(array(table)[torch.cat(index)[:20].numpy()], model.fc))
    data = [{"index": i, "table": table} for i in index]
    return Case(model, data, Answer("head", features, linear(features, model.head), left_out=None), {"num_samples": 20})


@shelf.entry("positions of the first 7 texts")
def _():
    """A sample is a text, also where each of its positions is a row."""
    ids, mask, model = tokens(), padding(), Tagger(classes=5)
    features = hidden_by_hand(model, ids)[:7][mask[:7].numpy() > 0]
    right = Answer("head", features, linear(features, model.head), row="position", left_out=None)
    return Case(model, list(split({"input_ids": ids, "attention_mask": mask}, 5)), right, {"num_samples": 7})


def _perceptron():
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    x, y = torch.randn(61, 6), torch.arange(61) % 3
    features = np.tanh(linear(x, model[0]))
    return model, x, y, features, linear(features, model[2])


ARRANGED: dict[str, Any] = {
    "batches of unequal size": lambda x, y: list(zip(x.split([1, 30, 2, 28]), y.split([1, 30, 2, 28]), strict=True)),
    "an empty batch among them": lambda x, y: list(zip(x.split([30, 0, 31]), y.split([30, 0, 31]), strict=True)),
    "one sample a batch": lambda x, y: list(split((x, y), 1)),
    "a loader with a ragged last batch": lambda x, y: DataLoader(TensorDataset(x, y), 16),
    "a loader that shuffles": lambda x, y: DataLoader(TensorDataset(x, y), 16, shuffle=True),
    "an iterator": lambda x, y: iter(list(split((x, y), 16))),
    "labels as a column": lambda x, y: (x, y[:, None]),
    "labels of eight bits": lambda x, y: (x, y.to(torch.uint8)),
}


UNTRAINED = {ARRANGED["an iterator"], ARRANGED["an empty batch among them"]}


@shelf.entries(ARRANGED)
def _(arrange):
    model, x, y, features, outputs = _perceptron()
    data = arrange(x, y)
    return Case(model, data, Answer("2", features, outputs, y.numpy()), trains=arrange not in UNTRAINED)


@shelf.entries({f"the first {n} of batches of unequal size": n for n in (20, 31, 61, 500)})
def _(n):
    model, x, y, features, outputs = _perceptron()
    data = list(zip(x.split([1, 30, 2, 28]), y.split([1, 30, 2, 28]), strict=True))
    right = Answer("2", features[:n], outputs[:n], y.numpy()[:n], left_out=None)
    return Case(model, data, right, {"num_samples": n})


def _share(collate=None):
    """The second of two processes: 11 samples, of which the last fills up what the data lack."""
    dataset = TensorDataset(torch.randn(21, 9, 4))
    sampler = DistributedSampler(dataset, num_replicas=2, rank=1, shuffle=False)
    return dataset.tensors[0][1::2], DataLoader(dataset, 4, sampler=sampler, collate_fn=collate)


@shelf.entry("a share of the data, filled up by its sampler")
def _():
    (x, data), model = _share(), Recurrent(nn.GRU(4, 10, batch_first=True))
    features = np.stack([gru(sample, model.net)[-1] for sample in x])
    return Case(model, data, Answer("fc", features, linear(features, model.fc), left_out=None))


@shelf.entry("a share of the data, filled up by its sampler, time first")
def _():
    (x, data), model = _share(lambda items: torch.stack([item[0] for item in items], 1)), Recurrent(nn.GRU(4, 10))
    features = np.stack([gru(sample, model.net)[-1] for sample in x])
    return Case(model, data, Answer("fc", features, linear(features, model.fc), left_out=None))


@shelf.entry("two tensors as a list, as a loader hands them out")
def _():
    """It is a pair, not two batches."""
    model, x, y, features, outputs = _perceptron()
    return Case(model, [x, y], Answer("2", features, outputs, y.numpy()))


@shelf.entry("no data")
def _():
    return Case(_perceptron()[0], [], Refusal(DataError), trains=False)


# --- integers: class labels or real targets, decided once -------------------------------------------------------------


def _counts(y, outputs=1, size=7):
    model, x = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, outputs)), torch.randn(len(y), 6)
    features = relu(linear(x, model[0]))
    return model, list(split((x, y), size)), features, linear(features, model[2])


@targets.entries({f"counts, one output, batches of {size}": size for size in (7, 40)})
def _(size):
    y = torch.arange(40) % 4
    model, data, features, outputs = _counts(y, size=size)
    return Case(model, data, Answer("2", features, outputs, targets=array(y)[:, None]))


@targets.entry("counts, one output, zeros and ones in the first batches alone")
def _():
    y = torch.cat([torch.arange(28) % 2, torch.arange(12) % 5])
    model, data, features, outputs = _counts(y)
    return Case(model, data, Answer("2", features, outputs, targets=array(y)[:, None]))


@targets.entry("zeros and ones, one output: two classes")
def _():
    y = torch.arange(40) % 2
    model, data, features, outputs = _counts(y)
    return Case(model, data, Answer("2", features, outputs, labels=y.numpy()))


@targets.entry("zeros and ones, one output, the first batches all zero")
def _():
    y = (torch.arange(40) >= 20).long()
    model, data, features, outputs = _counts(y)
    return Case(model, data, Answer("2", features, outputs, labels=y.numpy()))


@targets.entry("real targets, three outputs")
def _():
    y = torch.randn(40, 3)
    model, data, features, outputs = _counts(y, outputs=3)
    return Case(model, data, Answer("2", features, outputs, targets=array(y)))


@targets.entry("several labels a sample")
def _():
    y = torch.tensor([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)] * 5)
    model, data, features, outputs = _counts(y, outputs=3)
    return Case(model, data, Answer("2", features, outputs, targets=array(y)))


@targets.entry("a batch of several labels in which each sample happens to have one")
def _():
    """Whether rows of zeros and ones are classes is decided for all of the data, not by its first batch."""
    y = torch.cat([torch.eye(3, dtype=torch.long)[torch.arange(14) % 3], torch.tensor([[1, 1, 0], [0, 0, 0]] * 13)])
    model, data, features, outputs = _counts(y, outputs=3)
    return Case(model, data, Answer("2", features, outputs, targets=array(y)))


@targets.entry("a label beyond the outputs")
def _():
    model, data, *_ = _counts(torch.arange(40) % 5, outputs=3)
    return Case(model, data, Refusal(DataError, ("3", "outputs")), trains=False)
