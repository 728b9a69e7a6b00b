"""Pipes with names (fifo(7)) by which the waiters of the file lock are woken.

A ring says no more than "look again": what is true stands in the key's file. So a ring too many
costs a look, and a lost one the time until the next look by the clock. Nobody reads a pipe whose
process has died: whoever wants to ring is told so by the kernel at once.
"""

import errno
import os
import secrets
import select
import threading
from contextlib import suppress
from pathlib import Path

from locks.errors import LockUnavailable
from locks.on_files.flock import StrPath, locked_folder

# More waiting threads than this in one process make bells that are thrown away after use.
MAX_IDLE = 64
_MODE = 0o660
_MS_PER_S = 1_000
_DRAIN_BYTES = 4_096
# For a process that sweeps; one that is stopped while it does so must not stop us.
_PATIENCE_S = 0.2
# What open(2) says of a pipe that nobody reads, or that is there no more.
_DEAD = (errno.ENXIO, errno.ENOENT)


class Bell:
    """One pipe; one thread at a time waits for it."""

    def __init__(self, folder: Path) -> None:
        self.name = secrets.token_hex(12)
        self._path = folder / self.name
        # Between the two calls it looks dead: nobody must sweep then (see sweep).
        with locked_folder(folder, shared=True, patience_s=_PATIENCE_S):
            os.mkfifo(self._path, _MODE)
            try:
                # For writing too: else it would count as hung up while nobody else has it open.
                self._file = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                with suppress(OSError):
                    self._path.unlink()
                raise

    def wait(self, timeout_s: float, other_file: int | None = None) -> bool:
        """Until it rings or the other descriptor can be read; False if the time ran out first."""
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        if other_file is not None:
            poll.register(other_file, select.POLLIN)
        is_called = bool(poll.poll(timeout_s * _MS_PER_S))
        with suppress(BlockingIOError):
            os.read(self._file, _DRAIN_BYTES)
        return is_called

    def ring(self) -> None:
        """Wake our own waiting thread."""
        with suppress(BlockingIOError):
            os.write(self._file, b"!")

    def is_hung(self) -> bool:
        """Whether others can still find it."""
        return self._path.exists()

    def drop(self) -> None:
        """It is no longer needed."""
        with suppress(OSError):
            self._path.unlink()
        self.close()

    def close(self) -> None:
        """Close our descriptor only."""
        os.close(self._file)


def reach(path: StrPath) -> int | None:
    """A descriptor by which to ring a bell; None if its process has died. Removes a dead bell.

    Raises OSError for a bell that cannot be judged.
    """
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _DEAD:
            raise
    # A bell is open before anybody learns its name from a queue, and no name is used again.
    with suppress(OSError):
        os.unlink(path)
    return None


def sweep(path: Path) -> None:
    """Remove a bell if its process has died."""
    with locked_folder(path.parent, shared=False, patience_s=0) as is_alone:
        file = reach(path) if is_alone else None
        if file is not None:
            os.close(file)


def ring(file: int) -> None:
    """Ring what was reached, and close it."""
    # Full: it is ringing already. Broken: its process died meanwhile.
    with suppress(BlockingIOError, BrokenPipeError):
        os.write(file, b"!")
    os.close(file)


class Bells:
    """The bells of one process, kept for the next wait."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._guard = threading.RLock()  # a signal's handler may close what it has interrupted
        self._idle: list[Bell] = []
        self._all: set[Bell] = set()
        self._closed = False

    def idle(self) -> Bell | None:
        """One that is not in use and can be found by others, if there is any."""
        while True:
            with self._guard:
                if not self._idle:
                    return None
                bell = self._idle.pop()
            if bell.is_hung():
                return bell
            self.drop(bell)

    def fresh(self) -> Bell:
        """A new one. Raises LockUnavailable."""
        try:
            bell = Bell(self.folder)
        except OSError as error:
            raise LockUnavailable(
                f"In {self.folder} no pipe can be made: {error.strerror}."
            ) from error
        with self._guard:
            self._all.add(bell)
        return bell

    def put_back(self, bell: Bell) -> None:
        """It is no longer in use."""
        with self._guard:
            if len(self._idle) < MAX_IDLE and bell in self._all and not self._closed:
                self._idle.append(bell)
                return
        self.drop(bell)

    def drop(self, bell: Bell) -> None:
        """It is one too many, or was deleted by others."""
        with self._guard:
            if bell not in self._all:
                return
            self._all.discard(bell)
        bell.drop()

    def close(self) -> None:
        """Drop those that are idle, and wake those who wait, so that they see that all is over."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
            for bell in self._all.difference(idle):
                bell.ring()
        for bell in idle:
            self.drop(bell)

    def forget(self) -> None:
        """In a forked child: close the copies, lest the parent's waiters seem to live when it
        dies."""
        for bell in list(self._all):
            with suppress(OSError):
                bell.close()
        self._all.clear()
        self._idle.clear()
