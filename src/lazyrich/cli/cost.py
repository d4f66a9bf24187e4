"""``lazyrich cost``: what a measurement would take."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg


def cost(
    *,
    samples: Annotated[int, arg(help="Number of samples, or of tokens if the model answers at every token.", metavar="N")],
    features: Annotated[int, arg(help="Number of inputs of the last linear layer.", metavar="P")],
    outputs: Annotated[int, arg(help="Number of outputs of the last linear layer.", metavar="C")],
    targets: Annotated[
        int | None, arg(help="Number of target columns.", metavar="T", help_behavior_hint="(default: class labels)")
    ] = None,
    layers: Annotated[
        tuple[int, ...], arg(help="Widths of other layers to measure.", metavar="P…", help_behavior_hint="(default: none)")
    ] = (),
    processes: Annotated[int, arg(help="Number of processes that share the samples.", metavar="N")] = 1,
    positions: Annotated[bool, arg(help="The rows are tokens or pixels.")] = False,
) -> None:
    """Estimate what a measurement adds to the model's own forward passes."""
    from ..measurement.cost import measurement_cost

    estimate = measurement_cost(
        samples, features, outputs, targets=targets, layers=layers, processes=processes, positions=positions
    )
    print(estimate)
    print(f"{'time on this CPU':<31}about {estimate.seconds():.2g} s")
