"""What the tests of waiting for a file lock share: queueing processes up behind each other."""

from contextlib import ExitStack

from locks import LeaseLock, LockTimeout
from tests.integration.locks_support import Process, holder
from tests.processes import wait_until

# Ends a wait that should end by itself.
PATIENCE_MS = 30_000
LONG_MS = 3_600_000


def waiters(lock: LeaseLock) -> tuple[str, ...]:
    """Who waits for `key`, the next one first."""
    return next((held.waiters for held in lock.held() if held.key == "key"), ())


def until_waiting(lock: LeaseLock, number: int) -> None:
    """Wait until so many wait for `key`."""
    wait_until(lambda: len(waiters(lock)) == number, f"{number} wait for the key")


def is_free(lock: LeaseLock) -> bool:
    """Whether `key` can be had at once."""
    try:
        lock.acquire("key", lease_ms=1_000, wait_ms=0).release()
    except LockTimeout:
        return False
    return True


def queue_up(stack: ExitStack, lock: LeaseLock, url: str) -> Process:
    """Another process, waiting for `key` behind those who wait already."""
    before = len(waiters(lock))
    process = stack.enter_context(holder(url, "key", lease_ms=LONG_MS, wait_ms=PATIENCE_MS))
    assert process.listen() == "started"
    until_waiting(lock, before + 1)
    return process


def serve(process: Process) -> int:
    """Its fence, once it holds the key."""
    line = process.listen()
    assert line.startswith("held "), line
    return int(line.removeprefix("held "))
