"""``lazyrich demo`` separates a rich network from a lazy one, and prints the same numbers on any number of threads."""

import pytest
import torch

import lazyrich
from lazyrich.cli import digits, main


def test_a_rich_and_a_lazy_network(tmp_path, capsys, monkeypatch):
    """After a third of the epochs they are as far apart."""
    monkeypatch.setattr(digits, "EPOCHS", digits.EPOCHS // 3)
    before = torch.get_rng_state()
    assert main(["demo", "--out", str(tmp_path), "--no-progress"]) == 0
    assert torch.equal(torch.get_rng_state(), before)
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "trained in full: rich: The features have moved" in shown.out
    assert "last layer only: lazy: The features are nearly those of the start: λ = 1.000" in shown.out
    full = lazyrich.load(tmp_path / "trained-in-full.json")
    last = lazyrich.load(tmp_path / "last-layer-only.json")
    assert full.low_rank < 0.5 * last.low_rank
    assert full.low_rank_corrected + 4 * full.low_rank_stderr < last.low_rank_corrected - 4 * last.low_rank_stderr
    assert f"{full.low_rank:.4f}" in shown.out
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")  # after so few epochs
def test_the_same_on_any_number_of_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "EPOCHS", 2)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(digits.run_demo(tmp_path, progress=False))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    first, second = ({name: r.to_dict() for name, r in result.items()} for result in results)
    assert first == second
