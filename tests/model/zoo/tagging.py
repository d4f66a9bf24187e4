"""A network with an answer at every token, as Transformers models are called, and its rows by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .by_hand import array, linear
from .entries import Answer

VOCABULARY, WIDTH = 12, 16


def unshifted(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of every position with its own label."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def shifted(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of every position with the next label."""
    return unshifted(logits[:, :-1], labels[:, 1:])


class Tagger(nn.Module):
    """Each token sees those before it; with labels, ``loss`` turns logits and labels into a number.

    It returns a mapping, with the loss first where there is one.
    """

    def __init__(self, loss=None, classes=VOCABULARY, embeddings=VOCABULARY):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(embeddings, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, classes)
        self.loss = loss

    def hidden(self, input_ids: Tensor) -> Tensor:
        embedded = self.embed(input_ids)
        steps = torch.arange(1, embedded.shape[1] + 1).to(embedded)
        return torch.tanh(self.mix(embedded + embedded.cumsum(1) / steps[:, None]))

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.head(self.hidden(input_ids))
        if labels is None or self.loss is None:
            return {"logits": logits}
        return {"loss": self.loss(logits, labels), "logits": logits}


class Bare(Tagger):
    """The same network, called with its inputs alone; it returns a tensor."""

    def forward(self, input_ids):
        return self.head(self.hidden(input_ids))


def hidden_by_hand(model: Tagger, input_ids: Tensor) -> np.ndarray:
    """(n, T, p) features."""
    embedded = array(model.embed.weight)[input_ids.numpy()]
    before = np.stack([embedded[:, : t + 1].mean(1) for t in range(embedded.shape[1])], axis=1)
    return np.tanh(linear(embedded + before, model.mix))


def positions(model: Tagger, input_ids: Tensor, kept, labels=None, **more) -> Answer:
    """The answer where the rows are the positions that ``kept`` (n, T) holds, with the labels (n, T) of these."""
    kept = np.asarray(kept, dtype=bool)
    features = hidden_by_hand(model, input_ids)[kept]
    y = None if labels is None else np.asarray(labels)[kept]
    more = {"row": "position", "left_out": int((~kept).sum())} | more
    return Answer("head", features, linear(features, model.head), labels=y, **more)


def tokens(n: int = 12, length: int = 8, vocabulary: int = VOCABULARY) -> Tensor:
    """(n, length) token ids; 0 is left for padding."""
    return torch.randint(1, vocabulary, (n, length))


def padding(n: int = 12, length: int = 8, side: str = "right") -> Tensor:
    """(n, length) an attention mask that keeps between 2 and all tokens."""
    lengths = 2 + torch.arange(n) % (length - 1)
    mask = (torch.arange(length) < lengths[:, None]).long()
    return mask if side == "right" else mask.flip(1)
