"""The processes that measure together: they agree before every step, so that trouble on one ends all and hangs none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import DataError

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
        self._told = False
        self._asked: Any = None  # the exchange of states that is under way
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

    def in_step(self, stream: Iterable[Item], *, ahead: bool = True) -> Iterator[Item]:
        """The stream, one item for each process at a time.

        Args:
            ahead: agree on the next item while this one is worked on, so that nobody waits for a word. An error then reaches the
                others an item later: not for work on an item that needs all processes.

        Raises:
            DataError: on every process, if one runs out before the others.
        """
        if not self.together:
            yield from stream
            return
        count, iterator = 0, iter(stream)
        item = next(iterator, None)
        self._ask(_FINISHED if item is None else _GOES_ON)
        while True:
            states = self._answer()
            if all(s == _FINISHED for s in states):
                return
            if any(s == _FINISHED for s in states):
                ended = [rank for rank, s in enumerate(states) if s == _FINISHED]
                self._told = True
                raise DataError(
                    f"data: process {', '.join(map(str, ended))} of {self.size} ran out after {count} batches while others have "
                    "more; share the data with torch.utils.data.DistributedSampler, or measure on one process alone with "
                    "distributed=False"
                )
            count += 1
            if not ahead and item is not None:
                yield item
            coming = next(iterator, None)
            self._ask(_FINISHED if coming is None else _GOES_ON)
            if ahead and item is not None:
                yield item
            item = coming

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """An error inside ends every process with an error."""
        try:
            yield
        except Exception as error:
            if self.together and not self._told:
                self._agree(_FAILED, error)
            raise

    def _agree(self, state: int, error: Exception | None = None) -> list[int]:
        """Tells this process's state and waits for those of all."""
        if self._asked is not None:
            states = self._answer(error)
            if self._told:
                return states
        self._ask(state)
        return self._answer(error)

    def _ask(self, state: int) -> None:
        mine = torch.tensor([state], device=self._device)
        states = [torch.empty_like(mine) for _ in range(self.size)]
        self._asked = dist.all_gather(states, mine, group=self._group, async_op=True), states

    def _answer(self, error: Exception | None = None) -> list[int]:
        """The states that all told when they were last asked."""
        (work, states), self._asked = self._asked, None
        work.wait()
        listed = torch.cat(states).tolist()
        if _FAILED in listed:
            self._told = True
            messages = self._gathered(None if error is None else f"{type(error).__name__}: {error}")
            if error is None:
                failed = next(rank for rank, message in enumerate(messages) if message is not None)
                raise DataError(f"process {failed} of {self.size} failed: {messages[failed]}")
        return listed

    def _gathered(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values
