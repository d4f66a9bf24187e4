"""Whatever is measured comes back as it was: modes, devices, random states."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from ..errors import DataError


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
        raise DataError(f"device={device!s}: the model is spread over {sorted(map(str, places))}; pass device=None")
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
