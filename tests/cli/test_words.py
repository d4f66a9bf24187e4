"""Mistakes on the command line: each gives one sentence that names options, and an exit status."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lazyrich.cli import main
from lazyrich.cli.words import in_options

MODEL, TWO, DATA = "userproject:build_model", "userproject:build_two_heads", "userproject:build_loader"
MEASURE = ["measure", MODEL, "--data", DATA]
TRACE = ["trace", MODEL, "weights", "--data", DATA, "--out", "taken"]

MISTAKES = [  # arguments, exit status, what the sentence is, as a regular expression
    (["measure", MODEL], 2, "lazyrich: --data missing: pass MODEL --data DATA, or --features FILE --outputs FILE"),
    (["measure"], 2, "lazyrich: MODEL and --data missing: pass .*"),
    (
        ["measure", "--features", "x.npy", "--layers", "all"],
        2,
        "lazyrich: --layers cannot be combined with stored arrays: pass MODEL --data, or --features",
    ),
    (["measure", "--outputs", "x.npy"], 2, "lazyrich: --features is required with stored arrays"),
    (["measure", "--features", "y.npy", "--outputs", "x.npy"], 1, "--features: there is no file y.npy"),
    (["measure", "--features", "x.npy"], 1, "the outputs are missing: pass --outputs, or --head-weight .*"),
    (["measure", "--features", "x.npy", "--outputs", "x.npz"], 1, "--outputs: x.npz holds 2 arrays: write x.npz:NAME, .* a, b"),
    (
        ["measure", "--features", "x.npz:c", "--outputs", "x.npy"],
        1,
        "--features: x.npz holds no 'c'. It holds: a, b",
    ),
    (["measure", "--features", "x.npz:a", "--outputs", "x.npy"], 1, "the arrays must have the same length: features 3, .*"),
    (["measure", "--features", "last.pt", "--outputs", "x.npy"], 1, "--features: last.pt holds 2 arrays: .* weight, bias"),
    (["measure", "--features", "userproject.py", "--outputs", "x.npy"], 1, "--features: userproject.py is not one of .npy, .*"),
    (["measure", "--features", "bad.npy", "--outputs", "x.npy"], 1, "--features: bad.npy cannot be read .*"),
    (["mesure", MODEL], 2, "lazyrich: there is no command 'mesure'; did you mean measure[?] There are: demo, measure, .*"),
    ([*MEASURE, "--poolng", "first"], 2, "--pooling"),
    (["cost"], 2, "--samples N[\\s\\S]*--features P"),
    ([*MEASURE, "--pooling", "max"], 2, "--pooling"),
    (["measure", "userproject", "--data", DATA], 1, "MODEL must be package.module:function, got 'userproject'"),
    (["measure", "nowhere:build", "--data", DATA], 1, "MODEL: there is no module 'nowhere'; run from the folder that holds it"),
    (
        ["measure", "needy:build", "--data", DATA],
        1,
        "MODEL: importing 'needy' raised ModuleNotFoundError: .*'absent' .*needy.py, line 3.*",
    ),
    (["measure", "models/vision.py:build", "--data", DATA], 1, "MODEL names a module, not a file: write models.vision:build"),
    (
        ["measure", "userproject:exits", "--data", DATA],
        1,
        "MODEL: userproject:exits raised SystemExit: usage: train.py EPOCHS .*",
    ),
    (
        ["measure", "userproject:build", "--data", DATA],
        1,
        "MODEL: userproject has no function 'build'; did you mean build_.*[?] It has: .*",
    ),
    (["measure", "userproject:CONSTANT", "--data", DATA], 1, "MODEL: userproject has no function 'CONSTANT'. It has: .*"),
    (
        ["measure", "userproject:not_a_model", "--data", DATA],
        1,
        "MODEL: userproject:not_a_model returned int, not a torch.nn.Module",
    ),
    (
        ["measure", "userproject:raises", "--data", DATA],
        1,
        "MODEL: userproject:raises raised TypeError: .*userproject.py, line LINE.*",
    ),
    (["measure", TWO, "--data", DATA], 1, "Two has more than one head: pass --head to say which. .*--head right.*--head left.*"),
    (["measure", MODEL, "--data", "userproject:not_a_model"], 1, "--data must be a DataLoader, .*, got int"),
    (
        ["measure", MODEL, "--data", "userproject:build_wide"],
        1,
        "a batch of --data does not fit MODEL: it gives 9 inputs to a linear layer that takes 8 .PyTorch: mat1 and mat2 .*",
    ),
    (
        ["measure", "userproject:build_convolution", "--data", "userproject:build_images"],
        1,
        "a batch of --data does not fit MODEL: it gives 1 channels to a convolution that takes 3 .*",
    ),
    (["measure", MODEL, "--data", "userproject:build_nan"], 1, "features hold NaN or infinity in batch 0 .*"),
    (
        ["measure", MODEL, "--data", "userproject:build_failing"],
        1,
        "your code raised KeyError: 'input' .*userproject.py, line .*",
    ),
    (
        ["measure", MODEL, "--data", "userproject:build_workers"],
        1,
        "your code raised KeyError: 'image' .*userproject.py, line .*",
    ),
    (
        ["measure", MODEL, "--data", "userproject:build_missing_file"],
        1,
        "your code raised FileNotFoundError: .*images.bin.*userproject.py, line .*",
    ),
    (["measure", "userproject:build_assertive", "--data", DATA], 1, "your code raised AssertionError: at most 3 .*, line .*"),
    ([*MEASURE, "--head", "9"], 1, "--head 9 is not a module of Sequential. .*"),
    ([*MEASURE, "--layers", "9"], 1, "--layers '9' are not modules of Sequential. .*"),
    ([*MEASURE, "--checkpoint", "no.pt"], 1, "checkpoint no.pt does not exist"),
    ([*MEASURE, "--checkpoint", "weights/step-1.pt"], 1, "checkpoint weights/step-1.pt .*"),
    ([*MEASURE, "--checkpoint", "taken/evaluations.jsonl"], 1, "checkpoint taken/evaluations.jsonl .*"),
    ([*MEASURE, "--start", "no.pt"], 1, "checkpoint no.pt does not exist"),
    ([*MEASURE, "--null", "-1"], 1, "--null must be .*"),
    ([*MEASURE, "--start", "last.pt"], 1, ".*last.pt.*Unexpected key.*--no-strict leaves out weight, bias"),
    ([*MEASURE, "--num-samples", "0"], 1, "--num-samples must be at least 1, got 0"),
    ([*MEASURE, "--device", "tpu9"], 1, "--device tpu9 is not a device that PyTorch knows, such as cpu, cuda:0 or mps"),
    ([*MEASURE, "--device", "cuda"], 1, "--device cuda is not available .*; use another, such as cpu"),
    ([*MEASURE, "--out", "last.pt"], 1, "--out last.pt cannot be written to: .*"),
    ([*MEASURE, "--out", "last.pt/under"], 1, "--out last.pt/under cannot be written to: .*"),
    (
        [*MEASURE, "--out", "found"],
        1,
        "found holds richness.json already: pass --overwrite to replace it, or another --out",
    ),
    (
        ["measure", MODEL, "--data", "userproject:build_unlabelled", "--class-balanced"],
        1,
        "--class-balanced needs class labels.*",
    ),
    (["measure", MODEL, "--data", "userproject:build_once", "--nc4"], 1, "--nc4 takes a second pass.*"),
    (TRACE, 1, "taken holds a series already: pass --resume to continue, or another --out"),
    ([*TRACE, "--resume", "--num-samples", "1"], 1, "--num-samples must be at least 2, got 1"),
    ([*TRACE, "--resume", "--steps", "1", "2"], 1, "--steps: 2 were given for 1 checkpoints .*"),
    (["trace", MODEL, "last.pt", "--data", DATA, "--out", "new"], 1, "the name of last.pt holds no number .* or pass --steps"),
    (["trace", MODEL, "*.bin", "--data", DATA, "--out", "new"], 1, r"checkpoints: nothing matches \*.bin"),
    (["cost", "--samples", "1", "--features", "4", "--outputs", "2"], 1, "--samples must be at least 2, got 1"),
    (["report", "nowhere"], 1, "nowhere does not exist"),
    (["report", "taken", "--out", "found/richness.json"], 1, "found holds richness.json already: pass --overwrite .*"),
    (["report", "found"], 1, ".*richness.json.*"),
    (["demo", "--out", "last.pt"], 1, "--out last.pt cannot be written to: .*"),
    (["run", "grokking", "--data", "nowhere"], 1, "--data nowhere is not a folder: create it, or name the one that holds .*"),
    (["run", "grokking", "--accelerator", "gpu"], 1, "--accelerator gpu is not available here: .*"),
    (["run", "grokking", "--processes", "0"], 1, "--processes must be at least 1, got 0"),
    (["run", "groking"], 1, "no experiment 'groking'; did you mean grokking[?] There are: .*"),
    (["run", "grokking", "--seeds", "0"], 1, "--seeds must be at least 1, got 0"),
    (["sweep", "grokking", "--grid", "optimizer.rat=1"], 1, "--grid: no field 'optimizer.rat' in .*"),
    (["sweep", "grokking", "--conditions", "none"], 1, "--conditions: no condition 'none'.*"),
    (["sweep", "grokking", "--cpus-per-run", "0"], 1, "--cpus-per-run must be at least 1, got 0"),
]


@pytest.mark.parametrize(("arguments", "status", "sentence"), MISTAKES, ids=[" ".join(mistake[0]) for mistake in MISTAKES])
def test_a_mistake(arguments, status, sentence, project, capsys):
    if {"cuda", "gpu"} & {*arguments} and torch.cuda.is_available():
        pytest.skip("no mistake where there is a GPU")
    torch.save(nn.Linear(2, 1).state_dict(), project / "last.pt")
    (project / "weights").mkdir()
    torch.save({}, project / "weights/step-1.pt")
    (project / "taken").mkdir()
    (project / "taken/evaluations.jsonl").write_text('{"step": 1, "values": {"low_rank": 0.5}}\n')
    (project / "found").mkdir()
    (project / "found/richness.json").write_text("{}")
    (project / "needy.py").write_text("import torch\n\nimport absent\n")
    np.save(project / "x.npy", np.eye(4))
    np.savez(project / "x.npz", a=np.eye(3), b=np.eye(3))
    (project / "bad.npy").write_text("no array")
    before = contents(project)
    assert main(arguments) == status
    assert contents(project) == before
    shown = capsys.readouterr()
    assert shown.out == ""
    if status == 1:
        line = 1 + (project / "userproject.py").read_text().splitlines().index('    return nn.Linear(2, "3")')
        *progress, said = shown.err.splitlines()
        assert re.fullmatch(f"lazyrich: {sentence.replace('LINE', str(line))}", said), said
        assert all("%" in text for text in progress)
    else:
        assert re.search(sentence, shown.err)


def contents(folder):
    """Every file and folder, with what is in it."""
    inside = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {str(path): path.read_bytes() if path.is_file() else None for path in inside}


def test_a_bug_of_the_library_keeps_its_traceback(project, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr("lazyrich.measurement.measure.measure", broken)
    monkeypatch.setattr("lazyrich.cli.failures.OURS", Path(__file__).parent)
    with pytest.raises(ZeroDivisionError):
        main(MEASURE)


def command(model, *, out=None, num_samples=None, data=None, resume=False): ...


@pytest.mark.parametrize(
    ("message", "translated"),
    [
        ("pass resume=True, or another out=", "pass --resume, or another --out"),
        ("pass resume=False", "pass --no-resume"),
        ("pass another out= or out=None", "pass another --out or no --out"),
        ("out=a b/c holds (out='a b')", "--out a b/c holds (--out a b)"),
        ("num_samples must be at least 1", "--num-samples must be at least 1"),
        ("data: a tuple", "--data: a tuple"),
        ("data is a Dataset, and data must be", "--data is a Dataset, and data must be"),
        ("model=None and head=3 are not options", "model=None and head=3 are not options"),
        ("without a field: optimizer.out=3 'out=3'", "without a field: optimizer.out=3 'out=3'"),
        ("outs=3", "outs=3"),
    ],
)
def test_forms(message, translated):
    assert in_options(message, command) == translated
