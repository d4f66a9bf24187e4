"""Files and names that mean harm, or are merely damaged: shown, refused by name, never obeyed.

The files are what `benchmarks/robustness/fuzz_readers.py` found to end in another error than the library's.
"""

import gzip
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import torch
from torch import nn

import lazyrich
from lazyrich import CheckpointError, DataError, Evaluation, Monitor
from lazyrich.cli.main import main
from lazyrich.experiments.ingredients import images
from lazyrich.experiments.run_folder import RunFolder
from lazyrich.model.checkpoints import load_checkpoint
from lazyrich.results.series import SeriesFolder

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")
RED = "\x1b[31mred\u202e"
SHOWN = "\\x1b[31mred\\u202e"


class Named(nn.Module):
    """Layers with a name that recolours the terminal."""

    def __init__(self):
        super().__init__()
        self.add_module(RED, nn.Linear(4, 8))
        self.add_module(RED + "2", nn.Linear(8, 3))

    def forward(self, x):
        return self._modules[RED + "2"](torch.tanh(self._modules[RED](x)))


@pytest.fixture(scope="module")
def result():
    torch.manual_seed(0)
    return lazyrich.measure(Named(), torch.randn(60, 4), layers="all")


class TestNames:
    def test_of_layers_and_results_in_tables(self, result):
        for text in (str(result), result.table(), result._repr_html_(), lazyrich.table({RED: result})):
            assert "\x1b" not in text
            assert "\u202e" not in text
            assert SHOWN in text

    def test_in_notes(self, result):
        values = result.to_dict() | {"notes": [f"a note {RED}\nD_LR 0.0"]}
        shown = lazyrich.Richness.from_dict(values).table().splitlines()
        assert f"! a note {SHOWN}\\nD_LR 0.0" in shown

    def test_columns_stay_aligned(self, result):
        lines = lazyrich.table({RED: result, "b": result}).splitlines()
        assert len({line.index(f"{result.low_rank:.4f}", 40) for line in lines if line.startswith("D_LR")}) == 1
        assert lines[0].index("b", lines[0].index(SHOWN) + len(SHOWN)) == lines[2].rindex(f"{result.low_rank:.4f}")

    @pytest.mark.parametrize(
        "arguments", [["measure", RED, "--data", "a:b"], ["run", RED], ["measure", f"{RED}:build", "--data", "a:b"]]
    )
    def test_in_errors_of_the_command_line(self, arguments, capsys):
        assert main(arguments) == 1
        shown = capsys.readouterr().err
        assert "\x1b" not in shown
        assert "\\x1b[31mred" in shown

    def test_on_progress_bars(self, capsys):
        from lazyrich._support.progress import progress_bar

        with progress_bar(True, total=2, text=RED, unit="") as bar:
            bar.text(RED)
            bar.note(RED)
            bar.update()
        shown = capsys.readouterr().err
        assert "\x1b[31m" not in shown
        assert SHOWN in shown

    def test_in_a_monitor(self):
        model = nn.Sequential(nn.Linear(4, 3))
        monitor = Monitor(model, torch.randn(20, 4))
        monitor.evaluations.append(Evaluation(7, {}, note=RED))
        assert str(monitor) == f"step 7: {SHOWN}"


def put(values, *path, value):
    for key in path[:-1]:
        values = values[key]
    values[path[-1]] = value


class TestResults:
    @pytest.mark.parametrize("text", ["[" * 200_000, '{"a": ' + "1" * 5000 + "}", "\ud800", '{"schema": "lazyrich.richness"'])
    def test_json_without_end(self, tmp_path, text):
        (tmp_path / "r.json").write_bytes(text.encode(errors="surrogatepass"))
        with pytest.raises(DataError, match=r"r\.json is not JSON"):
            lazyrich.load(tmp_path / "r.json")

    @pytest.mark.parametrize(
        ("path", "value", "match"),
        [
            (("low_rank",), 10**400, "low_rank is too large"),
            (("low_rank_interval",), [10**400, 1], "not a whole lazyrich result"),
            (("comparison", "rankme"), "x", "rankme must be a number, got 'x'"),
            (("comparison", "stable_rank"), None, "stable_rank must be a number"),
            (("comparison",), 3, "Comparison must be an object"),
            (("layers", "0"), {"low_rank": []}, "low_rank must be a number"),
            (("layers", "0"), [], "LayerRichness must be an object"),
            (("spectrum", "rank"), "x", "rank must be a whole number"),
            (("spectrum", "output_rank"), 10**400, "output_rank is too large"),
            (("spectrum", "eigenvalues"), [], "eigenvalues must be a list of numbers"),
            (("spectrum", "contributions"), [1.0], "contributions must be a list of numbers, one for each"),
            (("spectrum", "eigenvalues"), 1.0, "eigenvalues must be a list"),
            (("output_singular_values",), [], "output_singular_values must be above zero"),
            (("output_singular_values",), [1.0, 0.0, 0.0], "output_singular_values must be above zero"),
        ],
    )
    def test_values_of_another_kind(self, result, tmp_path, path, value, match):
        values = json.loads(json.dumps(result.to_dict()))
        put(values, *path, value=value)
        (tmp_path / "r.json").write_text(json.dumps(values))
        with pytest.raises(DataError, match=match):
            lazyrich.load(tmp_path / "r.json")

    def test_without_eigenvalues(self, result, tmp_path):
        values = json.loads(json.dumps(result.to_dict()))
        del values["spectrum"]["eigenvalues"]
        (tmp_path / "r.json").write_text(json.dumps(values))
        with pytest.raises(DataError, match="not a whole lazyrich result"):
            lazyrich.load(tmp_path / "r.json")


@pytest.mark.parametrize("step", [10**30, -1, 2**63])
def test_steps_that_are_none(tmp_path, step):
    (tmp_path / "evaluations.jsonl").write_text(json.dumps({"step": step, "values": {}}) + "\n")
    with pytest.raises(DataError, match=r"evaluations\.jsonl is damaged \(step"):
        SeriesFolder(tmp_path).read()


@pytest.mark.parametrize(
    "done", ['{"evaluations": 0}', '{"seconds": "x"}', '{"seconds": 1' + "0" * 400 + "}", "[" * 200_000, "3"]
)
def test_a_run_whose_mark_is_damaged(tmp_path, done):
    (tmp_path / "done.json").write_text(done)
    with pytest.raises(DataError, match=r"done\.json .*damaged"):
        RunFolder(tmp_path, "run").read()


class TestCheckpoints:
    @pytest.mark.parametrize(
        "content",
        [
            b"\x80\x02.",  # nothing on the stack
            b"\x80\x02}q\x00(X\x01\x00\x00\x00",  # cut inside a string
            b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01h\x01h\x01s.",  # a dictionary as a key
            b"\x80\x02h\x07.",  # what was never kept
        ],
    )
    def test_pickles_that_end_anyhow(self, tmp_path, content):
        (tmp_path / "c.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"c\.pt"):
            load_checkpoint(nn.Linear(2, 1), tmp_path / "c.pt")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_cut_anywhere(self, tmp_path, zipped):
        model = nn.Linear(2, 1)
        torch.save(model.state_dict(), tmp_path / "good.pt", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "good.pt").read_bytes()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        for end in range(0, len(whole) - 64, 7):
            (tmp_path / "cut.pt").write_bytes(whole[:end])
            with pytest.raises(CheckpointError):
                load_checkpoint(model, tmp_path / "cut.pt")
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Evil:
    """A pickle that calls a function."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


class TestImages:
    def test_compressed_without_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr(images, "MOST_BYTES", 1000)
        path = tmp_path / "train-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(bytes(10**6)))
        with pytest.raises(DataError, match="holds more than 1,000 bytes"):
            images._read_idx(path)

    @pytest.mark.parametrize(
        "data",
        [
            np.array([len], dtype=object),
            np.zeros((2, 3072), np.float32),
            np.zeros((2, 3072), np.uint8)[:, :10],
            Evil(np.ndarray, ((10**12,),)),
            Evil(np.dtype, ("O",)),
            Evil(eval, ("1/0",)),
        ],
        ids=["objects", "floats", "another width", "an array without values", "a dtype", "code"],
    )
    def test_pickles_of_anything_else(self, tmp_path, data):
        path = tmp_path / "data_batch_1"
        path.write_bytes(pickle.dumps({b"data": data, b"labels": [0, 1]}, protocol=2))
        with pytest.raises(DataError, match="data_batch_1 is damaged"):
            images._read_cifar(path)

    @pytest.mark.parametrize("order", ["C", "F"])
    def test_an_array_is_what_numpy_reads(self, tmp_path, order):
        pixels = np.asarray(np.arange(2 * 3072).reshape(2, 3072) % 251, np.uint8, order=order)
        path = tmp_path / "data_batch_1"
        path.write_bytes(pickle.dumps({b"data": pixels, b"labels": [0, 1]}, protocol=2))
        assert np.array_equal(images._read_cifar(path)[0], pixels.reshape(-1, 3, 32, 32))

    def test_links_in_an_archive_lead_nowhere(self, tmp_path):
        """A link in place of a file, and a file below it: the one is refused, the other never written."""
        outside, root = tmp_path / "outside", tmp_path / "root"
        outside.mkdir()
        packed = tmp_path / "packed.tar"
        with tarfile.open(packed, "w") as tar:
            link = tarfile.TarInfo("folder/batch")
            link.type, link.linkname = tarfile.SYMTYPE, str(outside)
            tar.addfile(link)
            below = tarfile.TarInfo("folder/batch/evil")
            below.size = 4
            tar.addfile(below, io.BytesIO(b"evil"))
        with pytest.raises((KeyError, ValueError)):
            images._unpack(packed, ["folder/batch"], root)
        assert not list(outside.iterdir())
        assert not (root / "folder").exists()
