"""What stood in the way of the callbacks."""

import pytest
import torch
from torch import nn

import lazyrich

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


@pytest.fixture
def lightning():
    return pytest.importorskip("lightning.pytorch")


class Kept:
    """A logger that remembers what it was given."""

    def __init__(self, lightning):
        from lightning.pytorch.loggers.logger import DummyLogger

        class Logger(DummyLogger):
            def __init__(self):
                super().__init__()
                self.names = set()

            def log_metrics(self, metrics, step=None):
                self.names |= set(metrics)

        self.logger = Logger()


def prepared(lightning, callbacks, precision="32-true"):
    """A trainer and a module, in full precision of the given kind."""

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, index):
            self.net(batch[0])

        test_step = validation_step

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    torch.manual_seed(0)
    kept = Kept(lightning).logger
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=2, logger=kept, callbacks=callbacks, precision=precision, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    dataset = torch.utils.data.TensorDataset(torch.randn(64, 6), torch.arange(64) % 3)
    return trainer, Module(), torch.utils.data.DataLoader(dataset, 16), kept


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_probes_in_float32(lightning, precision):
    """Lightning casts its own batches; the probe set is cast alike."""
    from lazyrich.integrations.lightning import RichnessCallback

    torch.manual_seed(0)
    callback = RichnessCallback((torch.randn(64, 6), torch.arange(64) % 3), every=1)
    trainer, module, loader, _ = prepared(lightning, [callback], precision)
    trainer.fit(module, loader)
    assert callback.monitor.series.steps.tolist() == [0, 1, 2]
    assert 0 < callback.monitor.series.last("low_rank") < 1


def test_two_callbacks_log_under_names_of_their_own(lightning):
    from lazyrich.integrations.lightning import RichnessCallback

    torch.manual_seed(0)
    probes = [torch.randn(64, 6), torch.randn(64, 6) + 1]
    callbacks = [RichnessCallback(probes[0], every=1), RichnessCallback(probes[1], every=1, prefix="shifted/")]
    trainer, module, loader, kept = prepared(lightning, callbacks)
    trainer.fit(module, loader)
    assert {"richness/low_rank", "shifted/low_rank"} <= kept.names


@pytest.mark.parametrize("call", ["validate", "test"])
def test_an_evaluation_alone_is_measured(lightning, call):
    from lazyrich.integrations.lightning import RichnessCallback

    torch.manual_seed(0)
    x = torch.randn(64, 6)
    callback = RichnessCallback(x)
    trainer, module, loader, kept = prepared(lightning, [callback])
    getattr(trainer, call)(module, loader, verbose=False)
    assert callback.monitor.series.last("low_rank") == pytest.approx(lazyrich.measure(module.net, x).low_rank, rel=1e-6)
    assert "richness/low_rank" in kept.names
