"""The features of the start on the rows that are measured: its network runs on each batch, or they were kept."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._support.processes import Processes
from ..errors import DataError, HeadError
from ..functional import kernel_alignment, standard_error
from ..gram import RETAINED_ROWS, FeaturePair, Gram, update_together
from ..model.batches import Batch, batches, first_dimension, is_one_shot, sample_limits
from ..model.checkpoints import load_checkpoint, load_state
from ..model.copying import copied_model
from ..model.layers import LayerFeatures, LayerPlan, Layers, layer_rows
from ..model.linear import unwrapped
from ..model.redraw import new_norms, settle
from ..model.undisturbed import undisturbed
from .one_pass import Known, OnePass, Part, head_name
from .sums import HeadSums, LayerSums

PAIR = ("features", "features of the start")


@contextmanager
def errors_name(network: str) -> Iterator[None]:
    """An error on the way through a network says which one it was."""
    try:
        yield
    except (HeadError, DataError) as error:
        raise type(error)(f"{network}: {error}") from error
    except RuntimeError as error:
        if type(error) is not RuntimeError:  # a type of its own, such as that of full memory, says more than the name
            raise
        raise RuntimeError(f"{network}: {error}") from error


class StartSource(Protocol):
    """Gives the features of the start for one part after the other."""

    def rows(self, part: Part, plan: LayerPlan | None) -> tuple[Tensor, LayerFeatures]:
        """(n, p) of a part; and of each layer in a plan, with the row of the head that each of its rows belongs to."""
        ...


class StartNetwork:
    """Runs the network of the start on each batch."""

    def __init__(self, network: nn.Module, one_pass: OnePass) -> None:
        self._network, self._pass = network, one_pass
        self._known: Known | None = None

    def rows(self, part: Part, plan: LayerPlan | None) -> tuple[Tensor, LayerFeatures]:
        """See :class:`StartSource`."""
        found = part.known.head
        name = head_name(part)
        one = OnePass(
            self._network, [part.batch.item], self._pass.device, Processes(False), forward=self._pass.forward,
            targets=self._pass.targets, reader=self._pass.reader,
            head=self._known or (self._network if found and found.module is self._pass.model else name or None),
        )  # fmt: skip
        layers = None if plan is None or not plan.leaders else Layers(self._network, list(plan.leaders), plan.pooling)
        with errors_name("start"):
            then = next(iter(one.parts("start", layers)), None)
        if then is None:  # an empty batch, which other processes wait for
            return part.rows.features[:0], {}
        self._known = then.known
        rows = then.rows.first(part.rows.samples)
        if rows.sizes != part.rows.sizes:
            raise DataError(
                f"start: it gives {rows.named_sizes} where the network gives {part.rows.named_sizes}: "
                "both must give the same rows"
            )
        inner = (
            {} if plan is None or then.layers is None else layer_rows(plan, then.layers, rows, part.batch, self._network, name)
        )
        return rows.features, inner


class StartSums:
    """What is summed of the features of the start: with the features now, for S_init; with the outputs now, for λ.

    Args:
        source: the features of the start; None where λ cannot be computed.
        plain: the same without statistics of batch norm that had seen no batch; None where S_init is not wanted.
        note: why λ cannot be computed.

    Attributes:
        gram: features of the start and outputs now; None before the first part.
        pair: features now and at the start; None before the first part.
    """

    def __init__(
        self, one_pass: OnePass, source: StartSource | None, plain: StartSource | None = None, *, note: str | None = None
    ) -> None:
        self._pass, self._source, self._plain, self.note = one_pass, source, plain, note
        self.gram: Gram | None = None
        self.pair: FeaturePair | None = None

    def add(self, part: Part, head: HeadSums | None = None, layers: LayerSums | None = None) -> None:
        """Adds a part; to the sums of the head and of the layers too, which then retain the same rows."""
        now, retain = part.rows.features, 0 if part.rows.positions > 1 else RETAINED_ROWS
        of_layers, plan = ({}, None) if layers is None else (layers.features(part), layers.plan)
        features, then = (None, {}) if self._source is None else self._source.rows(part, plan)
        if layers is not None:
            layers.add(part, of_layers, then)
        filled: list[tuple[Gram | FeaturePair, dict[str, Tensor | None]]] = []
        if features is not None:
            self.gram = self.gram or part.empty_gram(retain=retain)
            filled.append((self.gram, {"features": features.to(now.dtype), "outputs": part.outputs}))
        if self._plain is not None:
            plain = features if self._plain is self._source and features is not None else self._plain.rows(part, None)[0]
            self.pair = self.pair or FeaturePair(*PAIR, retain=retain, strata=part.num_strata)
            filled.append((self.pair, dict(zip(PAIR, (now, plain.to(now.dtype)), strict=True))))
        if head is not None:
            head.add(part, *filled)
        else:
            for sums, blocks in filled:
                update_together([sums], [blocks], part.weights, part.strata)

    def finish(self) -> list[Gram | FeaturePair]:
        """The filled sums."""
        return [sums for sums in (self.gram, self.pair) if sums is not None]

    def alignment(self) -> tuple[float | None, float | None]:
        """S_init and its standard error; None where it was not wanted."""
        if self.pair is None:
            return None, None
        return float(kernel_alignment(self.pair)), standard_error("kernel_alignment", self.pair)


def start_network(start: nn.Module | Mapping[str, Any] | str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """The network of the start: a module itself, else a copy of the model with the weights of a state dict or a file.

    Raises:
        CheckpointError: the weights cannot be read, or do not fit.
    """
    if isinstance(start, nn.Module):
        return unwrapped(start)
    network = copied_model(model)
    if isinstance(start, Mapping):
        load_state(network, start, "start: the state dict")
    else:
        load_checkpoint(network, Path(start))
    return network


def sums_of_network(network: nn.Module, one_pass: OnePass) -> StartSums:
    """The sums of a network of the start, which must be undisturbed.

    Its batch norm that has seen no batch, where the measured network's has seen one, is given the statistics of the same rows:
    otherwise it does nothing, and features that were never trained differ from those of the start. They take a pass over the
    data. S_init takes the network as it is.
    """
    plain = StartNetwork(network, one_pass)
    if not new_norms(network, one_pass.model):
        return StartSums(one_pass, plain, plain)
    if is_one_shot(one_pass.data):
        note = "no laziness ratio: batch norm of the start has seen no batch, and data can be used once; pass a DataLoader"
        return StartSums(one_pass, None, plain, note=note)
    return StartSums(one_pass, StartNetwork(settled_copy(network, one_pass), one_pass), plain)


def settled_copy(network: nn.Module, one_pass: OnePass) -> nn.Module:
    """A copy whose new batch norm, where the measured network's is not new, has the statistics of the rows of a pass."""
    settled = copied_model(network)
    settle_on(settled, new_norms(settled, one_pass.model), one_pass)
    return settled


def settle_on(network: nn.Module, norms: Mapping[str, _BatchNorm], one_pass: OnePass) -> None:
    """Gives batch norm the statistics of the rows of a pass, over all processes; the pass itself then sees the same data."""
    processes, data = one_pass.processes, one_pass.data
    run = sample_limits(data, one_pass.num_samples, (processes.rank, processes.size))[0]

    def stream() -> Iterator[Batch]:
        samples = 0
        for batch in batches(data, one_pass.device, one_pass.targets, free=one_pass.forward is not None):
            yield batch
            samples += 0 if batch.is_empty else first_dimension(batch.inputs)
            if run is not None and samples >= run:
                return

    if not norms:
        return
    with undisturbed(one_pass.model, data, None):
        settle(network, norms, processes.in_step(stream()), forward=one_pass.forward)
    for norm in norms.values():
        if processes.together and norm.num_batches_tracked is not None:
            count = norm.num_batches_tracked.double()
            for statistic in (norm.running_mean, norm.running_var):
                if statistic is not None:
                    statistic.mul_(count)
                    processes.add(statistic)
            processes.add(count)
            for statistic in (norm.running_mean, norm.running_var):
                if statistic is not None and count:
                    statistic.div_(count)
            norm.num_batches_tracked.fill_(int(count))
