"""The conformance suite fails on implementations that are wrong, and skips what they lack. (On ours it runs by itself.)"""

import subprocess
import sys
from xml.etree import ElementTree

import pytest

NAIVE = """
import torch

def kernel_alignment(a, b):
    "Right in exact arithmetic."
    a, b = a.float(), b.float()
    def hsic(x, y):
        mean = torch.outer(x.mean(0), y.mean(0))
        return (x.T @ y / len(x) - mean).square().sum()
    return (hsic(a, b) / (hsic(a, a) * hsic(b, b)).sqrt()).nan_to_num(0).clamp(0, 1)

def rankme(features):
    "Eigenvalues of the centred covariance in place of the singular values of the raw matrix."
    values = torch.linalg.svdvals(features.double() - features.double().mean(0)).square()
    share = values / values.sum() + 1e-7
    return torch.special.entr(share).sum().exp()

def tangent_kernel(model, inputs):
    "Every block a copy of the diagonal one, in a model that is left in evaluation mode."
    model.eval()
    first = [torch.autograd.grad(model(x)[0], list(model.parameters())) for x in inputs]
    rows = torch.stack([torch.cat([g.flatten() for g in gs]) for gs in first])
    outputs = model(inputs).shape[1]
    return torch.kron(rows @ rows.T, torch.eye(outputs, dtype=rows.dtype))

class LowRankMeasure:
    "The mean over batches."
    def __init__(self):
        self.values = []
    def update(self, features, outputs):
        from lazyrich.functional import low_rank_measure
        self.values.append(float(low_rank_measure(features, outputs)))
    def compute(self):
        return sum(self.values) / len(self.values)
    def reset(self):
        self.values = []
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peer")
    (folder / "naive.py").write_text(NAIVE)
    command = [sys.executable, "-m", "lazyrich.conformance", "-q", "--implementation", "naive", "--junitxml=found.xml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {}
    for case in ElementTree.parse(folder / "found.xml").iter("testcase"):  # noqa: S314 - written above
        kinds = {child.tag for child in case}
        name = f"{case.get('classname').rpartition('.')[2]}::{case.get('name')}"
        found[name] = "skipped" if "skipped" in kinds else "failed" if kinds else "passed"
    return found


@pytest.mark.parametrize(
    "case",
    [
        "test_kernel_alignment::test_offset[torch.float32-1000.0-kernel_alignment]",
        "test_kernel_alignment::test_scale[torch.float32-1e+20-kernel_alignment]",
        "test_kernel_alignment::test_no_answer[constant-kernel_alignment]",
        "test_kernel_alignment::test_no_answer[NaN-kernel_alignment]",
        "test_effective_ranks::test_unequal_directions[rankme]",
        "test_effective_ranks::test_constant_feature[rankme]",
        "test_tangent_kernel::test_pairs_of_outputs",
        "test_tangent_kernel::test_model_stays",
        f"test_metrics::test_batch_sizes[{[1] * 64}-LowRankMeasure]",
        "test_metrics::test_batch_sizes[[50, 10, 4]-LowRankMeasure]",
    ],
)
def test_mistakes_fail(outcomes, case):
    assert outcomes[case] == "failed"


@pytest.mark.parametrize(
    "case",
    [
        "test_kernel_alignment::test_columns_in_common[6-4-2-kernel_alignment]",
        "test_kernel_alignment::test_offset[torch.float32-1.0-kernel_alignment]",
        "test_effective_ranks::test_equal_directions[5-rankme]",
        "test_tangent_kernel::test_linear_model[1]",
        "test_metrics::test_batch_sizes[[64]-LowRankMeasure]",
    ],
)
def test_what_is_right_passes(outcomes, case):
    assert outcomes[case] == "passed"


def test_what_it_lacks_is_skipped(outcomes):
    lacking = [state for name, state in outcomes.items() if "debiased" in name or "test_low_rank::" in name]
    assert len(lacking) > 50
    assert set(lacking) == {"skipped"}


def test_a_module_that_is_not_there(tmp_path):
    command = [sys.executable, "-m", "lazyrich.conformance", "-q", "-x", "--implementation", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No module named 'nowhere'" in done.stdout
