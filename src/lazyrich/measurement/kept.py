"""The features of the start, kept on a probe set, so that a later measurement of it needs no second network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._support.files import write_whole
from ..errors import DataError
from ..model.copying import copied_model
from ..model.layers import LayerFeatures, LayerPlan
from ..model.redraw import new_norms
from .one_pass import OnePass, Part
from .probe import Probe
from .start import StartNetwork, StartSums, settle_on

KEPT_BYTES = 2**30  # at most, on each process


@dataclass(frozen=True, eq=False)
class KeptStart:
    """The features of a network on the batches of a probe set.

    Attributes:
        features: one (rows, p) for each batch, on the CPU.
        settled: the same, after batch norm that had seen no batch was given the statistics of the probe set; ``features`` where
            there is no such batch norm.
        norms: names of that batch norm.
        probe: digest of the probe set.
    """

    features: tuple[Tensor, ...]
    settled: tuple[Tensor, ...]
    norms: tuple[str, ...]
    probe: str

    @classmethod
    def of(cls, one_pass: OnePass, probe: Probe) -> KeptStart:
        """Those of the network of a pass over the probe set; it must be undisturbed.

        Raises:
            DataError: they take more than 1 GiB, or are not finite.
        """
        norms, copy = tuple(new_norms(one_pass.model)), None
        if norms:
            network = copied_model(one_pass.model)
            settle_on(network, new_norms(network), one_pass)
            copy = StartNetwork(network, one_pass)
        features, settled, size = list[Tensor](), list[Tensor](), 0
        for part in one_pass.parts("start"):
            features.append(part.rows.features.cpu())
            settled += [] if copy is None else [copy.rows(part, None)[0].cpu()]
            size += sum(x[-1].numel() * x[-1].element_size() for x in (features, settled) if x)
            if size > KEPT_BYTES:
                raise DataError(f"the features of the start take over {KEPT_BYTES / 2**30:g} GiB: pass a smaller num_samples=")
        if not all(bool(torch.isfinite(x).all()) for x in (*features, *settled)):
            raise DataError("the features of the start are not finite")
        return cls(tuple(features), tuple(settled if copy is not None else features), norms, probe.batches.digest)

    def sums(self, one_pass: OnePass) -> StartSums:
        """Empty sums for another pass over the probe set."""
        now = new_norms(one_pass.model)
        seen_none = all(name in now for name in self.norms)
        return StartSums(one_pass, _KeptRows(self.features if seen_none else self.settled))

    def save(self, path: Path) -> None:
        """Writes an ``.npz`` file, completely or not at all."""
        arrays: dict[str, Any] = {
            "features": _array(self.features),
            "rows": np.array([len(x) for x in self.features], dtype=np.int64),
            "norms": np.array(self.norms, dtype=str),
            "probe": np.array(self.probe),
        }
        arrays |= {"settled": _array(self.settled)} if self.norms else {}
        write_whole(path, lambda file: np.savez(file, **arrays))

    @classmethod
    def load(cls, path: Path) -> KeptStart:
        """Reads what :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            DataError: it is damaged.
        """
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                norms = tuple(map(str, file["norms"]))
                rows = file["rows"].tolist()
                features = torch.from_numpy(file["features"]).split(rows)
                settled = torch.from_numpy(file["settled"]).split(rows) if norms else features
                return cls(features, settled, norms, str(file["probe"]))
        except FileNotFoundError:
            raise
        except Exception as error:  # zipfile, zlib, numpy and torch each raise their own
            raise DataError(f"{path} is damaged ({type(error).__name__})") from error


class _KeptRows:
    """A :class:`~lazyrich.measurement.start.StartSource` that gives kept features batch by batch."""

    def __init__(self, features: Sequence[Tensor]) -> None:
        self._rest = iter(features)

    def rows(self, part: Part, plan: LayerPlan | None) -> tuple[Tensor, LayerFeatures]:
        """Those of the next part; there are none of layers."""
        features, now = next(self._rest, None), part.rows.features
        if features is None or len(features) != len(now):
            had = "no" if features is None else f"{len(features):,}"
            raise DataError(f"a batch of the probe set has {len(now):,} rows, and had {had} rows at the start")
        return features.to(now.device), {}


def _array(features: Sequence[Tensor]) -> np.ndarray:
    """(rows, p) of all batches; NumPy has no bfloat16, of which float32 holds every value."""
    every = torch.cat(list(features))
    return (every.float() if every.dtype == torch.bfloat16 else every).numpy()
