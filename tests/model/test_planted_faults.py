"""The fuzzer's trial finds faults that are planted in the library: readings that guess, and such that leave something changed."""

import pytest
from capture_trial import Finding, trial

from lazyrich.measurement import one_pass
from lazyrich.model import head, rows, snapshot
from lazyrich.model.calls import recorded


def the_last_linear_layer(model, forward, named=None):
    """As the first version did: whatever ran last is the head."""
    layers = [module for module in model.modules() if head.is_linear(module)]
    with recorded(model, layers) as record:
        returned = head.returned_tensors(forward())
    call = record.calls[-1]
    found = head.Head(call.module, head.names(model)[call.module])
    return found, head.Reading(call, returned)


def half_of_the_first_dimension(stream):
    def cut(*args, **options):
        for batch in stream(*args, **options):
            yield one_pass.replace(batch, inputs=batch.inputs[: -(-len(batch.inputs) // 2)], targets=None)

    return cut


def parameters_alone(model):
    yield from model.named_parameters()


FAULTS = {
    "takes the last linear layer": (one_pass, "find_head", lambda _: the_last_linear_layer),
    "takes the first of several calls": (head, "one_call", lambda _: lambda model, found, calls, returned: calls[0]),
    "ignores the mask": (rows, "sequence_mask", lambda _: lambda model, batch: None),
    "cuts the first dimension": (one_pass, "batches", half_of_the_first_dimension),
    "forgets the buffers": (snapshot, "_parameters_and_buffers", lambda _: parameters_alone),
    "forgets plain attributes": (snapshot, "_put_back", lambda _: lambda module, attributes: None),
    "trusts a merge that is undone": (snapshot, "_same_bits", lambda _: lambda x, before: True),
}
PLANTED = [  # fault, where the network and what is around its head are drawn from, a case that shows it, by what
    *(("takes the last linear layer", "vectors", around, case, "measured|took") for around, case in {
        "parameter head": 1, "gate": 1, "residual": 1, "two heads": 1, "joined heads": 1, "helper": 1, "adapter": 3}.items()),
    ("takes the first of several calls", "vectors", "twice", 3, "more than once"),
    ("takes the first of several calls", "vectors", "both", 3, "more than once"),
    ("ignores the mask", "tokens", None, 20, "rows where"),
    ("cuts the first dimension", "time first", None, 3, "rows where|D_LR"),
    ("forgets the buffers", "vectors", None, 7, "left changed"),
    ("forgets plain attributes", "vectors", None, 0, "left changed"),
    ("trusts a merge that is undone", "vectors", "merging", 0, "left changed"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "kind", "around", "case", "message"), PLANTED)
def test_is_found(fault, kind, around, case, message, monkeypatch):
    trial(f"planted {case}", kind, around)
    module, name, planted = FAULTS[fault]
    monkeypatch.setattr(module, name, planted(getattr(module, name)))
    if fault == "forgets the buffers":
        monkeypatch.setattr(snapshot, "_swap_buffers", lambda model: None)
    with pytest.raises(Finding, match=message):
        trial(f"planted {case}", kind, around)
