"""Whatever is measured comes back as it was: modes, parameters, buffers, attributes, devices, random states, switches."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..errors import DataError
from .snapshot import Snapshot


@contextmanager
def undisturbed(model: nn.Module, data: object, device: torch.device | str | None) -> Iterator[torch.device]:
    """Evaluation mode without gradients, on a device; afterwards, and after an exception, everything is as it was.

    That is: the mode of every module, restored through ``train(mode)`` where a class overrides it (adapters merge there);
    parameters and buffers bit for bit, also those that the forward pass writes; tensors, containers, counters and flags in plain
    attributes; the device of the parameters; the random states of torch, numpy and python, and the generator of the data loader;
    grad mode, inference mode and the switch of the fused transformer path, which is off meanwhile because it skips submodules.

    Raises:
        DataError: a lazy module that no batch has initialised, a device that does not exist, a model spread over several devices.
    """
    lazy = [name for name, x in (*model.named_parameters(), *model.named_buffers()) if is_lazy(x)]
    if lazy:
        raise DataError(
            f"{lazy[0].rpartition('.')[0]!r} of {type(model).__name__} is lazy and has no shape yet: "
            "run the model on one batch before measuring it"
        )
    devices = {x.device for x in (*model.parameters(), *model.buffers())}
    home = next(iter(devices), torch.device("cpu"))
    target = home if device is None else _device(device)
    moves = bool(devices) and devices != {target} and device is not None
    if moves and len(devices) > 1:
        raise DataError(f"device={device!s}: the model is spread over {sorted(map(str, devices))}; pass device=None")
    states = [(g, g.get_state()) for g in _generators(data)]
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's, to be put back
    gpus = [d for d in {home, target} if d.type == "cuda"]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[torch.cuda.current_device() if d.index is None else d for d in gpus]))
        stack.callback(np.random.set_state, numpy_state)
        stack.callback(random.setstate, python_state)
        for generator, state in states:
            stack.callback(generator.set_state, state)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(Snapshot(model).restore)
        if moves:
            stack.callback(model.to, home)
            model.to(target)
        model.eval()
        if "torch._dynamo" in sys.modules:  # compiled code does not run hooks that were added later
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield target


def _device(device: torch.device | str) -> torch.device:
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise DataError(f"device={device!r} is not a device that PyTorch knows, such as cpu, cuda:0 or mps") from error
    try:
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError) as error:  # each kind of device raises its own
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DataError(f"device={device!r} is not available ({reason}); use another, such as cpu") from error
    return found


def _generators(data: object) -> list[torch.Generator]:
    holders = (data, getattr(data, "sampler", None), getattr(getattr(data, "batch_sampler", None), "sampler", None))
    generators = [getattr(holder, "generator", None) for holder in holders]
    return list({id(g): g for g in generators if isinstance(g, torch.Generator)}.values())
