"""Fits a small network under Lightning on as many processes as it is told, with a monitor; for the tests."""

import logging
import sys
import warnings

warnings.simplefilter("ignore")
logging.getLogger("lightning").setLevel(logging.ERROR)

import lightning as L  # noqa: E402, N812
import torch  # noqa: E402
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger  # noqa: E402

from lazyrich.integrations.lightning import RichnessCallback  # noqa: E402

STRATEGY = "ddp_fork" if sys.platform == "linux" else "ddp_spawn"  # forked processes do not import everything again


class Network(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.Tanh(), torch.nn.Linear(20, 3)).double()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.5)


def samples():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(256, 6, generator=generator).double(), torch.randint(3, (256,), generator=generator)


def fit(out, processes, epochs=16, checkpoint=None, **options):
    data = torch.utils.data.TensorDataset(*samples())
    loader = torch.utils.data.DataLoader(data, batch_size=256 // processes)  # all of it, for Lightning shuffles where it shares
    callback = RichnessCallback(samples(), **{"every": 5, "num_samples": 200, "out": out, **options})
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=processes, strategy=STRATEGY if processes > 1 else "auto",
        logger=[CSVLogger(f"{out}/csv"), TensorBoardLogger(f"{out}/tensorboard")], callbacks=[callback],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(Network(), loader, ckpt_path=checkpoint)
    return trainer, callback


if __name__ == "__main__":
    fit(sys.argv[1], int(sys.argv[2]))
