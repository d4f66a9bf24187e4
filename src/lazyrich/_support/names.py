"""Names of parameters without what wrappers add to them."""

from __future__ import annotations

from collections.abc import Iterable

# DataParallel and DDP, torch.compile, FSDP, activation checkpointing
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Name -> the name that the parameter has in the network inside DataParallel, DDP, FSDP and torch.compile.

    Where two names would become the same, "module" is a part of the network itself, and all names are left as they are.

    >>> without_wrappers(["module.0.weight", "module.1._orig_mod.bias"])
    {'module.0.weight': '0.weight', 'module.1._orig_mod.bias': '1.bias'}
    >>> without_wrappers(["module.weight", "weight"])
    {'module.weight': 'module.weight', 'weight': 'weight'}
    """
    inner = {}
    for name in names:
        *path, last = name.split(".")
        inner[name] = ".".join([*(part for part in path if part not in WRAPPERS), last])
    return inner if len({*inner.values()}) == len(inner) else {name: name for name in inner}
