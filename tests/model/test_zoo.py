"""Every network of the zoo: the right head, rows and numbers or the right error, and not a bit left changed."""

import random
import re
from functools import cache

import numpy as np
import pytest
import reference
import torch
from everything import differences, everything, values
from torch import nn
from torch.utils.data import DataLoader
from zoo import ENTRIES, Answer, Refusal
from zoo.running import batches_of, loss_of

import lazyrich
from lazyrich import HeadError, Richness

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")
SHARED = ("head", "rows", "forward", "targets", "ignore_index")  # what collect and Monitor take too
BUILT = [(entry, entry.build()) for entry in ENTRIES]
ANSWERED = [entry for entry, case in BUILT if isinstance(case.right, Answer)]
REFUSED = [entry for entry, case in BUILT if isinstance(case.right, Refusal)]


def named(entries):
    return pytest.mark.parametrize("entry", entries, ids=[f"{e.kind}: {e.name}" for e in entries])


def options_of(case, *more):
    return {name: value for name, value in case.options.items() if name in (*SHARED, *more)}


def attempt(case):
    """The result, or the error."""
    with case.around():
        try:
            return lazyrich.measure(case.model, case.data, **case.options)
        except Exception as error:
            return error


@cache
def measured(entry):
    """The right answer, what came out, and what was left changed."""
    case = entry.build()
    torch.default_generator.manual_seed(2)
    with case.around():
        before = everything(case.model, case.data, versions=not case.writes)
    result = attempt(case)
    with case.around():
        return case.right, result, differences(before, everything(case.model, case.data, versions=not case.writes))


def answered(entry):
    """The right answer and the result; an error is raised."""
    right, result, _ = measured(entry)
    if isinstance(result, Exception):
        raise result
    return right, result


@named(ANSWERED)
def test_head_rows_and_number(entry):
    right, result = answered(entry)
    if right.head is not None:
        assert result.head == right.head
    assert (result.num_samples, result.num_features) == right.features.shape
    assert result.num_outputs == right.outputs.shape[1]
    for power, number in ((1.0, result.low_rank), (0.0, result.output_alignment)):
        expected = reference.d_lr(right.features, right.outputs, eps=right.eps, power=power)
        assert number == pytest.approx(expected, rel=right.tolerance), power
    largest = np.linalg.norm(right.outputs, 2) / len(right.outputs) ** 0.5
    assert result.output_singular_values[0] == pytest.approx(largest, rel=right.tolerance)
    assert right.note in " ".join(result.notes)
    check_collapse(result, right)
    check_layers(result, right)


@named(REFUSED)
def test_error(entry):
    right, result, _ = measured(entry)
    if isinstance(result, Exception) and not isinstance(result, right.error):
        raise result
    assert isinstance(result, Exception), f"measured: head {result.head!r}, D_LR {result.low_rank:.4f}"
    text = str(result) + (result.table() if isinstance(result, Richness) else "")
    for word in right.words:
        assert word.lower() in text.lower(), text
    offered = re.findall(r"head='([^']*)'", text)
    assert set(right.offers) <= set(offered), text
    if right.first is not None:
        assert offered[0] == right.first, text


def check_collapse(result, right):
    if right.labels is None or len(set(right.labels)) < max(right.outputs.shape[1], 2):
        assert result.neural_collapse is None  # no labels, or a class without a mean
        return
    assert result.neural_collapse is not None, result.notes
    expected = reference.neural_collapse(right.features, right.labels)["nc1"]
    assert result.neural_collapse.nc1 == pytest.approx(expected, rel=max(1e-5, 10 * right.tolerance))


def check_layers(result, right):
    for name, features in right.layers.items():
        layer = result.layers[name]
        assert (layer.num_rows, layer.num_features) == features.shape, name
        expected = reference.d_lr(features, right.outputs, eps=right.eps)
        assert layer.low_rank == pytest.approx(expected, rel=right.tolerance), name
        assert (layer.isotropic is None) == (name in right.unmarked), name


@named(ANSWERED)
def test_features_outputs_and_targets(entry):
    """Means and products of all columns: they hold the rows up to their order."""
    case = entry.build()
    right = case.right
    with case.around():
        gram = lazyrich.collect(case.model, case.data, **options_of(case, "num_samples"))
    blocks = {"features": right.features, "outputs": right.outputs}
    if right.targets is not None:
        blocks["targets"] = right.targets
    elif right.labels is not None and right.outputs.shape[1] > 1:
        blocks["targets"] = np.eye(right.outputs.shape[1])[right.labels]
    else:
        assert right.labels is not None or "targets" not in gram.widths
    if gram.widths["outputs"] != right.outputs.shape[1]:  # very many outputs are kept as fewer columns
        del blocks["outputs"]
    for name, block in blocks.items():
        size = max(1e-12, float(np.abs(block).max()))
        np.testing.assert_allclose(gram.mean(name), block.mean(0), rtol=0, atol=right.tolerance * size, err_msg=name)
        for other, second in blocks.items():
            expected, bound = block.T @ second / len(block), right.tolerance * size * max(1e-12, float(np.abs(second).max()))
            np.testing.assert_allclose(gram.block(name, other), expected, rtol=0, atol=bound, err_msg=f"{name} and {other}")


@named(ANSWERED)
def test_evidence(entry):
    right, result = answered(entry)
    evidence = result.evidence
    assert evidence.head == result.head
    assert right.returned in evidence.returned
    assert right.row in (None, evidence.row)
    assert right.left_out in (None, sum(evidence.rows_left_out.values()))
    residual = evidence.linear_residual
    assert residual is not None if right.linear else residual is None or residual > 1e-4
    if right.linear:
        assert residual < max(1e-5, 10 * right.tolerance)
    assert str(evidence)


@named([entry for entry, case in BUILT if isinstance(case.right, Answer) and case.right.layers])
def test_a_layer_does_not_depend_on_the_other_layers(entry):
    right, together = answered(entry)
    for name in right.layers:
        case = entry.build()
        alone = lazyrich.measure(case.model, case.data, **case.options | {"layers": [name]})
        assert alone.layers[name].low_rank == pytest.approx(together.layers[name].low_rank, rel=1e-12), name


@named(ENTRIES)
def test_nothing_is_changed(entry):
    assert measured(entry)[2] == []


def trained(entry, *, monitored):
    """The bits of parameters and buffers after two steps, and the state of torch's generator."""
    case = entry.build()
    case.model.train()
    batches = batches_of(case.data)
    monitor = None
    torch.default_generator.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    with case.around():
        if monitored:
            try:
                monitor = lazyrich.Monitor(case.model, case.data, every=1, num_samples=16, **options_of(case))
            except Exception as error:
                if not isinstance(case.right, Refusal) or not isinstance(error, case.right.error):
                    raise
        optimizer = torch.optim.SGD([p for p in case.model.parameters() if p.requires_grad], lr=0.01)
        for step in range(2):
            optimizer.zero_grad()
            loss_of(case, batches[step % len(batches)]).backward()
            optimizer.step()
            if monitor is not None:
                monitor.step()
    assert monitor is None or monitor.series.steps.tolist() == [0, 1, 2]
    return everything(case.model, None, versions=False)


@named([entry for entry, case in BUILT if case.trains])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_training_with_a_monitor_gives_the_same_bits(entry):
    assert differences(values(trained(entry, monitored=False)), values(trained(entry, monitored=True))) == []


def test_an_adapter_that_starts_at_zero_is_found_when_it_no_longer_does():
    """At step 0 the wrapped layer's output is what the model returns; after a step it is not."""
    case = next(entry for entry in ENTRIES if entry.name == "adapter on the head that starts at zero").build()
    monitor = lazyrich.Monitor(case.model, case.data, every=1)
    with torch.no_grad():
        case.model[2].up.weight += 1
    before = everything(case.model, case.data, versions=True)
    with pytest.raises(HeadError, match="head='2'"):
        monitor.step()
    assert differences(before, everything(case.model, case.data, versions=True)) == []


def test_the_loader_is_as_it_was():
    data = DataLoader(torch.randn(30, 6), 8, shuffle=True, generator=torch.Generator().manual_seed(3))
    before = data.generator.get_state()
    lazyrich.measure(nn.Linear(6, 2), data)
    assert torch.equal(before, data.generator.get_state())
