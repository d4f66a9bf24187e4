"""The monitor as a callback of Lightning's ``Trainer``."""

from __future__ import annotations

import warnings
from typing import Any

from .._support.extras import needs
from .monitored import Monitored

needs("lightning", "lightning")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the import itself may warn
    from lightning.pytorch import Callback, LightningModule, Trainer


class RichnessCallback(Monitored, Callback):
    """Measure during ``trainer.fit`` and log through every logger of the trainer, as ``richness/low_rank`` and so on.

    Each process measures its share of the probe set and gets the same numbers; the loggers write them once. A fit that is
    resumed from a checkpoint continues the series in ``out``.

    Args:
        data: the probe set, as for :class:`lazyrich.Monitor`; None: the training batches themselves.
        prefix: what precedes the names in the log, ``"richness/"``; two callbacks need different ones.
        measures: names of the numbers to log, or "all"; by default the eight of :meth:`lazyrich.Richness.logged` and those that
            ``extra`` names. The series holds all numbers.
        **options: as for :class:`lazyrich.Monitor`: ``every``, ``preset``, ``out``, ``num_samples``, ``head``, ``rows``,
            ``forward``, ``targets``, ``ignore_index``, ``layout``, ``alarms``.

    Attributes:
        monitor: the monitor of the last fit, None before the first.

    Example:
        >>> from lazyrich import schedules
        >>> callback = RichnessCallback(every=schedules.epochs(1), preset="standard")  # Trainer(callbacks=[callback])
    """

    def __init__(self, data: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.data = data

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the network before the first step."""
        self.begin(pl_module, self.data, trainer.global_step)
        self._log(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the step, unless gradients are still being accumulated."""
        if trainer.global_step != self.running.now:
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            self.running.step(trainer.global_step, loss=loss, epoch=trainer.current_epoch, batch=batch)
            self._log(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the trained network."""
        self.running.close()
        self._log(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the network, if ``trainer.validate`` was called by itself."""
        self._alone(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the network that ``trainer.test`` has tested."""
        self._alone(trainer, pl_module)

    def _alone(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn not in ("validate", "test"):
            return
        data = self.data
        if data is None:
            loaders = trainer.val_dataloaders if trainer.state.fn == "validate" else trainer.test_dataloaders
            data = loaders[0] if isinstance(loaders, (list, tuple)) else loaders
        self.begin(pl_module, data, trainer.global_step)
        self.running.close()
        self._log(trainer)

    def _log(self, trainer: Trainer) -> None:
        for step, values in self.to_log():
            for logger in trainer.loggers:
                logger.log_metrics(values, step=step)
