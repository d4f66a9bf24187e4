"""Mistakes on the command line: each gives one sentence that names options, and an exit status."""

import re

import pytest
import torch
from torch import nn

from lazyrich.cli import main
from lazyrich.cli.words import in_options

MODEL, TWO, DATA = "userproject:build_model", "userproject:build_two_heads", "userproject:build_loader"
MEASURE = ["measure", MODEL, "--data", DATA]
TRACE = ["trace", MODEL, "weights", "--data", DATA, "--out", "taken"]

MISTAKES = [  # arguments, exit status, what the sentence is, as a regular expression
    (["measure", MODEL], 2, "--data"),
    (["mesure", MODEL], 2, "invalid choice|mesure"),
    ([*MEASURE, "--pooling", "max"], 2, "--pooling"),
    (["measure", "userproject", "--data", DATA], 1, "MODEL must be package.module:function, got 'userproject'"),
    (["measure", "nowhere:build", "--data", DATA], 1, "MODEL: cannot import 'nowhere' .*; run from the folder that holds it"),
    (["measure", "userproject:build", "--data", DATA], 1, "MODEL: userproject has no function 'build'; it has: build_model, .*"),
    (["measure", "userproject:CONSTANT", "--data", DATA], 1, "MODEL: userproject has no function 'CONSTANT'; it has: .*"),
    (
        ["measure", "userproject:not_a_model", "--data", DATA],
        1,
        "MODEL: userproject:not_a_model returned int, not a torch.nn.Module",
    ),
    (["measure", "userproject:raises", "--data", DATA], 1, "MODEL: userproject:raises raised TypeError: .* line .*"),
    (["measure", TWO, "--data", DATA], 1, "Two has more than one head: pass --head to say which. .*--head right.*--head left.*"),
    (["measure", MODEL, "--data", "userproject:not_a_model"], 1, "--data must be a DataLoader, .*, got int"),
    (["measure", MODEL, "--data", "userproject:build_wide"], 1, "mat1 and mat2 shapes cannot be multiplied .*"),
    ([*MEASURE, "--head", "9"], 1, "--head 9 is not a module of Sequential. .*"),
    ([*MEASURE, "--layers", "9"], 1, "--layers '9' are not modules of Sequential. .*"),
    ([*MEASURE, "--checkpoint", "no.pt"], 1, "checkpoint no.pt does not exist"),
    ([*MEASURE, "--start", "no.pt"], 1, "checkpoint no.pt does not exist"),
    ([*MEASURE, "--num-samples", "0"], 1, "--num-samples must be at least 1, got 0"),
    ([*MEASURE, "--device", "tpu9"], 1, "--device tpu9 is not a device that PyTorch knows, such as cpu, cuda:0 or mps"),
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
    (["run", "groking"], 1, "no experiment 'groking'; did you mean grokking[?] There are: .*"),
    (["run", "grokking", "--seeds", "0"], 1, "--seeds must be at least 1, got 0"),
    (["sweep", "grokking", "--grid", "optimizer.rat=1"], 1, "--grid: no field 'optimizer.rat' in .*"),
    (["sweep", "grokking", "--conditions", "none"], 1, "--conditions: no condition 'none'.*"),
    (["sweep", "grokking", "--cpus-per-run", "0"], 1, "--cpus-per-run must be at least 1, got 0"),
]


@pytest.mark.parametrize(("arguments", "status", "sentence"), MISTAKES, ids=[" ".join(mistake[0]) for mistake in MISTAKES])
def test_a_mistake(arguments, status, sentence, project, capsys):
    torch.save(nn.Linear(2, 1).state_dict(), project / "last.pt")
    (project / "weights").mkdir()
    torch.save({}, project / "weights/step-1.pt")
    (project / "taken").mkdir()
    (project / "taken/evaluations.jsonl").write_text('{"step": 1, "values": {"low_rank": 0.5}}\n')
    assert main(arguments) == status
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    if status == 1:
        assert shown.out == ""
        said = shown.err.rpartition("\r")[2]  # a progress bar erases itself first
        assert re.fullmatch(f"lazyrich: {sentence}\n", said), said
    else:
        assert re.search(sentence, shown.err + shown.out)


def command(model, *, out=None, num_samples=None, data=None, resume=False): ...


@pytest.mark.parametrize(
    ("message", "translated"),
    [
        ("pass resume=True, or another out=", "pass --resume, or another --out"),
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
