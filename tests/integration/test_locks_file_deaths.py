"""Deaths and freezes of those who hold a file lock, or wait for it: the others go on."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from locks import LeaseLock, LockUnavailable, from_url, hold
from locks.clock import NS_PER_S, now_ns
from locks.on_files.bell import reach
from locks.on_files.flock import locked_file
from locks.on_files.record import read_waiter, write_record
from tests.integration.locks_file_support import (
    LONG_MS,
    queue_up,
    serve,
    until_waiting,
)
from tests.integration.locks_support import ROOT, holder


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A folder of locks."""
    return f"file://{tmp_path}/locks"


@pytest.fixture
def lock(url: str) -> Iterator[LeaseLock]:
    """This process's lock object."""
    made = from_url(url)
    made.ping()
    yield made
    made.close()


def _wait_in_vain(lock: LeaseLock) -> None:
    with pytest.raises(LockUnavailable, match="closed"):
        lock.acquire("key", lease_ms=1_000, wait_ms=LONG_MS)


def test_a_killed_waiter_leaves_the_queue_though_nothing_else_happens(
    url: str, lock: LeaseLock
) -> None:
    with ExitStack() as stack:
        lease = stack.enter_context(hold(lock, "key", lease_ms=LONG_MS, wait_ms=0))
        queue = [queue_up(stack, lock, url) for _ in range(3)]
        queue[1].kill()
        until_waiting(lock, 2)
        queue[0].kill()
        until_waiting(lock, 1)
        lease.release()
        assert serve(queue[2]) > lease.fence


def test_a_frozen_waiter_loses_its_turn_after_its_claim_and_comes_again(
    url: str, lock: LeaseLock
) -> None:
    with ExitStack() as stack:
        lease = stack.enter_context(hold(lock, "key", lease_ms=LONG_MS, wait_ms=0))
        frozen, awake = queue_up(stack, lock, url), queue_up(stack, lock, url)
        frozen.freeze()
        lease.release()
        fence = serve(awake)
        frozen.thaw()
        until_waiting(lock, 1)
        assert awake.ask("check") == "held"
        assert awake.ask("release") == "released"
        assert serve(frozen) > fence


def test_a_killed_holder_is_followed_though_its_lease_is_long(url: str, lock: LeaseLock) -> None:
    with ExitStack() as stack:
        dead = stack.enter_context(holder(url, "key", lease_ms=LONG_MS))
        assert dead.listen() == "started"
        fence = serve(dead)
        queue = [queue_up(stack, lock, url) for _ in range(2)]
        dead.kill()
        assert serve(queue[0]) > fence
        queue[0].kill()
        assert serve(queue[1]) > fence


def test_the_key_goes_on_when_the_holder_died_between_handing_over_and_ringing(
    url: str, lock: LeaseLock, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        lease = lock.acquire("key", lease_ms=LONG_MS, wait_ms=0)
        waiter = queue_up(stack, lock, url)
        path = tmp_path / "locks" / "held" / "key"
        with locked_file(path, create=False, patience_s=5) as file:
            assert file is not None
            first = read_waiter(file.fileno(), 0)
            assert first is not None
            claim = first.claim(now_ns() + NS_PER_S, 0)
            write_record(file.fileno(), replace(claim, first=1, after=1))
        serve(waiter)
        lease.release()  # of what is no longer ours


def test_a_waiter_that_gives_up_breaks_no_chain(url: str, lock: LeaseLock) -> None:
    with ExitStack() as stack:
        dead = stack.enter_context(holder(url, "key", lease_ms=LONG_MS))
        assert dead.listen() == "started"
        serve(dead)
        first = queue_up(stack, lock, url)
        leaving = from_url(url)
        thread = threading.Thread(target=_wait_in_vain, args=(leaving,))
        thread.start()
        until_waiting(lock, 2)
        last = queue_up(stack, lock, url)
        leaving.close()
        thread.join()
        # The last one watches the first one now, and then the holder.
        first.kill()
        until_waiting(lock, 1)
        dead.kill()
        serve(last)


def test_what_killed_processes_left_is_swept_by_the_next_one(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    with ExitStack() as stack:
        lock = from_url(url)
        lease = lock.acquire("key", lease_ms=LONG_MS, wait_ms=0)
        queue = [queue_up(stack, lock, url) for _ in range(2)]
        holders = [stack.enter_context(holder(url, f"k{n}", lease_ms=LONG_MS)) for n in range(2)]
        for process in holders:
            assert process.listen() == "started"
            serve(process)
        for process in [*queue, *holders]:
            process.kill()
        lease.ensure_held()
        lock.close()
        assert len(list((folder / "held").iterdir())) == 2
        lock = from_url(url)
        lock.acquire("another", lease_ms=LONG_MS, wait_ms=0).release()
        lock.close()
    assert list((folder / "held").iterdir()) == []
    assert list((folder / "waiting").iterdir()) == []


FORKER = """
import os, sys, threading, time
from locks import from_url

lock = from_url(sys.argv[1])
threading.Thread(
    target=lambda: lock.acquire("key", lease_ms=60_000, wait_ms=600_000), daemon=True
).start()
while not any(held.waiters for held in lock.held()):
    time.sleep(0.01)
if os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(600)
time.sleep(600)
"""


def test_a_forked_child_does_not_keep_its_dead_parent_s_place(
    url: str, lock: LeaseLock, tmp_path: Path
) -> None:
    with hold(lock, "key", lease_ms=LONG_MS, wait_ms=0):
        parent = subprocess.Popen(
            [sys.executable, "-c", FORKER, url], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        with parent:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            try:
                parent.kill()
                os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
                (bell,) = (tmp_path / "locks" / "waiting").iterdir()
                assert reach(bell) is None
            finally:
                os.kill(child, signal.SIGKILL)
