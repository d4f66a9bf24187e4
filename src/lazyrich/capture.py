"""Runs a model over data and takes what its head sees: the features, the outputs, and nothing else.

`Tap` finds the head and hooks it; `captured` is the loop over batches; `undisturbed` puts everything back.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from .batches import Batch, tensors_in
from .errors import DataError, HeadError


@dataclass(frozen=True)
class Captured:
    """One batch as the measures take it, one row a sample."""

    features: Tensor
    outputs: Tensor
    targets: Tensor | None
    positions: bool  # rows are positions (tokens, pixels) of the inputs, not the inputs themselves


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map of the last (or the channel) dimension, which a head must be."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return (
            module.groups == 1
            and all(size == 1 for size in (*module.kernel_size, *module.stride))
            and not any(module.padding if isinstance(module.padding, tuple) else ())
        )
    if isinstance(module, nn.Linear):
        return True
    # transformers' Conv1D is a Linear with its weight transposed
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and getattr(module, "weight", torch.empty(0)).ndim == 2


def head_parameters(head: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """Weight (C, p) and bias (C,) of a linear head; None where it is not one."""
    if not is_linear(head):
        return None, None
    weight, bias = getattr(head, "weight", None), getattr(head, "bias", None)
    if not isinstance(weight, Tensor):
        return None, None
    weight = weight.T if type(head).__name__ == "Conv1D" else weight.flatten(1)
    return weight.detach(), bias.detach() if isinstance(bias, Tensor) else None


@dataclass
class _Call:
    name: str
    module: nn.Module
    given: Tensor
    returned: Tensor


class Tap:
    """Finds a model's head on the first batch and takes its input and output on every batch.

    Args:
        model: any module (not a wrapper; see :func:`unwrapped`).
        head: a module of the model, its dotted name, or None for the last linear layer that ran.
    """

    def __init__(self, model: nn.Module, head: nn.Module | str | None = None) -> None:
        self.model = model
        self._names = {module: name or "(the model itself)" for name, module in model.named_modules()}
        self.head: nn.Module | None = None if head is None else self._named(head)
        self._taken: tuple[Tensor, Tensor] | None = None

    @property
    def name(self) -> str:
        """Dotted name of the head."""
        return "" if self.head is None else self._names[self.head]

    def run(self, batch: Batch) -> Captured:
        """One forward pass; the head is looked for if it is not known yet."""
        returned = self._search(batch) if self.head is None else self._forward(batch, [self.head])
        if self._taken is None:
            raise HeadError(
                f"the head {self.name!r} did not run in the forward pass of {type(self.model).__name__}; "
                f"pass another head. {self._candidates()}"
            )
        features, outputs = self._taken
        self._taken = None
        return _rows(self.head, features, outputs, returned, batch)

    def _named(self, head: nn.Module | str) -> nn.Module:
        if isinstance(head, str):
            try:
                return self.model.get_submodule(head)
            except AttributeError:
                raise HeadError(f"head={head!r} is not a module of {type(self.model).__name__}. {self._candidates()}") from None
        if not isinstance(head, nn.Module):
            raise TypeError(f"head must be a module, its dotted name or None, got {type(head).__name__}")
        if head not in self._names:
            raise HeadError(f"head={type(head).__name__} is not a part of {type(self.model).__name__}. {self._candidates()}")
        return head

    def _candidates(self, modules: list[nn.Module] | None = None) -> str:
        found = modules if modules is not None else [m for m in self._names if is_linear(m)]
        if not found:
            return "The model has no linear layer (nn.Linear, 1×1 convolution, transformers' Conv1D)."
        return "Candidates: " + "; ".join(f"head={self._names[m]!r} ({_describe(m)})" for m in found)

    def _forward(self, batch: Batch, watched: list[nn.Module], calls: list[_Call] | None = None) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = next(tensors_in((args, kwargs)), None)
            returned = next(tensors_in(output), None)
            if given is None or returned is None:
                return
            # copies, for whatever follows may write into them in place
            self._taken = (given.detach().clone(), returned.detach().clone())
            if calls is not None:
                calls.append(_Call(self._names[module], module, given, returned))

        with ExitStack() as stack:
            for module in watched:
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
            return batch.feed(self.model)

    def _search(self, batch: Batch) -> Any:
        """The head is the linear layer whose output the model returns, else the last that ran, if that is unambiguous."""
        candidates = [m for m in self._names if is_linear(m)]
        if not candidates:
            raise HeadError(f"no head found in {type(self.model).__name__}. {self._candidates()} Pass head=.")
        calls: list[_Call] = []
        returned = self._forward(batch, candidates, calls)
        if not calls:
            raise HeadError(
                f"none of the linear layers of {type(self.model).__name__} was called as a module in the forward pass. "
                f"{self._candidates()} Pass head= as a module that is called."
            )
        fed = {_storage(call.given) for call in calls}
        final = {_storage(x) for x in tensors_in(returned)}
        heads = _unique([c.module for c in calls if _storage(c.returned) in final and _storage(c.returned) not in fed])
        last = calls[-1]
        if not heads:
            beside = [c.module for c in calls if _storage(c.given) == _storage(last.given) and c.given.shape == last.given.shape]
            heads = _unique([m for m in beside if all(_storage(c.returned) not in fed for c in calls if c.module is m)])
        if len(heads) > 1:
            raise HeadError(f"{type(self.model).__name__} has more than one head: say which. {self._candidates(heads)}")
        direct = bool(heads) and any(_storage(c.returned) in final for c in calls if c.module is heads[0])
        if not direct and self._taken is not None and not _follows(returned, self._taken[1]):
            raise HeadError(
                f"{type(self.model).__name__} returns something other than what its last linear layer computes "
                f"({self._names[last.module]!r}); say which is the head. {self._candidates()}"
            )
        self.head = heads[0] if heads else last.module
        if self.head is not last.module:  # what was taken last is another layer's
            return self._forward(batch, [self.head])
        return returned


def _describe(module: nn.Module) -> str:
    text = str(module).split("\n")[0]
    return text if len(text) <= 80 else type(module).__name__


def _follows(returned: Any, outputs: Tensor) -> bool:
    """Whether what the model returns is, in every row, in the order of the outputs, as after a softmax or a sigmoid.

    It is not when something else was added, as a low-rank adapter beside the head does. Returns of another shape tell nothing.
    """
    same = [x for x in tensors_in(returned) if x.shape == outputs.shape and x.is_floating_point()]
    steps = [x.gather(-1, outputs.argsort(-1)).diff(dim=-1) for x in same]
    return not same or any(bool((s >= 0).all()) or bool((s <= 0).all()) for s in steps)


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _unique(modules: list[nn.Module]) -> list[nn.Module]:
    return list(dict.fromkeys(modules))


def _rows(head: nn.Module | None, features: Tensor, outputs: Tensor, returned: Any, batch: Batch) -> Captured:
    """Brings what the head saw to one row a sample."""
    if isinstance(head, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        channel = -1 - len(head.kernel_size)
        features, outputs = features.movedim(channel, -1), outputs.movedim(channel, -1)
    for name, x in (("input", features), ("output", outputs)):
        if not x.is_floating_point():
            raise TypeError(f"the head's {name} has dtype {x.dtype}; features and outputs must be real floating point")
    if outputs.ndim == 1:
        features, outputs = features.unsqueeze(0), outputs.unsqueeze(0)
    if features.shape[:-1] != outputs.shape[:-1]:
        raise HeadError(
            f"the head maps {tuple(features.shape)} to {tuple(outputs.shape)}: it is not a linear map of the last dimension; "
            "pass head= as the last linear layer"
        )
    samples, width = len(outputs), outputs.shape[-1]
    places = outputs[..., 0].numel() // max(samples, 1)
    if outputs.ndim == 2 or places == 1:
        return Captured(features.flatten(0, -2), outputs.flatten(0, -2), batch.sample_targets(samples), False)

    # The head ran at many places of every input: tokens of a sequence, pixels of a map.
    features, outputs = features.flatten(1, -2), outputs.flatten(1, -2)
    answers = [x for x in tensors_in(returned) if x.shape == (samples, width) and x.is_floating_point()]
    everywhere = any(x.numel() == outputs.numel() and len(x) == samples for x in tensors_in(returned))
    if everywhere or not answers:
        targets, keep = batch.position_targets(samples, places)
        features, outputs = features.flatten(0, 1), outputs.flatten(0, 1)
        if keep is not None:
            keep = keep.to(features.device)
            features, outputs = features[keep], outputs[keep]
            targets = None if targets is None else targets[keep.to(targets.device)]
        return Captured(features, outputs, targets, True)
    answer = answers[0].detach()
    targets = batch.sample_targets(samples)
    chosen = (outputs == answer.unsqueeze(1)).all(-1)  # one place was picked, as GPT-2 classifiers pick the last token
    if bool(chosen.any(1).all()):
        place = chosen.int().argmax(1)
        row = torch.arange(samples, device=features.device)
        return Captured(features[row, place], outputs[row, place], targets, False)
    if isinstance(head, nn.Linear) and not torch.allclose(outputs.mean(1).to(answer), answer, rtol=1e-2, atol=1e-3):
        raise HeadError(
            f"the head ran at {places} places of every input and the model returned one answer of shape {tuple(answer.shape)} "
            "that is neither one of them nor their mean; pool the features before the head, or pass another head="
        )
    return Captured(features.mean(1), outputs.mean(1), targets, False)  # exact for a linear head


@contextmanager
def undisturbed(model: nn.Module, data: object, device: torch.device | str | None) -> Iterator[torch.device]:
    """Evaluation mode without gradients, on a device; afterwards, and after an exception, all is as it was.

    That is: the mode of every module, the place of the parameters, the random states of torch, numpy and python, and the
    generator of the data loader.
    """
    modes = {module: module.training for module in model.modules()}
    places = {x.device for x in (*model.parameters(), *model.buffers())}
    home = next(iter(places), torch.device("cpu"))
    target = home if device is None else _device(device)
    moves = bool(places) and places != {target} and device is not None
    if moves and len(places) > 1:
        raise DataError(f"device={device!s}: the model is spread over {sorted(map(str, places))}; leave device=None")
    generators = _generators(data)
    states = [(g, g.get_state()) for g in generators]
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's, to be put back
    gpus = [d for d in {home, target} if d.type == "cuda"]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[torch.cuda.current_device() if d.index is None else d for d in gpus]))
        stack.callback(np.random.set_state, numpy_state)
        stack.callback(random.setstate, python_state)
        for generator, state in states:
            stack.callback(generator.set_state, state)
        if moves:
            stack.callback(model.to, home)
            model.to(target)
        for module, training in modes.items():
            stack.callback(setattr, module, "training", training)
        model.eval()
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # compiled code does not run hooks that were added later
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield target


def _device(device: torch.device | str) -> torch.device:
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise DataError(f"device={device!r} is not a device that PyTorch knows, such as cpu, cuda:0 or mps") from error


def _generators(data: object) -> list[torch.Generator]:
    holders = (data, getattr(data, "sampler", None), getattr(getattr(data, "batch_sampler", None), "sampler", None))
    found = [getattr(holder, "generator", None) for holder in holders]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
