"""The monitor in others' training loops."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lazyrich
from lazyrich import DataError
from lazyrich.results.series import SeriesFolder

pytestmark = [pytest.mark.filterwarnings("ignore")]  # Lightning's and Transformers' own
PROGRAM = [sys.executable, str(Path(__file__).parents[1] / "lightning_program.py")]
HERE = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A fit on one process: its folder, trainer and callback."""
    from lightning_program import fit

    out = tmp_path_factory.mktemp("one")
    return out, *fit(str(out), 1)


def column(path, name):
    with path.open() as file:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(file) if row[name]}


class TestLightning:
    def test_the_series_and_what_the_loggers_have(self, one):
        out, _, callback = one
        series = callback.monitor.series
        assert series.steps.tolist() == [0, 5, 10, 15, 16]
        assert series["epoch"][1:-1].tolist() == [4, 9, 14]
        logged = column(next(out.rglob("metrics.csv")), "richness/low_rank")
        assert logged == pytest.approx(dict(zip(series.steps.tolist(), series["low_rank"].tolist(), strict=True)))

        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(next(out.rglob("events.out*")).parent))
        events.Reload()
        found = {e.step: e.value for e in events.Scalars("richness/low_rank")}
        assert found == pytest.approx(logged, abs=1e-6)

    def test_it_is_the_trained_network_that_was_measured(self, one):
        from lightning_program import samples

        _, trainer, callback = one
        x, y = samples()
        r = lazyrich.measure(trainer.lightning_module.net, (x[:200], y[:200]))
        assert callback.monitor.series.last("low_rank") == pytest.approx(r.low_rank, abs=1e-12)

    def test_two_processes_have_the_numbers_of_one(self, one, tmp_path):
        done = subprocess.run([*PROGRAM, str(tmp_path), "2"], capture_output=True, text=True, env=HERE)
        assert done.returncode == 0, done.stderr
        two, single = SeriesFolder(tmp_path).read(), SeriesFolder(one[0]).read()
        assert two.steps.tolist() == single.steps.tolist()
        for name in ("low_rank", "low_rank_corrected", "low_rank_stderr", "balanced", "output_rank"):
            np.testing.assert_allclose(two[name], single[name], atol=1e-9)
        logged = column(next(tmp_path.rglob("metrics.csv")), "richness/low_rank")
        assert list(logged.values()) == pytest.approx(two["low_rank"].tolist())

    def test_a_fit_goes_on_and_so_does_the_series(self, tmp_path):
        from lightning_program import fit

        trainer, _ = fit(str(tmp_path), 1, epochs=8)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        _, callback = fit(str(tmp_path), 1, epochs=16, checkpoint=str(tmp_path / "last.ckpt"))
        assert callback.monitor.series.steps.tolist() == [0, 5, 8, 10, 15, 16]
        assert SeriesFolder(tmp_path).read().steps.tolist() == [0, 5, 8, 10, 15, 16]

    def test_errors(self):
        from lazyrich.integrations.lightning import RichnessCallback

        with pytest.raises(TypeError, match="no option evry; it takes data, prefix, measures and every, preset, out"):
            RichnessCallback(evry=3)
        with pytest.raises(RuntimeError, match="training has not started"):
            RichnessCallback().running  # noqa: B018


class Sentences(torch.utils.data.Dataset):
    def __init__(self, n):
        g = torch.Generator().manual_seed(0)
        self.items = [
            {"input_ids": torch.randint(1, 50, (int(k % 5) + 6,), generator=g).tolist(), "labels": int(k % 3)} for k in range(n)
        ]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, k):
        return self.items[k]


def collate(items, pad=0):
    width = max(len(item["input_ids"]) for item in items)
    ids = torch.full((len(items), width), pad)
    mask = torch.zeros(len(items), width, dtype=torch.long)
    for row, item in enumerate(items):
        ids[row, : len(item["input_ids"])] = torch.tensor(item["input_ids"])
        mask[row, : len(item["input_ids"])] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([item["labels"] for item in items])}


def strict(items):
    assert all(set(item) == {"input_ids", "labels"} for item in items)
    return collate(items)


@pytest.fixture
def make_trainer(tmp_path):
    transformers = pytest.importorskip("transformers")

    def make(steps_of=2, **options):
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=16, num_labels=3,
        )  # fmt: skip
        arguments = transformers.TrainingArguments(
            str(tmp_path), num_train_epochs=2, per_device_train_batch_size=8, gradient_accumulation_steps=steps_of, report_to=[],
            logging_steps=4, use_cpu=True, save_strategy="no", disable_tqdm=True, seed=0,
        )  # fmt: skip
        given = {"train_dataset": Sentences(96), "data_collator": collate, **options}
        return transformers.Trainer(transformers.BertForSequenceClassification(config), arguments, **given)

    return make


class TestTransformers:
    def test_the_series_is_in_the_log_history(self, make_trainer):
        from lazyrich.integrations.transformers import RichnessCallback

        trainer = make_trainer()
        callback = RichnessCallback(trainer, every=5, preset="standard", num_samples=64)
        trainer.add_callback(callback)
        trainer.train()
        logged = {e["step"]: e["richness/low_rank"] for e in trainer.state.log_history if "richness/low_rank" in e}
        assert list(logged) == [0, 5, 10, 12]  # 96 sentences, batches of 8, two at a time, twice
        assert list(logged.values()) == callback.monitor.series["low_rank"].tolist()
        r = lazyrich.measure(trainer.model, [collate(trainer.train_dataset.items[:64])])
        assert logged[12] == pytest.approx(r.low_rank, abs=1e-6)
        assert any("richness/nc1" in e for e in trainer.state.log_history)

    def test_training_is_the_same(self, make_trainer):
        from lazyrich.integrations.transformers import RichnessCallback

        weights = []
        for watched in (False, True):
            trainer = make_trainer()
            if watched:
                trainer.add_callback(RichnessCallback(trainer, every=1))
            trainer.train()
            weights.append(trainer.model.state_dict())
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    def test_which_data(self, make_trainer):
        from lazyrich.integrations.transformers import RichnessCallback

        other = Sentences(30)
        for trainer, data in (
            (make_trainer(eval_dataset=other), None),
            (make_trainer(eval_dataset={"a": other, "b": Sentences(9)}), None),
            (make_trainer(), other),
            (make_trainer(), torch.utils.data.DataLoader(other, batch_size=7, collate_fn=collate)),
        ):
            callback = RichnessCallback(trainer, data)
            callback.begin(trainer.model, callback._probe(), 0)
            expected = lazyrich.measure(trainer.model, [collate(other.items)]).low_rank
            assert callback.monitor.series.last("low_rank") == pytest.approx(expected, abs=1e-5)

    def test_columns_that_the_model_does_not_take(self, make_trainer):
        from lazyrich.integrations.transformers import RichnessCallback

        data = Sentences(20)
        expected = collate(data.items)
        data.items = [{**item, "text": "…", "input_length": 3} for item in data.items]
        callback = RichnessCallback(make_trainer(train_dataset=data, data_collator=strict))
        (batch,) = torch.utils.data.DataLoader(data, batch_size=20, collate_fn=callback._collated)
        assert batch.keys() == expected.keys()
        callback.begin(callback.trainer.model, callback._probe(), 0)
        assert "low_rank" in callback.monitor.evaluations[0].values

    def test_errors(self, make_trainer):
        from lazyrich.integrations.transformers import RichnessCallback

        with pytest.raises(TypeError, match="trainer must be a transformers.Trainer, got Linear"):
            RichnessCallback(nn.Linear(2, 2))
        trainer = make_trainer(train_dataset=None)
        with pytest.raises(DataError, match="neither an evaluation nor a training set"):
            RichnessCallback(trainer).on_train_begin(None, trainer.state, None)
