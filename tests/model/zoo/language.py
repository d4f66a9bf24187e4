"""Language models: whose label a position's label is, is decided by the loss that the model itself returns."""

import torch
from torch import nn

from .entries import Case, Shelf, split
from .tagging import Bare, Tagger, padding, positions, shifted, tokens, unshifted

shelf = Shelf("language models")


def _next(labels):
    """The label of every position where the model shifts them: that of the next one; the last has none."""
    return torch.cat([labels[:, 1:], torch.full((len(labels), 1), -100)], dim=1)


def _smoothed(logits, labels):
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=0.1)


def _with_z(logits, labels):
    return shifted(logits, labels) + 1e-2 * logits[:, :-1][labels[:, 1:] >= 0].logsumexp(-1).square().mean()


def _summed(logits, labels):
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum") / 100


def _scaled(logits, labels):
    return 0.3 * shifted(logits, labels) + 0.01


def _weighted(logits, labels):
    weight = torch.linspace(0.5, 2, logits.shape[-1]).to(logits)
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), weight)


SHIFTED = {
    "cross-entropy": shifted,
    "label smoothing": _smoothed,
    "a penalty on the normaliser": _with_z,
    "a sum": _summed,
    "a multiple, with a constant": _scaled,
    "class weights": _weighted,
}
NEXT = "positions whose next token is a label"


@shelf.entries({f"labels shifted by the model, {name}": loss for name, loss in SHIFTED.items()})
def _(loss):
    ids, model = tokens(), Tagger(loss)
    y = _next(ids)
    return Case(model, [{"input_ids": ids, "labels": ids}], positions(model, ids, y >= 0, y, counted=NEXT))


@shelf.entries({f"prompts without labels, shifted by the model, {name}": SHIFTED[name] for name in list(SHIFTED)[:3]})
def _(loss):
    ids, model = tokens(), Tagger(loss)
    labels = ids.masked_fill(torch.arange(8) < 2 + torch.arange(12)[:, None] % 4, -100)
    y = _next(labels)
    data = list(split({"input_ids": ids, "labels": labels}, 5))
    return Case(model, data, positions(model, ids, y >= 0, y, counted=NEXT))


@shelf.entries({f"labels shifted by the model, padding on the {side}": side for side in ("right", "left")})
def _(side):
    ids, mask, model = tokens(), padding(side=side), Tagger(shifted)
    labels = ids.masked_fill(mask == 0, -100)
    y = _next(labels)
    right = positions(model, ids, (y >= 0) & (mask > 0), y, counted=f"{NEXT} and that the mask keeps")
    return Case(model, [{"input_ids": ids, "attention_mask": mask, "labels": labels}], right)


@shelf.entry("masked language model: labels at the masked tokens, not shifted")
def _():
    ids, model = tokens(), Tagger(unshifted)
    y = ids.masked_fill(torch.rand(12, 8) < 0.6, -100)
    ids = ids.masked_fill(y >= 0, 0)
    return Case(model, [{"input_ids": ids, "labels": y}], positions(model, ids, y >= 0, y, counted="positions with a label"))


@shelf.entry("labels that were shifted before")
def _():
    ids, model = tokens(length=9), Tagger(unshifted)
    ids, y = ids[:, :-1], ids[:, 1:]
    return Case(model, [{"input_ids": ids, "labels": y}], positions(model, ids, torch.ones(12, 8), y))


@shelf.entry("labels that were shifted before, in a pair")
def _():
    ids, model = tokens(length=9), Bare()
    ids, y = ids[:, :-1], ids[:, 1:]
    return Case(model, (ids, y), positions(model, ids, torch.ones(12, 8), y))


@shelf.entries({f"untrained, labels {name}": loss for name, loss in {"shifted": shifted, "not shifted": unshifted}.items()})
def _(loss):
    """Every answer is nearly as likely as every other: both readings give nearly the loss that is returned."""
    ids, model = tokens(), Tagger(loss)
    nn.init.normal_(model.head.weight, std=1e-9)
    nn.init.zeros_(model.head.bias)
    y = _next(ids) if loss is shifted else ids
    return Case(model, [{"input_ids": ids, "labels": ids}], positions(model, ids, y >= 0, y))


@shelf.entry("labels but no loss: labels are not used")
def _():
    ids, mask, model = tokens(), padding(), Tagger(None)
    right = positions(model, ids, mask, note="labels", counted="positions that the mask keeps")
    return Case(model, [{"input_ids": ids, "attention_mask": mask, "labels": ids}], right)


@shelf.entry("a loss that is detached: labels are not used")
def _():
    ids, model = tokens(), Tagger(lambda out, y: _smoothed(out, y).detach())
    right = positions(model, ids, torch.ones(12, 8), note="labels")
    return Case(model, [{"input_ids": ids, "labels": ids}], right)


@shelf.entry("a loss that leaves padding out by an index of its own")
def _():
    """Neither reading with the index -100 gives the loss that is returned; its gradient shows which positions count."""

    def loss(logits, labels):
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=0)

    ids, model = tokens(), Tagger(loss)
    ids = ids.masked_fill(padding() == 0, 0)
    y = _next(ids)
    return Case(model, [{"input_ids": ids, "labels": ids}], positions(model, ids, y > 0, y, counted=NEXT))


@shelf.entry("predicts the token after the next")
def _():
    """The loss is of two tokens ahead alone: no reading by one shift gives it, its gradient does."""
    ids, model = tokens(), Tagger(lambda out, y: unshifted(out[:, :-2], y[:, 2:]))
    y = torch.cat([ids[:, 2:], torch.full((12, 2), -100)], dim=1)
    return Case(model, [{"input_ids": ids, "labels": ids}], positions(model, ids, y >= 0, y))


@shelf.entry("reward model: one score at every token, no labels")
def _():
    ids, mask, model = tokens(), padding(), Tagger(None, classes=1)
    right = positions(model, ids, mask, counted="positions that the mask keeps")
    return Case(model, [{"input_ids": ids, "attention_mask": mask}], right)
