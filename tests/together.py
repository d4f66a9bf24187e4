"""Threads in place of the processes that measure together."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

from lazyrich import DataError


class Together:
    """Has the methods of `Processes`; the threads wait for one another."""

    together = True

    def __init__(self, count):
        self.barrier, self.values, self.ranks = threading.Barrier(count, timeout=900), [None] * count, threading.local()

    def exchanged(self, value):
        self.values[self.ranks.mine] = copy.deepcopy(value)
        self.barrier.wait()
        values = list(self.values)
        self.barrier.wait()
        return values

    def gather(self, value):
        return self.exchanged(value)

    def add(self, x):
        x.copy_(sum(self.exchanged(x)))

    def reduce(self, grams):
        """Each Gram after the reduction, or the error that it raised."""

        def one(rank):
            self.ranks.mine = rank
            try:
                grams[rank].reduce(self)
            except DataError as error:
                return error
            return grams[rank]

        with ThreadPoolExecutor(len(grams)) as pool:
            return list(pool.map(one, range(len(grams))))
