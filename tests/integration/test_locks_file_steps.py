"""A process is killed, or frozen for a moment, before each single step of the file lock.

A forked child counts its calls of the file system and sends itself the signal before the n-th;
then it is forked again for the next n, until it comes through. The others must be served all the
same, in their order, and nothing may stay behind.
"""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from locks import Lease, LeaseLock, from_url
from locks.on_files.sweep import Sweep
from tests.integration.locks_file_support import LONG_MS, PATIENCE_MS, until_waiting, waiters
from tests.processes import wait_until

STEPS: list[tuple[Any, str]] = [
    (os, "open"),
    (os, "close"),
    (os, "pwrite"),
    (os, "write"),
    (os, "unlink"),
    (os, "mkfifo"),
    (fcntl, "flock"),
]
FROZEN_S = 0.02
SIGNALS = [signal.SIGKILL, signal.SIGSTOP]


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[LeaseLock]:
    """This process's lock object."""
    made = from_url(f"file://{tmp_path}/locks")
    made.ping()
    yield made
    made.close()


def _signal_before(step: int, which: signal.Signals) -> None:
    """From now on count this process's steps, and send it the signal before that one."""
    steps = count(1)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def step_or_die(*arguments: Any, **named: Any) -> Any:
            if next(steps) == step:
                os.kill(os.getpid(), which)
            return call(*arguments, **named)

        return step_or_die

    for module, name in STEPS:
        setattr(module, name, counted(getattr(module, name)))


class Child:
    """A fork of this process that does some work, and is thawed whenever it stops."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        self.outcome: int | None = None
        self.was_frozen = False
        self._keeper = threading.Thread(target=self._keep)
        self._keeper.start()

    def _keep(self) -> None:
        while True:
            _, status = os.waitpid(self.pid, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                self.was_frozen = True
                time.sleep(FROZEN_S)
                os.kill(self.pid, signal.SIGCONT)
                continue
            self.outcome = os.waitstatus_to_exitcode(status)
            return

    def has_ended(self) -> bool:
        """Whether it is over."""
        return self.outcome is not None

    def end(self, which: signal.Signals) -> bool:
        """Wait for its end; gives whether the signal struck. Fails if it ended in another way."""
        self._keeper.join(PATIENCE_MS / 1_000)
        if self.outcome is None:
            os.kill(self.pid, signal.SIGKILL)
            self._keeper.join()
            pytest.fail("The child hangs.")
        if which == signal.SIGKILL and self.outcome == -signal.SIGKILL:
            return True
        assert self.outcome == 0
        return self.was_frozen


class Waiter(threading.Thread):
    """A thread of ours that waits for `key`, and gives it back at once."""

    def __init__(self, lock: LeaseLock) -> None:
        super().__init__()
        self._lock = lock
        self.lease: Lease | None = None
        self.start()

    def run(self) -> None:
        """Wait, hold, release."""
        self.lease = self._lock.acquire("key", lease_ms=LONG_MS, wait_ms=PATIENCE_MS)
        self.lease.release()

    def fence(self) -> int:
        """The fence that it got."""
        self.join()
        assert self.lease is not None, "it was not served"
        return self.lease.fence


def _until_through(one_round: Callable[[int], bool], folder: Path, at_least: int) -> None:
    """Round by round, the signal one step later each time, until it comes too late to strike."""
    for step in count(1):
        has_struck = one_round(step)
        Sweep(folder / "held", folder / "waiting").whole()
        assert list((folder / "held").iterdir()) == [], f"step {step}"
        if not has_struck:
            assert step > at_least, "fewer steps than there must be"
            return


@pytest.mark.parametrize("which", SIGNALS)
def test_at_each_step_of_taking_and_giving_back(
    lock: LeaseLock, tmp_path: Path, which: signal.Signals
) -> None:
    fences = [0]

    def one_round(step: int) -> bool:
        def work() -> None:
            _signal_before(step, which)
            lock.acquire("key", lease_ms=LONG_MS, wait_ms=0).release()

        child = Child(work)
        has_struck = child.end(which)
        fences.append(Waiter(lock).fence())
        assert fences[-1] > fences[-2]
        return has_struck

    _until_through(one_round, tmp_path / "locks", at_least=10)


@pytest.mark.parametrize("which", SIGNALS)
def test_at_each_step_of_handing_over(
    lock: LeaseLock, tmp_path: Path, which: signal.Signals
) -> None:
    def one_round(step: int) -> bool:
        held_reading, held_writing = os.pipe()
        go_reading, go_writing = os.pipe()

        def work() -> None:
            lease = lock.acquire("key", lease_ms=LONG_MS, wait_ms=0)
            os.write(held_writing, b"held")
            os.read(go_reading, 1)
            _signal_before(step, which)
            lease.release()

        child = Child(work)
        assert os.read(held_reading, 4) == b"held"
        first = Waiter(lock)
        until_waiting(lock, 1)
        second = Waiter(lock)
        until_waiting(lock, 2)
        os.write(go_writing, b"!")
        assert first.fence() < second.fence()
        for file in (held_reading, held_writing, go_reading, go_writing):
            os.close(file)
        return child.end(which)

    _until_through(one_round, tmp_path / "locks", at_least=6)


@pytest.mark.parametrize("which", SIGNALS)
def test_at_each_step_of_queueing_up_and_of_being_served(
    lock: LeaseLock, tmp_path: Path, which: signal.Signals
) -> None:
    def one_round(step: int) -> bool:
        lease = lock.acquire("key", lease_ms=LONG_MS, wait_ms=0)

        def work() -> None:
            _signal_before(step, which)
            lock.acquire("key", lease_ms=LONG_MS, wait_ms=PATIENCE_MS).release()

        child = Child(work)
        wait_until(
            lambda: child.has_ended() or len(waiters(lock)) == 1, "it neither waits nor dies"
        )
        behind = Waiter(lock)
        wait_until(lambda: len(waiters(lock)) >= 1, "nobody waits behind it")
        lease.release()
        assert behind.fence() > lease.fence
        return child.end(which)

    _until_through(one_round, tmp_path / "locks", at_least=20)
