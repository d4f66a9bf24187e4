"""The monitor as a callback of Transformers' ``Trainer``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

from torch import nn
from torch.utils.data import DataLoader

from .._support.extras import needs
from ..errors import DataError
from ..model.linear import unwrapped
from .monitored import Monitored

needs("transformers", "transformers")
from transformers import Trainer, TrainerCallback  # noqa: E402

_LABELS = ("label", "label_ids")  # a collator renames these to labels


class RichnessCallback(Monitored, TrainerCallback):
    """Measure during ``trainer.train`` and log through the trainer: to its history, TensorBoard, and whatever it reports to.

    A step is an optimizer step, however many gradients are accumulated.

    Args:
        trainer: the trainer that gets the callback: ``trainer.add_callback(RichnessCallback(trainer))``.
        data: the probe set: a dataset of samples, which are collated as the trainer does it, or a DataLoader of batches. By
            default the trainer's evaluation set, or else its training set.
        prefix: what precedes the names in the log, ``"richness/"``; two callbacks need different ones.
        measures: names of the numbers to log, or "all"; by default the eight of :meth:`lazyrich.Richness.logged` and those that
            ``extra`` names. The series holds all numbers.
        **options: as for :class:`lazyrich.Monitor`: ``every``, ``preset``, ``out``, ``num_samples``, ``head``, ``rows``,
            ``forward``, ``targets``, ``ignore_index``, ``layout``, ``alarms``.

    Attributes:
        monitor: the monitor of the last training, None before the first.

    Raises:
        TypeError: ``trainer`` is not a Trainer; an option has an unknown name.
    """

    def __init__(self, trainer: Trainer, data: Any = None, **options: Any) -> None:
        super().__init__(**options)
        if not isinstance(trainer, Trainer):
            raise TypeError(f"trainer must be a transformers.Trainer, got {type(trainer).__name__}")
        self.trainer, self.data = trainer, data

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the network before the first step."""
        self.begin(self._model, self._probe(), state.global_step)
        self._log()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step."""
        self.running.step(state.global_step, epoch=int(state.epoch or 0))
        self._log()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the trained network."""
        self.running.close()
        self._log()

    @property
    def _model(self) -> nn.Module:
        if not isinstance(self.trainer.model, nn.Module):
            raise TypeError("the trainer has no model")
        return self.trainer.model

    def _log(self) -> None:
        for _, values in self.to_log():
            self.trainer.log(values)

    def _probe(self) -> Any:
        data = self.data
        if data is None:
            data = self.trainer.eval_dataset
            data = next(iter(data.values()), None) if isinstance(data, dict) else data  # of several named sets the first
            data = self.trainer.train_dataset if data is None else data
        if data is None:
            raise DataError("data: the trainer has neither an evaluation nor a training set; pass a probe set")
        if isinstance(data, DataLoader):
            return data
        return DataLoader(cast(Any, data), batch_size=self.trainer.args.per_device_eval_batch_size, collate_fn=self._collated)

    def _collated(self, samples: list[Any]) -> Any:
        """Collate a batch as the trainer does: without the columns that are no arguments of the model."""
        if self.trainer.args.remove_unused_columns:
            taken = {*inspect.signature(unwrapped(self._model).forward).parameters, *_LABELS, *self.trainer.label_names}
            samples = [
                {name: value for name, value in sample.items() if name in taken} if isinstance(sample, Mapping) else sample
                for sample in samples
            ]
        return self.trainer.data_collator(samples)
