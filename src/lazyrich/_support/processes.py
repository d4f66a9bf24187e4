"""The processes that measure together. They agree at intervals, so that an error on one ends all, and none waits for ever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import DataError

AGREE_EVERY = 32  # items, at most
_GOES_ON, _FINISHED, _FAILED = 0, 1, 2
Item = TypeVar("Item")


class Processes:
    """A process group, or this process alone.

    Args:
        together: whether to use a process group, if one is initialised.
        group: the group; None for the default one.
    """

    def __init__(self, together: bool = True, group: Any = None) -> None:
        self.together = together and dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1
        self.rank, self.size = (dist.get_rank(group), dist.get_world_size(group)) if self.together else (0, 1)
        self._group = group
        self._reported = False  # whether the others know of the error
        if self.together:
            on_gpu = dist.get_backend(group) == "nccl"
            self._device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in the order of their ranks."""
        if not self.together:
            return [value]
        self._agree(_GOES_ON)
        return self._gathered(value)

    def add(self, x: Tensor) -> None:
        """Replaces a tensor by its sum over the processes."""
        if self.together:
            moved = x.to(self._device)
            dist.all_reduce(moved, group=self._group)
            x.copy_(moved)

    def in_step(self, stream: Iterable[Item], *, apart: int = AGREE_EVERY) -> Iterator[Item]:
        """The items of the stream, as long as all processes have more; they agree before items 1, 2, 4, 8 and so on.

        Args:
            apart: maximum number of items between two agreements. 1 if all processes must work on an item together. A larger
                number lets processes run ahead of one another; an error then reaches the others some items later.

        Raises:
            DataError: on every process, if one has fewer items than the others.
        """
        if not self.together:
            yield from stream
            return
        count, following, iterator = 0, 0, iter(stream)
        while True:
            item = next(iterator, None)
            if item is None or count == following:
                states, counts = zip(*self._agree(_FINISHED if item is None else _GOES_ON, count), strict=True)
                if _FINISHED in states and (_GOES_ON in states or len(set(counts)) > 1):
                    self._reported = True
                    first = min(c for c, s in zip(counts, states, strict=True) if s == _FINISHED)
                    ended = [rank for rank, s in enumerate(states) if s == _FINISHED and counts[rank] == first]
                    raise DataError(
                        f"data: process {', '.join(map(str, ended))} of {self.size} ran out after {first} batches while others "
                        "have more; share the data with torch.utils.data.DistributedSampler, or measure on one process alone "
                        "with distributed=False"
                    )
                following = count + min(max(count, 1), apart)
            if item is None:
                return
            count += 1
            yield item

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Raise an error on every process if one is raised inside on this one."""
        try:
            yield
        except Exception as error:
            if self.together and not self._reported:
                self._agree(_FAILED, error=error)
            raise

    def _agree(self, state: int, count: int = 0, error: Exception | None = None) -> list[tuple[int, int]]:
        """The state of every process, and how many items it has processed."""
        mine = torch.tensor([state, count], device=self._device)
        states = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(states, mine, group=self._group)
        listed = [(int(state), int(count)) for state, count in torch.stack(states).tolist()]
        if any(state == _FAILED for state, _ in listed):
            self._reported = True
            messages = self._gathered(None if error is None else f"{type(error).__name__}: {error}")
            if error is None:
                failed = next(rank for rank, message in enumerate(messages) if message is not None)
                raise DataError(f"process {failed} of {self.size} failed: {messages[failed]}")
        return listed

    def _gathered(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values
