"""Masks: that of the sequence which the head reads; one that does not fit is an error that names ``rows=``."""

import numpy as np
import torch
from torch import nn

from lazyrich import DataError

from .by_hand import array, convolution, linear, relu
from .entries import Answer, Case, Refusal, Shelf, split
from .tagging import Tagger, hidden_by_hand, padding, positions, tokens, unshifted

shelf = Shelf("masks")
two_sequences = Shelf("encoder–decoder")
KEPT = "positions that the mask keeps"


@shelf.entries({f"padding on the {side}": side for side in ("right", "left")})
def _(side):
    ids, mask, model = tokens(), padding(side=side), Tagger(classes=5)
    data = list(split({"input_ids": ids, "attention_mask": mask}, 5))
    return Case(model, data, positions(model, ids, mask, counted=KEPT))


@shelf.entries({f"mask of type {name}": name for name in ("bool", "float32", "uint8")})
def _(name):
    ids, mask, model = tokens(), padding(), Tagger(classes=5)
    data = [{"input_ids": ids, "attention_mask": mask.to(getattr(torch, name))}]
    return Case(model, data, positions(model, ids, mask, counted=KEPT))


@shelf.entry("mask next to the inputs in a pair with labels")
def _():
    ids, mask, model = tokens(), padding(), Tagger(classes=3)
    y = torch.randint(3, (12, 8))
    right = positions(model, ids, mask, y, counted=f"{KEPT}, with a label")
    return Case(model, [({"input_ids": ids, "attention_mask": mask}, y)], right)


class Pooled(Tagger):
    """One answer a text: the mean over the tokens that count."""

    def forward(self, input_ids, attention_mask, labels=None):
        share = attention_mask.to(self.head.weight)
        h = (self.hidden(input_ids) * share.unsqueeze(-1)).sum(1) / share.sum(1, keepdim=True)
        return {"logits": self.head(h)}


@shelf.entry("one answer a text: the mask is the model's own business")
def _():
    ids, mask, model = tokens(24), padding(24), Pooled(classes=3)
    features = np.stack([h[m > 0].mean(0) for h, m in zip(hidden_by_hand(model, ids), mask.numpy(), strict=True)])
    y = torch.arange(24) % 3
    right = Answer("head", features, linear(features, model.head), y.numpy())
    return Case(model, [{"input_ids": ids, "attention_mask": mask, "labels": y}], right)


class Audio(nn.Module):
    """Frames of a waveform: the mask is in samples, the answers are in frames."""

    def __init__(self):
        super().__init__()
        self.frames, self.head = nn.Conv1d(1, 16, 4), nn.Linear(16, 5)

    def forward(self, input_values, attention_mask=None):
        h = torch.relu(self.frames(input_values.unsqueeze(1))).transpose(1, 2)
        return {"logits": self.head(h)}

    def rows(self, x):
        features = np.stack([relu(convolution(sample[None], self.frames)).T for sample in array(x)])
        return features, linear(features, self.head)


def _audio():
    lengths = 6 + torch.arange(12) % 6
    return Audio(), torch.randn(12, 11), (torch.arange(11) < lengths[:, None]).long()


@shelf.entry("mask in samples, answers in frames")
def _():
    model, x, mask = _audio()
    return Case(model, [{"input_values": x, "attention_mask": mask}], Refusal(DataError, ("rows=",)), trains=False)


@shelf.entry("mask in samples, answers in frames, all of them asked for")
def _():
    model, x, mask = _audio()
    features, outputs = (y.reshape(-1, y.shape[-1]) for y in model.rows(x))
    right = Answer("head", features, outputs, row="position")
    return Case(model, [{"input_values": x, "attention_mask": mask}], right, {"rows": "all"})


@shelf.entry("mask in samples, answers in frames, by a function")
def _():
    model, x, mask = _audio()
    kept = np.stack([np.lib.stride_tricks.sliding_window_view(row, 4).all(1) for row in mask.numpy()])
    features, outputs = (y[kept] for y in model.rows(x))
    right = Answer("head", features, outputs, row="position", left_out=int((~kept).sum()), counted="frames within the mask")
    frames = {"rows": lambda batch: batch["attention_mask"].unfold(1, 4, 1).bool().all(-1)}
    return Case(model, list(split({"input_values": x, "attention_mask": mask}, 5)), right, frames)


class Prompted(Tagger):
    """Virtual tokens before the text, as prompt tuning adds them."""

    def __init__(self):
        super().__init__(classes=5)
        self.prompt = nn.Parameter(torch.randn(3, 16))

    def forward(self, input_ids, attention_mask=None):
        h = torch.cat([self.prompt.expand(len(input_ids), 3, 16), self.embed(input_ids)], 1)
        return {"logits": self.head(torch.tanh(self.mix(h)))}


@shelf.entry("virtual tokens before the text: the mask is too short")
def _():
    data = [{"input_ids": tokens(), "attention_mask": padding()}]
    return Case(Prompted(), data, Refusal(DataError, ("rows=",)), trains=False)


@shelf.entry("virtual tokens before the text, left out by a function")
def _():
    model, ids, mask = Prompted(), tokens(), padding()
    features = np.tanh(linear(array(model.embed.weight)[ids.numpy()], model.mix))[mask.numpy() > 0]
    right = Answer("head", features, linear(features, model.head), row="position", left_out=int((mask == 0).sum()) + 36)
    rows = {"rows": lambda batch: nn.functional.pad(batch["attention_mask"], (3, 0)) > 0}
    return Case(model, [{"input_ids": ids, "attention_mask": mask}], right, rows)


@shelf.entry("mask that keeps nothing of one batch")
def _():
    ids, mask, model = tokens(), padding(), Tagger(classes=5)
    mask[6:] = 0
    data = list(split({"input_ids": ids, "attention_mask": mask}, 6))
    return Case(model, data, positions(model, ids, mask, counted=KEPT))


@shelf.entry("mask that keeps nothing at all")
def _():
    data = [{"input_ids": tokens(), "attention_mask": torch.zeros(12, 8, dtype=torch.long)}]
    return Case(Tagger(classes=5), data, Refusal(DataError), trains=False)


# --- two sequences ----------------------------------------------------------------------------------------------------


class Translator(nn.Module):
    """Reads one sequence and answers at every position of another; its labels, shifted to the right, are what it reads there."""

    def __init__(self):
        super().__init__()
        self.embed, self.read, self.write, self.head = (
            nn.Embedding(12, 16),
            nn.Linear(16, 16),
            nn.Linear(16, 16),
            nn.Linear(16, 12),
        )

    def forward(self, input_ids, attention_mask=None, decoder_input_ids=None, decoder_attention_mask=None, labels=None):
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        source = torch.tanh(self.read(self.embed(input_ids))) * mask.unsqueeze(-1)
        if decoder_input_ids is None:
            decoder_input_ids = nn.functional.pad(labels.clamp_min(0)[:, :-1], (1, 0))
        h = torch.tanh(self.write(self.embed(decoder_input_ids) + source.mean(1, keepdim=True)))
        logits = self.head(h)
        return {"logits": logits} if labels is None else {"loss": unshifted(logits, labels), "logits": logits}

    def answer(self, batch, kept, labels=None, **more):
        embedded = array(self.embed.weight)
        source = np.tanh(linear(embedded[batch["input_ids"].numpy()], self.read))
        source = source * array(batch.get("attention_mask", torch.ones_like(batch["input_ids"])))[..., None]
        read = batch.get("decoder_input_ids")
        read = nn.functional.pad(batch["labels"].clamp_min(0)[:, :-1], (1, 0)) if read is None else read
        features = np.tanh(linear(embedded[read.numpy()] + source.mean(1, keepdims=True), self.write))
        kept = np.asarray(kept, dtype=bool)
        y = None if labels is None else labels.numpy()[kept]
        features, left_out = features[kept], int((~kept).sum())
        return Answer("head", features, linear(features, self.head), y, row="position", left_out=left_out, **more)


def _ragged(length=8):
    labels = tokens(length=length)
    return labels.masked_fill(torch.arange(length) >= 2 + torch.arange(12)[:, None] % 5, -100)


@two_sequences.entry("mask of the encoder, labels as long as its inputs")
def _():
    model, batch = Translator(), {"input_ids": tokens(), "attention_mask": padding(), "labels": tokens()}
    return Case(model, [batch], model.answer(batch, torch.ones(12, 8), batch["labels"]))


@two_sequences.entry("mask of the encoder, labels of another length")
def _():
    model, batch = Translator(), {"input_ids": tokens(), "attention_mask": padding(), "labels": tokens(length=5)}
    return Case(model, list(split(batch, 5)), model.answer(batch, torch.ones(12, 5), batch["labels"]))


@two_sequences.entry("mask of the encoder, labels padded")
def _():
    model, batch = Translator(), {"input_ids": tokens(), "attention_mask": padding(), "labels": _ragged()}
    right = model.answer(batch, batch["labels"] >= 0, batch["labels"], counted="positions with a label")
    return Case(model, [batch], right)


@two_sequences.entry("mask of the decoder")
def _():
    mask = (torch.arange(8) < 3).long().expand(12, 8).contiguous()
    model, batch = Translator(), {"input_ids": tokens(), "attention_mask": padding(), "labels": tokens()}
    batch["decoder_attention_mask"] = mask
    return Case(model, [batch], model.answer(batch, mask, batch["labels"], counted="positions that the decoder's mask keeps"))


@two_sequences.entry("mask of the decoder and padded labels: both must keep a position")
def _():
    model, batch = Translator(), {"input_ids": tokens(), "attention_mask": padding(), "labels": _ragged()}
    batch["decoder_attention_mask"] = padding(side="left")
    kept = (batch["labels"] >= 0) & (batch["decoder_attention_mask"] > 0)
    return Case(model, [batch], model.answer(batch, kept, batch["labels"]))


@two_sequences.entry("no labels: every position of the decoder")
def _():
    model = Translator()
    batch = {"input_ids": tokens(), "attention_mask": padding(), "decoder_input_ids": tokens()}
    return Case(model, [batch], model.answer(batch, torch.ones(12, 8)))


@two_sequences.entry("no labels, a mask of the decoder")
def _():
    model, mask = Translator(), padding()
    batch = {"input_ids": tokens(length=6), "decoder_input_ids": tokens(), "decoder_attention_mask": mask}
    return Case(model, [batch], model.answer(batch, mask, counted="positions that the decoder's mask keeps"))
