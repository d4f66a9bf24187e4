"""A process that ends itself by kill -9 at a chosen write, so that a test of interruption waits for no clock."""

import os
import signal


def dies_at(write: int, *, torn: bool) -> None:
    """From here on this process kills itself at a durable write of its own, counted from 1.

    Every file of a run is flushed with ``os.fsync`` before it counts, so that is the event.

    Args:
        write: at which call; 0 never.
        torn: lose the last bytes of the file first, as a crash in the middle of the write does.
    """
    written, flush = 0, os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal written
        flush(descriptor)
        written += 1
        if written == write:
            if torn:
                os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - 20))
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync


def main(run) -> None:
    """Calls ``run(folder)`` in a child for each line "write torn folder" of the input; prints the child's exit status.

    Forked, because importing takes longer than a run.
    """
    import sys

    for line in sys.stdin:
        write, torn, folder = line.rstrip("\n").split(" ", 2)
        child = os.fork()
        if child == 0:
            dies_at(int(write), torn=torn == "torn")
            run(folder)
            os._exit(0)
        print(os.waitpid(child, 0)[1], flush=True)


class Killable:
    """The other end of :func:`main`: a program that runs again and again, and is killed where the test says."""

    def __init__(self, program) -> None:
        if not hasattr(os, "fork"):
            import pytest  # here, because the program itself does not need it

            pytest.skip("the program forks its children")
        self._program = program

    def __call__(self, folder, write: int = 0, *, torn: bool = False) -> bool:
        """Runs in this folder; whether it was killed. Any other end than 0 or kill -9 is an error."""
        status = self.end(folder, write, torn=torn)
        assert status in (0, -signal.SIGKILL), status
        return status != 0

    def end(self, folder, write: int = 0, *, torn: bool = False) -> int:
        """Runs in this folder; the exit status, which is negative for a signal."""
        self._program.stdin.write(f"{write} {'torn' if torn else 'whole'} {folder}\n")
        self._program.stdin.flush()
        return os.waitstatus_to_exitcode(int(self._program.stdout.readline()))
