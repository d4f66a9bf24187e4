"""Checkpoints measured one after the other: the right ones, on the same data, whatever cuts it off."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_trace
import torch
from killed import Killable
from safetensors.torch import save_file
from small_trace import network, samples
from torch import nn

import lazyrich
from lazyrich import CheckpointError, DataError, trace
from lazyrich.cli.main import main
from lazyrich.model.checkpoints import load_checkpoint
from lazyrich.results.series import SeriesFolder
from lazyrich.training.checkpoint_steps import checkpoint_steps

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def saved(folder, steps=(0, 5, 20, 100)):
    """A checkpoint for each step, a network of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for step in steps:
        torch.save(network(step).state_dict(), folder / f"model_{step:04d}.pt")
    return folder


class TestSteps:
    @pytest.mark.parametrize(
        ("name", "step"),
        [
            ("step=100.ckpt", 100), ("model_0010.pt", 10), ("epoch=1-step=300.ckpt", 300), ("epoch=1-step=300-v1.ckpt", 300),
            ("epoch=3-val_loss=0.25.ckpt", 3), ("resnet18_v1.5_100.pth", 100), ("0.safetensors", 0),
            ("global_step2000.bin", 2000), ("5²5.pt", 5),  # a superscript is no digit of a number
        ],
    )  # fmt: skip
    def test_from_the_name(self, tmp_path, name, step):
        (tmp_path / name).touch()
        assert checkpoint_steps(tmp_path / name) == checkpoint_steps(tmp_path) == {step: tmp_path / name}

    def test_natural_order_of_a_folder_and_what_a_trainer_leaves_beside(self, tmp_path):
        for name in ("m9.pt", "m10.pt", "m100.pt", "optimizer.pt", "rng_state_0.pth", "training_args.bin", "notes.txt"):
            (tmp_path / name).touch()
        assert [p.name for p in checkpoint_steps(tmp_path).values()] == ["m9.pt", "m10.pt", "m100.pt"]
        assert list(checkpoint_steps(str(tmp_path / "m1*.pt"))) == [10, 100]
        assert list(checkpoint_steps([tmp_path / "m100.pt", tmp_path / "m9.pt"])) == [9, 100]
        assert [p.name for p in checkpoint_steps(tmp_path, [7, 3, 5]).values()] == ["m10.pt", "m100.pt", "m9.pt"]

    def test_folders_of_a_trainer(self, tmp_path):
        for name in ("checkpoint-500", "checkpoint-50"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "model.safetensors").touch()
        (tmp_path / "model.safetensors").touch()  # the last one again
        (tmp_path / "runs").mkdir()
        assert checkpoint_steps(tmp_path) == {50: tmp_path / "checkpoint-50", 500: tmp_path / "checkpoint-500"}
        assert list(checkpoint_steps(str(tmp_path / "checkpoint-*"))) == [50, 500]

    @pytest.mark.parametrize(
        ("names", "steps", "message"),
        [
            (["last.ckpt"], None, r"the name of .*last\.ckpt holds no number for its step: leave it out, or pass steps="),
            (["a-1.pt", "b-1.pt"], None, r"a-1\.pt and .*b-1\.pt are both of step 1: leave one out, or pass steps="),
            (["a.pt", "b.pt"], [1], r"1 were given for 2 checkpoints \(a\.pt, b\.pt\)"),
            (["a.pt", "b.pt"], [4, 4], "both of step 4"),
            (["a.pt"], [-1], "must not be negative, got -1"),
            ([], None, "holds no checkpoints"),
        ],
    )
    def test_errors(self, tmp_path, names, steps, message):
        for name in names:
            (tmp_path / name).touch()
        with pytest.raises(CheckpointError, match=message):
            checkpoint_steps(tmp_path, steps)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(CheckpointError, match="nothing matches"):
            checkpoint_steps(str(tmp_path / "*.pt"))
        with pytest.raises(CheckpointError, match=r"none\.pt does not exist"):
            checkpoint_steps(tmp_path / "none.pt")
        with pytest.raises(CheckpointError, match="no checkpoints were given"):
            checkpoint_steps([])


class TestTrace:
    def test_it_is_the_measure_of_every_checkpoint(self, tmp_path):
        model, data = network(77), samples()
        before = [p.clone() for p in model.parameters()]
        s = trace(model, saved(tmp_path / "c"), data, out=tmp_path / "out", layers="all")
        for place, step in enumerate((0, 5, 20, 100)):
            r = lazyrich.measure(network(step), data, start=network(0), layers="all")
            assert s.steps[place] == step
            for name, value in r.numbers().items():
                assert s[name][place] == pytest.approx(value, abs=1e-9), name  # rows in another order
            np.testing.assert_allclose(s.curves(place)["utilization"], r.spectrum.cumulative_utilization, rtol=1e-6)
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        assert trace(model, tmp_path / "c", data)["low_rank"].tolist() == s["low_rank"].tolist()

    def test_the_start(self, tmp_path):
        folder = saved(tmp_path / "c", (5, 20))
        instead = trace(network(), folder, samples())  # the first checkpoint stands for the start, which is said
        assert list(instead.notes) == [5]
        assert "the first checkpoint, model_0005.pt, is taken as the start of training" in instead.notes[5]
        s = trace(network(), folder, samples(), start=folder / "model_0005.pt")
        assert not s.notes
        assert s["laziness"].tolist() == instead["laziness"].tolist()
        assert s["laziness"][0] == pytest.approx(1, abs=1e-12)
        assert s["s_init"][0] == pytest.approx(1)
        assert s["parameter_distance"][0] == 0
        assert s["s_init"][1] < 0.99

    def test_the_laziness_ratio_is_that_of_the_present_outputs(self, tmp_path):
        s = trace(network(), saved(tmp_path / "c", (0, 20)), samples())
        assert s["laziness"][0] == pytest.approx(1, abs=1e-12)
        assert s["laziness"][1] == lazyrich.measure(network(20), samples(), start=network(0)).laziness

    def test_a_series_whose_first_checkpoint_is_not_given_again_has_no_start(self, tmp_path):
        folder = saved(tmp_path / "c", (5, 20, 100))
        trace(network(), [folder / "model_0005.pt", folder / "model_0020.pt"], samples(), out=tmp_path / "out")
        s = trace(network(), folder / "model_0100.pt", samples(), out=tmp_path / "out", resume=True)
        assert np.isnan(s["laziness"]).tolist() == [False, False, True]
        assert "the series begins with another checkpoint, of step 5; pass start=" in s.notes[100]
        again = trace(network(), folder, samples(), out=tmp_path / "again")
        assert np.isfinite(again["laziness"]).all()

    def test_every_checkpoint_sees_the_same_samples(self, tmp_path):
        folder = saved(tmp_path / "c", ())
        for step in (1, 2, 3):
            torch.save(network(0).state_dict(), folder / f"{step}.pt")
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*samples()), batch_size=32, shuffle=True)
        s = trace(network(), folder, loader, num_samples=60)
        assert len(set(s["low_rank"])) == 1
        assert s["num_samples"].tolist() == [60] * 3

    def test_dead_and_diverged_are_notes(self, tmp_path):
        folder = saved(tmp_path / "c", (0, 3))
        for step, value in ((1, 0.0), (2, float("nan"))):
            model = network()
            nn.init.constant_(model[0].weight, value)
            nn.init.constant_(model[0].bias, value)
            torch.save(model.state_dict(), folder / f"model_{step}.pt")
        s = trace(network(), folder, samples(), out=tmp_path / "out")
        assert list(s.notes) == [1, 2]
        assert "constant" in s.notes[1]
        assert "NaN" in s.notes[2]
        assert np.isfinite(s["low_rank"]).tolist() == [True, False, False, True]

    @pytest.mark.parametrize("wrong", [b"no checkpoint", None])
    def test_a_checkpoint_that_cannot_be_loaded_is_named_and_the_rest_kept(self, tmp_path, wrong):
        folder = saved(tmp_path / "c")
        path = folder / "model_0020.pt"
        path.write_bytes(wrong) if wrong else torch.save(nn.Linear(2, 2).state_dict(), path)
        with pytest.raises(CheckpointError, match=r"model_0020\.pt (is damaged|was refused|does not fit)"):
            trace(network(), folder, samples(), out=tmp_path / "out")
        assert SeriesFolder(tmp_path / "out").read().steps.tolist() == [0, 5]
        torch.save(network(20).state_dict(), path)
        s = trace(network(), folder, samples(), out=tmp_path / "out", resume=True)
        assert s["low_rank"].tolist() == trace(network(), folder, samples())["low_rank"].tolist()

    def test_wrong_arguments(self, tmp_path):
        folder = saved(tmp_path)
        with pytest.raises(TypeError, match="model must be a torch.nn.Module, got int"):
            trace(3, folder, samples())
        with pytest.raises(TypeError, match="head must be a dotted name, got Linear"):
            trace(network(), folder, samples(), head=network()[2])
        with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
            trace(network(), folder, samples(), num_samples=1)


class TestResume:
    def test_only_what_is_missing_is_measured(self, tmp_path, monkeypatch):
        folder = saved(tmp_path / "c", (0, 100))
        trace(network(), folder, samples(), out=tmp_path / "out")
        saved(folder, (50,))
        loaded = []
        module = sys.modules["lazyrich.training.trace"]  # the package exports the function of this name
        monkeypatch.setattr(
            module,
            "load_checkpoint",
            lambda model, path, **options: (loaded.append(path.name), load_checkpoint(model, path, **options)),
        )
        s = trace(network(), folder, samples(), out=tmp_path / "out", resume=True)
        assert loaded == ["model_0000.pt", "model_0050.pt"]  # the first as the start
        assert s.steps.tolist() == [0, 50, 100]
        assert s["low_rank"].tolist() == trace(network(), folder, samples())["low_rank"].tolist()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"data": samples(90)}, "data, samples differ"),
            ({"data": (samples()[0] + 1, samples()[1])}, "something else: data differ"),
            ({"model": nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))}, "model differ"),
            ({"head": "2"}, "head differ (head is None there and 2 here)"),
            ({"layers": ("0",)}, "layers differ"),
            ({"start": "c/model_0005.pt"}, "start differ"),
            ({"checkpoints": "other"}, "step 5 of another checkpoint than other/model_0005.pt"),
        ],
    )  # fmt: skip
    def test_something_else_is_refused(self, tmp_path, monkeypatch, change, message):
        monkeypatch.chdir(tmp_path)
        saved(Path("c"))
        given = {"model": network(), "checkpoints": "c", "data": samples(), "out": "out"}
        trace(**given)
        saved(Path("other"), (0,))
        torch.save(network(6).state_dict(), "other/model_0005.pt")
        lines = Path("out/evaluations.jsonl").read_bytes()
        with pytest.raises(DataError) as error:
            trace(**{**given, **change}, resume=True)
        assert message in str(error.value)
        assert Path("out/evaluations.jsonl").read_bytes() == lines

    def test_a_folder_that_is_taken(self, tmp_path):
        folder = saved(tmp_path / "c")
        trace(network(), folder, samples(), out=tmp_path / "out")
        with pytest.raises(DataError, match="holds a series already: pass resume=True to continue, or another out="):
            trace(network(), folder, samples(), out=tmp_path / "out")
        (tmp_path / "out/trace.json").write_text("[")
        with pytest.raises(DataError, match=r"trace\.json is not JSON.*delete its folder"):
            trace(network(), folder, samples(), out=tmp_path / "out", resume=True)
        (tmp_path / "out/trace.json").unlink()
        with pytest.raises(DataError, match="holds a series that is not a trace"):
            trace(network(), folder, samples(), out=tmp_path / "out", resume=True)


class TestKilled:
    @pytest.mark.parametrize("torn", [False, True])
    def test_at_several_writes(self, tmp_path, torn):
        """What was measured is there after every kill, and in the end the series is the same to the last byte."""
        steps = tuple(range(0, 120, 10))
        saved(tmp_path / "c", steps)
        (tmp_path / "whole").mkdir()
        saved(tmp_path / "whole/c", steps)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(
            [sys.executable, small_trace.__file__], env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes
        ) as program:
            runs, held = Killable(program), 0
            assert not runs(tmp_path / "whole")
            # a run writes what it is (after the first also the lines again); for each checkpoint curves, influences and a line
            for write in (4, 3, 10, 8, 9):
                assert runs(tmp_path, write, torn=torn)
                s = SeriesFolder(tmp_path / "out").read()
                assert held <= len(s) < len(steps)
                assert s.steps.tolist() == list(steps[: len(s)])
                assert all(s.curves(k) and s.influences(k) for k in range(len(s)))
                held = len(s)
            assert held > 3
            assert not runs(tmp_path)
            program.stdin.close()
        files = sorted(p.relative_to(tmp_path / "whole/out") for p in (tmp_path / "whole/out").rglob("*") if p.is_file())
        assert len(files) == 2 + 2 * len(steps)
        for file in files:
            if file.suffix == ".npz":  # a zip file, with the time in it
                with np.load(tmp_path / "out" / file) as a, np.load(tmp_path / "whole/out" / file) as b:
                    assert all(np.array_equal(a[name], b[name]) for name in b.files)
            else:
                assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole/out" / file).read_bytes()

    def test_a_line_that_was_cut_off(self, tmp_path):
        folder = saved(tmp_path / "c")
        trace(network(), folder, samples(), out=tmp_path / "out")
        lines = tmp_path / "out/evaluations.jsonl"
        whole = lines.read_bytes()
        lines.write_bytes(whole[:-25])
        trace(network(), folder, samples(), out=tmp_path / "out", resume=True)
        assert lines.read_bytes() == whole


class TestFormats:
    def same(self, a, b):
        assert all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())

    @pytest.mark.filterwarnings("ignore")  # Transformers' own
    @pytest.mark.parametrize("shard", ["1GB", "4KB"])
    def test_folders_of_transformers(self, tmp_path, shard):
        """Whole and in parts; the decoder is tied to the embedding and not saved twice."""
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=16,
        )  # fmt: skip
        torch.manual_seed(1)
        model = transformers.BertForMaskedLM(config)
        model.save_pretrained(tmp_path / "checkpoint-1", max_shard_size=shard)
        assert (tmp_path / "checkpoint-1/model.safetensors.index.json").is_file() == (shard == "4KB")
        other = transformers.BertForMaskedLM(config)
        load_checkpoint(other, tmp_path / "checkpoint-1")
        self.same(model, other)
        parts = sorted((tmp_path / "checkpoint-1").glob("model-*"))
        if parts:
            parts[0].unlink()
            with pytest.raises(CheckpointError, match=f"checkpoint-1 lacks {parts[0].name}"):
                load_checkpoint(other, tmp_path / "checkpoint-1")

    def test_a_damaged_index(self, tmp_path):
        (tmp_path / "model.safetensors.index.json").write_text("{}")
        with pytest.raises(CheckpointError, match="damaged index"):
            load_checkpoint(network(), tmp_path)

    def test_an_index_does_not_lead_out_of_its_folder(self, tmp_path):
        (tmp_path / "c").mkdir()
        save_file(network().state_dict(), tmp_path / "secret.safetensors")
        index = {"weight_map": {"0.weight": "../secret.safetensors"}}
        (tmp_path / "c/model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match=r"c lacks secret\.safetensors"):
            load_checkpoint(network(), tmp_path / "c")

    @pytest.mark.parametrize("written", ["module.0.weight", "0._orig_mod.weight", "net.0.weight", "net._orig_mod.0.weight"])
    @pytest.mark.parametrize("wanted", ["plain", "module"])
    def test_names_that_wrappers_and_trainers_add_to(self, tmp_path, written, wanted):
        torch.save({written: torch.full((1, 2), 3.0)}, tmp_path / "weights.pt")
        model = nn.Sequential(nn.Linear(2, 1, bias=False))
        if wanted == "module":
            outer = nn.Module()
            outer.module = model
            model = outer
        load_checkpoint(model, tmp_path / "weights.pt")
        assert next(model.parameters()).tolist() == [[3.0, 3.0]]

    def test_names_of_which_one_is_called_module(self, tmp_path):
        model = nn.Linear(2, 1, bias=False)
        model.module = nn.Linear(2, 1, bias=False)
        state = {"weight": torch.ones(1, 2), "module.weight": torch.zeros(1, 2)}
        torch.save(state, tmp_path / "weights.pt")
        load_checkpoint(model, tmp_path / "weights.pt")
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    @pytest.mark.filterwarnings("ignore")  # Lightning's own
    def test_checkpoints_of_lightning(self, tmp_path):
        import lightning as L  # noqa: N812
        from lightning_program import Network
        from lightning_program import samples as doubles

        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*doubles()), batch_size=64)
        keep = L.pytorch.callbacks.ModelCheckpoint(tmp_path / "c", save_top_k=-1, every_n_train_steps=2)
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", callbacks=[keep], logger=False, enable_progress_bar=False, enable_model_summary=False
        )
        trained = Network()
        trainer.fit(trained, loader)
        s = trace(Network().net, tmp_path / "c", doubles())
        assert s.steps.tolist() == [2, 4]
        assert s.last("low_rank") == pytest.approx(lazyrich.measure(trained.net, doubles()).low_rank, abs=1e-12)
        assert trace(Network(), tmp_path / "c", doubles())["low_rank"].tolist() == s["low_rank"].tolist()


class TestCommand:
    CODE = """
import torch
from small_trace import network, samples
build = network
def data():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*samples()), batch_size=64)
"""

    @pytest.fixture
    def project(self, tmp_path, monkeypatch):
        (tmp_path / "traced.py").write_text(self.CODE)
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        yield saved(tmp_path / "c").parent
        sys.modules.pop("traced", None)

    def test_series_table_and_picture(self, project, capsys):
        command = ["trace", "traced:build", "c", "--data", "traced:data", "--out", "out", "--no-progress", "--layers", "all"]
        assert main(command) == 0
        shown = capsys.readouterr()
        expected = trace(network(), "c", samples(), layers="all")
        assert SeriesFolder(Path("out")).read()["low_rank of 0"].tolist() == expected["low_rank of 0"].tolist()
        assert str(expected) in shown.out
        assert shown.err == ""
        assert Path("out/series.png").read_bytes()[:4] == b"\x89PNG"
        assert main(command) == 1
        assert "lazyrich: out holds a series already: pass --resume to continue, or another --out" in capsys.readouterr().err
        assert main([*command, "--resume"]) == 0
        assert main(["trace", "traced:build", "c/model_0005.pt", "c/model_0000.pt", "--steps", "9", "8",
                     "--data", "traced:data", "--out", "two"]) == 0  # fmt: skip
        assert "2 of 2 (100%) checkpoints" in capsys.readouterr().err
        s = SeriesFolder(Path("two")).read()
        assert s.steps.tolist() == [8, 9]
        assert s["low_rank"].tolist() == expected["low_rank"][:2].tolist()
