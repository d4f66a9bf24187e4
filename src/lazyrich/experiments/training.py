"""One training: seeded, with checkpoints, and resumed to the same bits.

All randomness (initialisation, order of the samples, augmentation, dropout) is a function of the seed and the step, and the
learning rate is a function of the step. Therefore a checkpoint needs only weights, optimizer and step.
"""

from __future__ import annotations

import copy
import time
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from .._support.progress import Bar
from ..errors import DataError, NonFiniteError
from .evaluation import evaluate_network
from .ingredients.data import Data, Images, augment
from .ingredients.seeds import derived, generator, seed_dropout
from .run_folder import RunFolder
from .setup import Setup

CHECKPOINT_SECONDS = 20.0


def train(setup: Setup, data: Data, seed: int, folder: RunFolder, fabric: Any, bar: Bar) -> None:
    """Train from the start, or from the checkpoint in the folder, to the last step; write every evaluation to the folder.

    Args:
        data: ``setup.data``, loaded with this seed.
        fabric: a launched ``lightning.fabric.Fabric``; several processes share every batch.
        bar: counts every step.

    Raises:
        DataError: the loss is not finite.
        OSError: the folder cannot be written.
    """
    with torch.random.fork_rng():
        network = _network(setup, data, seed)
        start = copy.deepcopy(network).to(fabric.device)
        conv = data.train.inputs.ndim == 4 and fabric.device.type != "cpu"
        network = network.to(memory_format=torch.channels_last) if conv else network  # pyright: ignore[reportCallIssue]
        optimizer = setup.optimizer.build(network, setup.model)
        model, fabric_optimizer = fabric.setup(network, optimizer)
        data = Data(data.train.to(fabric.device), data.test.to(fabric.device), data.num_classes)
        step = folder.resume(network, optimizer, fabric)
        bar.update(step)
        if step == 0:
            _evaluate(setup, data, network, start, 0, folder, fabric, bar)
        saved = time.monotonic()
        while step < setup.steps:
            step += 1
            _step(setup, data, seed, step, model, fabric_optimizer, fabric)
            bar.update()
            if step in setup.evaluate:
                _evaluate(setup, data, network, start, step, folder, fabric, bar)
            if step in setup.evaluate or time.monotonic() - saved > CHECKPOINT_SECONDS:
                folder.save(step, network, optimizer, fabric)
                saved = time.monotonic()
        folder.finish(fabric)


def _network(setup: Setup, data: Data, seed: int) -> nn.Module:
    torch.manual_seed(derived(seed, "start"))
    network = setup.model.build(data.train.inputs, data.num_classes)
    if setup.trained == "last layer":
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith("head."))
    return network


def _step(setup: Setup, data: Data, seed: int, step: int, model: Any, optimizer: Any, fabric: Any) -> None:
    rows = batch_rows(len(data.train), setup.batch_size, seed, step)[fabric.global_rank :: fabric.world_size]
    inputs, labels = data.train.inputs[rows.to(fabric.device)], data.train.labels[rows.to(fabric.device)]
    if isinstance(setup.data, Images) and setup.data.augmented:
        inputs = augment(inputs, derived(seed, "augmentation", step, fabric.global_rank))
    seed_dropout(derived(seed, "dropout", step, fabric.global_rank), fabric.device)
    setup.optimizer.set_rate(optimizer, step)
    optimizer.zero_grad()
    fabric.backward(setup.loss(model(inputs).float(), labels))
    optimizer.step()


def batch_rows(samples: int, batch_size: int, seed: int, step: int) -> Tensor:
    """The samples of step ``step`` (from 1). Each epoch has its own order; samples at its end that fill no batch are left out."""
    size = min(batch_size, samples)
    epoch, batch = divmod(step - 1, samples // size)
    return _order(samples, seed, epoch)[batch * size : (batch + 1) * size]


@lru_cache(maxsize=1)
def _order(samples: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(samples, generator=generator(seed, "order", epoch))


def _evaluate(
    setup: Setup, data: Data, network: nn.Module, start: nn.Module, step: int, folder: RunFolder, fabric: Any, bar: Bar
) -> None:
    try:
        evaluation = evaluate_network(network, start, data, setup, step, fabric)
    except NonFiniteError as error:
        raise DataError(
            f"{folder.name}: training diverged before step {step:,}: {error}. Lower the learning rate {setup.optimizer.rate:g}"
        ) from error
    folder.add(evaluation, fabric)
    if "low_rank" in evaluation.values:
        bar.note(f"D_LR {evaluation.values['low_rank']:.3f}, test {evaluation.values['test_accuracy']:.1%}")
