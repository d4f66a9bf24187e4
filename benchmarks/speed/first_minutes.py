"""The first minutes of a new user: from an empty environment to a verdict on a checkpoint, on arrays, on a Transformers folder.

Every command is run as typed, in a new environment and an empty folder, and printed with its time and the first line of what it
says. What a user would have already (a trained network, its files) is made before the clock starts.

    python benchmarks/speed/first_minutes.py [--python PYTHON] [--out results/speed/first-minutes.md]

``--python`` takes an environment in which ``lazyrich[all]`` is installed; by default one is made, which takes minutes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]

NETWORK = '''"""A network, its data, and its training: what a user has."""

import torch
from sklearn.datasets import load_digits
from torch import nn


def data():
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
'''

FILES = """import csv

import numpy as np
import torch
from net import data, model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

network, (images, labels) = model(), data()
torch.save(network.state_dict(), "start.pt")
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
targets = nn.functional.one_hot(labels, 10).float()
for _ in range(300):
    optimizer.zero_grad()
    nn.functional.mse_loss(network(images), targets).backward()
    optimizer.step()
torch.save(network.state_dict(), "trained.pt")

with torch.no_grad():
    np.save("features.npy", network[:-1](images).numpy())
    np.save("outputs.npy", network(images).numpy())
np.save("labels.npy", labels.numpy())

words = [f"w{k}" for k in range(60)]
made = Tokenizer(models.WordLevel({word: k for k, word in enumerate(["[PAD]", "[UNK]", *words])}, unk_token="[UNK]"))
made.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")
sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
torch.manual_seed(0)
bert = BertForSequenceClassification(BertConfig(vocab_size=62, num_labels=3, max_position_embeddings=16, **sizes))
rows = [(int(a), int(b), int(c)) for a, b, c in torch.randint(60, (600, 3))]
texts, classes = [" ".join(words[k] for k in row) for row in rows], torch.tensor([(a + b) % 3 for a, b, _ in rows])
tokenizer.save_pretrained("bert-start")
bert.save_pretrained("bert-start")
batch = tokenizer(texts, return_tensors="pt")
optimizer = torch.optim.AdamW(bert.parameters(), lr=1e-3)
for _ in range(60):
    optimizer.zero_grad()
    bert(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=classes).loss.backward()
    optimizer.step()
tokenizer.save_pretrained("bert")
bert.save_pretrained("bert")
with open("texts.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["text", "label"])
    writer.writerows(zip(texts, classes.tolist()))
"""

COMMANDS = {
    "The version, and what there is": ["lazyrich --version", "lazyrich --help"],
    "A checkpoint of one's own": [
        "lazyrich measure net:model --checkpoint trained.pt --data net:data",
        "lazyrich measure net:model --checkpoint trained.pt --data net:data --start start.pt --out result",
        "lazyrich report result",
    ],
    "Stored arrays": ["lazyrich measure --features features.npy --outputs outputs.npy --targets labels.npy"],
    "A Transformers folder": [
        "lazyrich measure hf:bert --data texts.csv",
        "lazyrich measure hf:bert --data texts.csv --start bert-start",
    ],
}


def timed(command: list[str], folder: Path, bin_: Path) -> tuple[float, str]:
    """Seconds, and the first line that the command prints.

    Raises:
        SystemExit: the command fails.
    """
    environment = os.environ | {"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200", "NO_COLOR": "1"}
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)  # noqa: S603
    seconds = time.monotonic() - began
    if done.returncode:
        sys.exit(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return seconds, lines[0] if lines else ""


def main() -> None:
    """Run everything, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows: list[tuple[str, str, str]] = []
        python = options.python
        if python is None:
            python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
            for command in (
                [sys.executable, "-m", "venv", "env"],
                [str(python), "-m", "pip", "install", "--quiet", f"{ROOT}[all]"],
            ):
                seconds, _ = timed(command, folder, python.parent)
                typed = (
                    shlex.join(command).replace(str(ROOT), ".").replace(f"{folder}{os.sep}", "").replace(sys.executable, "python")
                )
                rows.append((f"`{typed}`", f"{seconds:.0f} s", ""))
        (folder / "net.py").write_text(NETWORK, encoding="utf-8")
        (folder / "files.py").write_text(FILES, encoding="utf-8")
        timed([str(python), "files.py"], folder, python.parent)
        for title, commands in COMMANDS.items():
            rows.append((f"**{title}**", "", ""))
            for command in commands:
                seconds, line = timed(shlex.split(command), folder, python.parent)
                rows.append((f"`{command}`", f"{seconds:.1f} s", line.replace("|", "\\|")))
    lines = [
        "| command | time | the first line of its answer |",
        "| --- | ---: | --- |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    text = "\n".join(lines)
    print(text)
    if options.out:
        about = (
            "The first minutes of a new user, as `python benchmarks/speed/first_minutes.py` runs and prints them; one run.\n\n"
        )
        options.out.write_text(f"# First minutes\n\n{about}{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
