import os
import pickle

import pytest
import torch
from torch import nn

from lazyrich import CheckpointError
from lazyrich.model.checkpoints import load_checkpoint


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


class TestCheckpointFiles:
    model = nn.Linear(2, 1)

    def refused(self, path, match):
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        with pytest.raises(CheckpointError, match=match):
            load_checkpoint(self.model, path)
        assert all(torch.equal(before[name], value) for name, value in self.model.state_dict().items())

    def test_unsafe_pickles_are_refused_and_never_run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pt")  # a zip file, as torch writes
        self.refused(tmp_path / "bomb.pt", "was refused: it is not a file of weights alone.*Reason: .*system")
        (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb()))
        self.refused(tmp_path / "plain.pt", "was refused")
        assert not (tmp_path / "exploded").exists()

    def test_whole_modules_are_refused(self, tmp_path):
        torch.save(self.model, tmp_path / "module.pt")
        self.refused(tmp_path / "module.pt", "torch.save\\(model.state_dict\\(\\), path\\)")

    def test_damaged_files(self, tmp_path):
        torch.save(self.model.state_dict(), tmp_path / "good.pt")
        whole = (tmp_path / "good.pt").read_bytes()
        (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
        self.refused(tmp_path / "cut.pt", "damaged|refused")
        (tmp_path / "empty.pt").write_bytes(b"")
        self.refused(tmp_path / "empty.pt", "damaged|refused")
        (tmp_path / "text.safetensors").write_text("hello")
        self.refused(tmp_path / "text.safetensors", "not a safetensors file")

    def test_weights_of_another_model(self, tmp_path):
        torch.save(nn.Linear(3, 1).state_dict(), tmp_path / "other.pt")
        self.refused(tmp_path / "other.pt", "(?s)does not fit Linear.*size mismatch")

    def test_no_weights_inside(self, tmp_path):
        torch.save({"epoch": 3, "loss": 0.1}, tmp_path / "log.pt")
        self.refused(tmp_path / "log.pt", r"holds \['epoch', 'loss'\] and no state dict")
        torch.save([1, 2], tmp_path / "list.pt")
        self.refused(tmp_path / "list.pt", "holds a list, not a state dict")
