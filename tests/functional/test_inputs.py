"""What every function takes."""

import pytest
import torch

from lazyrich import DataError, Gram
from lazyrich.functional import neural_collapse, target_alignment
from lazyrich.functional.inputs import as_gram, one_hot

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


def test_as_many_rows_are_kept_as_are_asked_for():
    for retain in (0, 7):
        rows = as_gram(X, retain=retain).retained()
        assert rows.blocks["features"].shape == (retain, 3)
        assert len(rows.weights) == retain
    assert len(as_gram(X).retained().weights) == 0


def test_two_samples_are_enough_and_one_is_not():
    assert as_gram(X[:2]).count == 2
    with pytest.raises(DataError, match="at least 2 samples are needed for a covariance, got 1"):
        as_gram(X[:1])


def test_a_gram_comes_back():
    gram = Gram()
    gram.update(X, X)
    assert as_gram(gram, needs=("outputs",)) is gram
    with pytest.raises(DataError, match="this measure needs targets, and none were passed"):
        as_gram(gram, needs=("outputs", "targets"))
    for name in ("outputs", "targets", "weights"):
        with pytest.raises(TypeError, match="pass the Gram alone"):
            as_gram(gram, **{name: X})


def test_a_vector_is_a_column_of_outputs_but_no_features():
    assert as_gram(X, X[:, 0], X[:, 1]).widths == {"features": 3, "outputs": 1, "targets": 1}
    with pytest.raises(DataError, match=r"features must have shape \(n, width\), got \(40,\); flatten or average"):
        as_gram(X[:, 0])
    with pytest.raises(DataError, match=r"outputs must have shape \(n, width\), got \(40, 3, 1\); flatten or average"):
        as_gram(X, X.unsqueeze(2))


def test_no_samples_are_named_also_where_labels_were_given():
    for function in (target_alignment, neural_collapse):
        with pytest.raises(DataError, match="at least 2 samples are needed for a covariance, got 0"):
            function(X[:0], torch.tensor([], dtype=torch.long))


def test_one_hot():
    assert one_hot(torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert one_hot(torch.tensor([1], dtype=torch.uint8), 4).tolist() == [[0, 1, 0, 0]]
    assert one_hot(torch.tensor([1])).dtype == torch.float64
    assert one_hot(torch.tensor([], dtype=torch.long)).shape == (0, 1)
    with pytest.raises(DataError, match=r"label 7 is out of range: with num_classes = 3 classes are 0 … 2"):
        one_hot(torch.tensor([0, 7, -1]), 3)
    with pytest.raises(DataError, match="label 3 is out of range"):
        one_hot(torch.tensor([3]), 3)
    with pytest.raises(TypeError, match="labels must be integers, got torch.complex64"):
        one_hot(torch.ones(3, dtype=torch.complex64))
