"""Stored arrays of any framework give the numbers of the network that they come from, in memory that does not grow with them."""

import array
import importlib.util
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from peak_memory import printed, reads_peak_memory
from torch import nn

import lazyrich
from lazyrich import DataError, NonFiniteError, RankWarning, functional, measure_arrays
from lazyrich.functional.inputs import as_tensor
from lazyrich.measurement import arrays

N, P, C = 300, 12, 4
RNG = np.random.default_rng(0)
X = (RNG.standard_normal((N, P)) @ RNG.standard_normal((P, P))).astype(np.float32)
W, B = RNG.standard_normal((C, P)).astype(np.float32), RNG.standard_normal(C).astype(np.float32)
F = X @ W.T + B
Y = F.argmax(1)
START = RNG.standard_normal((N, P)).astype(np.float32)


def network():
    """The head alone: what it is given are the features."""
    head = nn.Linear(P, C)
    head.load_state_dict({"weight": torch.from_numpy(W), "bias": torch.from_numpy(B)})
    return head


def same(result, expected, tolerance=1e-7):
    ours, theirs = result.numbers(), expected.numbers()
    missing = {"nc3", "nc4", "parameter_norm", "parameter_distance"}
    assert set(theirs) - set(ours) <= missing
    assert set(ours) <= set(theirs)
    for name, value in ours.items():
        assert value == pytest.approx(theirs[name], rel=tolerance, abs=tolerance), name


class Foreign:
    """An array that can only hand its memory over by DLPack, and be cut."""

    def __init__(self, x):
        self.x = x

    shape = property(lambda self: self.x.shape)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        return Foreign(self.x[rows])

    def __dlpack__(self, **options):
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()


def mapped(x, folder):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")


FORMS = {
    "numpy": lambda x, folder: x,
    "torch": lambda x, folder: torch.from_numpy(x),
    "dlpack": lambda x, folder: Foreign(x),
    "memory map": mapped,
    "buffer": lambda x, folder: memoryview(x),
    "big-endian": lambda x, folder: x.astype(x.dtype.newbyteorder(">")),
    "read-only": lambda x, folder: np.broadcast_to(x, x.shape),
    "reversed twice": lambda x, folder: x[::-1].copy()[::-1],
    "list of batches": lambda x, folder: [x[:100], x[100:101], x[101:]],
    "generator": lambda x, folder: (x[k : k + 64] for k in range(0, N, 64)),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_numbers_of_the_network(form, tmp_path):
    expected = lazyrich.measure(network(), (torch.from_numpy(X), torch.from_numpy(Y)))
    result = measure_arrays(FORMS[form](X, tmp_path), *([F, Y] if form != "list of batches" else [FORMS[form](F, 0), Y]))
    same(result, expected)
    assert str(result.evidence) == "features and outputs as they were stored; each row is a sample"
    assert result.comparison.parameter_norm is None


def test_blocks_change_nothing(monkeypatch):
    whole = measure_arrays(X, F, Y)
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 7 * X[0].nbytes)
    assert measure_arrays(X, F, Y).to_dict() == whole.to_dict()


@pytest.mark.parametrize("outputs", [None, F])
def test_a_head_gives_the_outputs_and_nc3(outputs):
    expected = lazyrich.measure(network(), (torch.from_numpy(X), torch.from_numpy(Y)))
    result = measure_arrays(X, outputs, Y, head_weight=W, head_bias=B)
    same(result, expected)
    assert result.neural_collapse.nc3 == expected.neural_collapse.nc3
    assert result.comparison.parameter_norm is None


@pytest.mark.parametrize("head", [{}, {"head_weight": W, "head_bias": B}])
def test_the_start(head):
    result = measure_arrays(X, F, start_features=START, **head)
    alignment = float(functional.kernel_alignment(X, START))
    assert result.comparison.s_init == pytest.approx(alignment, abs=1e-12)
    assert result.laziness == pytest.approx(result.low_rank / float(functional.low_rank_measure(START, F)), abs=1e-6)
    narrow = {} if head else {"start_features": START[:, :5]}  # without a head, the width at the start may be another
    if narrow:
        assert measure_arrays(X, F, **narrow).comparison.s_init == pytest.approx(
            float(functional.kernel_alignment(X, START[:, :5])), abs=1e-12
        )


def test_weights_and_balance():
    weights = np.linspace(0.5, 2, N)
    data = (torch.from_numpy(X), torch.from_numpy(Y))
    expected = lazyrich.measure(network(), data, sample_weights=torch.from_numpy(weights))
    same(measure_arrays(X, F, Y, sample_weights=weights), expected)
    same(measure_arrays(X, F, Y.astype(np.uint16), class_balanced=True), lazyrich.measure(network(), data, class_balanced=True))
    with pytest.raises(DataError, match="class_balanced=True takes a second pass"):
        measure_arrays(iter([X]), F, Y, class_balanced=True)


def test_real_targets_and_ignored_labels():
    assert measure_arrays(X, F[:, 0], F[:, 1]).num_outputs == 1
    ignored = np.where(np.arange(N) < 10, -100, Y)
    same(measure_arrays(X, F, ignored), measure_arrays(X[10:], F[10:], Y[10:]))


def test_positions():
    result = measure_arrays(X.reshape(50, 6, P), F.reshape(50, 6, C))
    assert result.evidence.row == "position"
    assert result.low_rank == pytest.approx(measure_arrays(X, F).low_rank, abs=1e-12)


def test_a_warning_points_to_the_user():
    outputs = np.concatenate([F, 1e-2 * RNG.standard_normal((N, 6))], 1).astype(np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measure_arrays(X, outputs)
    assert [(w.category, w.filename) for w in caught] == [(RankWarning, __file__)]


MISTAKES = [
    ({"outputs": F[:-1]}, DataError, "the arrays must have the same length: features 300, outputs 299"),
    ({"outputs": [F[:9]]}, DataError, "the arrays have 300 rows, and outputs 9 or more"),
    ({"features": [X[:9]], "outputs": [F[:8]]}, DataError, "the same lengths; after 0 rows: features 9, outputs 8"),
    ({"features": [X[:9], X], "outputs": [F[:9]]}, DataError, "the same lengths; after 9 rows: features 300, outputs 0"),
    ({"features": []}, DataError, "features gave no batches"),
    ({"features": X[:, 0]}, DataError, r"features must have shape \(n, p\), got \(1,\)"),
    ({"features": X[:0]}, DataError, r"features must have rows, got an array of shape \(0, 12\)"),
    ({"features": X.astype(object)}, TypeError, "features must hold real numbers, got an array of dtype object"),
    ({"features": X.astype(str)}, TypeError, "features must hold real numbers, got an array of dtype <U"),
    ({"features": X.astype(int)}, TypeError, "features must be real floating point, got torch.int64; convert them to float32"),
    ({"features": torch.from_numpy(X) * 1j}, TypeError, "features must be real floating point, got torch.complex64"),
    ({"outputs": Y}, TypeError, "outputs must be real floating point, got torch.int64"),
    ({"features": X.tolist()}, TypeError, "features must be a tensor or an array, got list; convert it with numpy.asarray"),
    ({"features": 3}, TypeError, "features must be an array or an iterable of batches, got int"),
    ({"features": "x.npy"}, TypeError, "features must be an array or an iterable of batches, got str"),
    ({"features": np.where(np.arange(N)[:, None] == 7, np.nan, X)}, NonFiniteError, r"features hold NaN .* \(row 7 of 300"),
    ({"outputs": None}, DataError, "the outputs are missing: pass outputs=, or head_weight="),
    ({"head_bias": B}, DataError, "head_bias needs head_weight"),
    ({"head_weight": W.T}, DataError, r"head_weight must have shape \(C, 12\), got \(12, 4\), .* pass head_weight.T"),
    ({"head_weight": W, "head_bias": B[:2]}, DataError, r"head_bias must have shape \(4,\), got \(2,\)"),
    ({"head_weight": W}, DataError, r"outputs are not features @ head_weight.T \+ head_bias: they differ by"),
    ({"head_weight": W[:3]}, DataError, r"outputs have shape \(300, 4\), and head_weight gives \(300, 3\)"),
    ({"sample_weights": np.ones(5)}, DataError, "sample_weights has 5 entries"),
    ({"targets": Y + 9}, DataError, "label .* is out of range"),
]


@pytest.mark.parametrize(("changed", "kind", "sentence"), MISTAKES, ids=[sentence for _, _, sentence in MISTAKES])
def test_a_mistake(changed, kind, sentence):
    with pytest.raises(kind, match=sentence):
        measure_arrays(**{"features": X, "outputs": F, **changed})


ON_JAX = """
import sys
import jax, numpy as np, torch
from jax import numpy as jnp
from lazyrich import functional, measure_arrays
x, f, y = (np.load(path) for path in sys.argv[1:])
results = [measure_arrays(*(to(a) for a in (x, f, y))).numbers() for to in (np.asarray, jnp.asarray, torch.from_numpy)]
for other in results[1:]:
    assert all(abs(other[name] - value) <= 1e-7 for name, value in results[0].items()), (results[0], other)
half = jnp.asarray(x, jnp.bfloat16)
expected = functional.low_rank_measure(torch.from_numpy(np.asarray(half, "f4")).bfloat16(), f)
assert functional.low_rank_measure(half, jnp.asarray(f)) == expected
print(len(results[0]))
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_the_same_numbers_from_numpy_jax_and_torch(tmp_path):
    """In a process of its own, because JAX starts threads that a later fork would warn of."""
    paths = [tmp_path / f"{name}.npy" for name in "xfy"]
    for path, values in zip(paths, (X, F, Y), strict=True):
        np.save(path, values)
    done = subprocess.run([sys.executable, "-c", ON_JAX, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


@reads_peak_memory
def test_a_memory_map_is_read_in_flat_memory(tmp_path):
    """256 MiB of features raise the peak by less than a quarter of that; it is some 35 MiB for any number of rows."""
    features = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "f4", (2**18, 256))
    features[:] = RNG.standard_normal((2**13, 256)).astype("f4").repeat(2**5, 0)
    np.save(tmp_path / "f.npy", features[:, :2])
    del features
    grown = printed(
        """
        import sys, numpy as np, torch, lazyrich
        torch.set_num_threads(1)
        x, f = (np.load(f"{sys.argv[1]}/{name}.npy", mmap_mode="r") for name in "xf")
        lazyrich.measure_arrays(x[:2**15], f[:2**15])
        before = peak()
        lazyrich.measure_arrays(x, f)
        print(peak() - before)
        """,
        tmp_path,
    )
    assert grown < 64


@pytest.mark.parametrize(
    "function",
    [
        lambda to: functional.low_rank_measure(to(X), to(F), weights=to(abs(F[:, 0]))),
        lambda to: functional.low_rank_estimate(to(X), to(F)).corrected,
        lambda to: functional.kernel_alignment(to(X), to(START)),
        lambda to: functional.target_alignment(to(X), to(Y)),
        lambda to: functional.effective_rank(to(X)),
        lambda to: functional.participation_ratio(to(X)),
        lambda to: functional.rankme(to(X)),
        lambda to: functional.stable_rank(to(X)),
        lambda to: functional.alpha_req(to(X)).alpha,
        lambda to: functional.feature_spectrum(to(X), to(F), to(Y)).trace,
        lambda to: functional.held_out_quality(functional.feature_spectrum(to(X), to(F)), to(START), to(Y))[-1],
        lambda to: functional.neural_collapse(to(X), to(Y), head_weight=to(W), head_bias=to(B)).nc3,
        lambda to: functional.neural_collapse(to(X), to(Y), outputs=to(F), weights=to(abs(F[:, 0]))).nc4,
        lambda to: functional.compressed_head(to(W), to(B))[0].sum(),
        lambda to: functional.tangent_kernel_alignment(to(X @ X.T), to(F[:, 0])),
        lambda to: functional.tangent_kernel_change(to(X @ X.T), to(START @ START.T), num_outputs=1).relative_distance,
    ],
)
def test_functions_take_arrays(function):
    assert float(function(np.asarray)) == float(function(torch.from_numpy))


def test_conversion():
    assert as_tensor("x", X).data_ptr() == X.ctypes.data  # no copy
    assert as_tensor("x", array.array("d", [1, 2])).tolist() == [1, 2]
    assert as_tensor("x", np.array([1, 2], np.longdouble)).dtype == torch.float64
    assert as_tensor("x", np.array([1, 2], np.uint32)).dtype == torch.int64
    assert as_tensor("x", X[:1, ::-1]).tolist() == X[:1, ::-1].tolist()
