"""A project of a user: a module in the current folder with functions that build models and data."""

import sys

import pytest

USER_CODE = """
import torch
from torch import nn

def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

def build_two_heads():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(8, 2), nn.Linear(8, 3)
        def forward(self, x):
            return self.left(x), self.right(x)
    return Two()

def build_loader():
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(200, 8, generator=g), torch.randint(3, (200,), generator=g)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=64)

def build_dropping():
    class Drops(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(x)
    return nn.Sequential(nn.Linear(8, 16), Drops(), nn.Linear(16, 3))

def build_shuffled():
    return torch.utils.data.DataLoader(build_loader().dataset, batch_size=64, shuffle=True, drop_last=True)

def build_unlabelled():
    return [x for x, _ in build_loader()]

def build_once():
    return iter(build_loader())

def build_wide():
    return [torch.zeros(4, 9)]

def build_images():
    return [torch.zeros(4, 1, 8, 8)]

def build_convolution():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))

def build_nan():
    return [torch.full((4, 8), float("nan"))]

def build_failing():
    for batch in build_loader():
        yield {"inputs": batch[0]}["input"]

def build_assertive():
    class Assertive(nn.Module):
        def forward(self, x):
            assert len(x) < 4, "at most 3"
    return Assertive()

class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, k):
        return {"inputs": torch.zeros(8)}["image"]

def build_workers():
    return torch.utils.data.DataLoader(Broken(), batch_size=4, num_workers=1)

def build_missing_file():
    with open("images.bin") as file:
        yield file.read()

def exits():
    raise SystemExit("usage: train.py EPOCHS")

def not_a_model():
    return 3

def raises():
    return nn.Linear(2, "3")

CONSTANT = 3
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "userproject.py").write_text(USER_CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("userproject", None)
    yield tmp_path
    sys.modules.pop("userproject", None)
