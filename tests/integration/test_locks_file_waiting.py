"""Those who wait for a file lock: served in their order, asleep, and past the dead and frozen."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from locks import LeaseLock, LockObserver, LockTimeout, LockUnavailable, from_url, hold
from locks.bell import reach
from locks.clock import NS_PER_S, now_ns
from locks.flock import locked_file
from locks.lease_record import read_waiter, write_record
from tests.integration.locks_support import ROOT, Process, holder
from tests.processes import wait_until

PATIENCE_MS = 30_000
LONG_MS = 3_600_000


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


def _waiters(lock: LeaseLock, key: str = "key") -> tuple[str, ...]:
    return next((held.waiters for held in lock.held() if held.key == key), ())


def _until_waiting(lock: LeaseLock, number: int) -> None:
    wait_until(lambda: len(_waiters(lock)) == number, f"{number} wait for the key")


def _is_free(lock: LeaseLock, key: str = "key") -> bool:
    try:
        lock.acquire(key, lease_ms=1_000, wait_ms=0).release()
    except LockTimeout:
        return False
    return True


def _queue_up(stack: ExitStack, lock: LeaseLock, url: str, wait_ms: int = PATIENCE_MS) -> Process:
    """Another process, waiting for the key behind those who wait already."""
    before = len(_waiters(lock))
    process = stack.enter_context(holder(url, "key", lease_ms=LONG_MS, wait_ms=wait_ms))
    assert process.listen() == "started"
    _until_waiting(lock, before + 1)
    return process


def _serve(process: Process) -> int:
    """Its fence, once it holds the key."""
    line = process.listen()
    assert line.startswith("held "), line
    return int(line.removeprefix("held "))


# Order


def test_waiters_are_served_in_the_order_in_which_they_came(url: str, lock: LeaseLock) -> None:
    served: list[int] = []

    def wait(number: int) -> None:
        with hold(lock, "key", lease_ms=LONG_MS, wait_ms=PATIENCE_MS):
            served.append(number)

    with hold(lock, "key", lease_ms=LONG_MS, wait_ms=0):
        threads = [threading.Thread(target=wait, args=(number,)) for number in range(20)]
        for number, thread in enumerate(threads):
            thread.start()
            _until_waiting(lock, number + 1)
    for thread in threads:
        thread.join()
    assert served == list(range(20))
    assert _is_free(lock)


def test_who_comes_later_overtakes_nobody_even_when_the_holder_is_gone(
    url: str, lock: LeaseLock
) -> None:
    with ExitStack() as stack:
        dead = stack.enter_context(holder(url, "key", lease_ms=LONG_MS))
        assert dead.listen() == "started"
        _serve(dead)
        waiter = _queue_up(stack, lock, url)
        waiter.freeze()
        dead.kill()
        # The key is free, but it is the waiter's turn for as long as a claim lasts.
        assert not _is_free(lock)
        waiter.thaw()
        _serve(waiter)
        assert not _is_free(lock)


class _Told(LockObserver):
    def __init__(self) -> None:
        self.granted_behind: list[int] = []
        self.handed_over_ns: list[int] = []

    def granted(self, backend: str, wait_ns: int, ahead: int) -> None:
        self.granted_behind.append(ahead)

    def handed_over(self, backend: str, took_ns: int) -> None:
        self.handed_over_ns.append(took_ns)


def test_a_lease_tells_how_many_were_before_it_and_how_fast_it_was_handed_over(
    url: str, lock: LeaseLock
) -> None:
    told = _Told()
    watched = from_url(url, told)

    def wait() -> None:
        watched.acquire("key", lease_ms=LONG_MS, wait_ms=PATIENCE_MS).release()

    threads = [threading.Thread(target=wait) for _ in range(3)]
    first = lock.acquire("key", lease_ms=LONG_MS, wait_ms=0)
    for number, thread in enumerate(threads):
        thread.start()
        _until_waiting(lock, number + 1)
    before_ns = now_ns()
    first.release()
    for thread in threads:
        thread.join()
    took_ns = now_ns() - before_ns
    watched.acquire("key", lease_ms=1_000, wait_ms=0).release()
    watched.close()
    assert told.granted_behind == [1, 2, 3, 0]
    assert len(told.handed_over_ns) == 3
    assert all(0 < each < took_ns for each in told.handed_over_ns)


def test_an_operator_sees_holder_and_waiters_in_order_and_can_let_the_next_one_in(
    url: str, lock: LeaseLock
) -> None:
    with ExitStack() as stack:
        first = lock.acquire("key", lease_ms=LONG_MS, wait_ms=0)
        waiters = [_queue_up(stack, lock, url) for _ in range(2)]
        names = [f"{os.uname().nodename} {process.pid}" for process in waiters]
        broken = lock.break_lease("key")
        assert broken is not None
        assert (broken.fence, list(broken.waiters)) == (first.fence, names)
        assert _serve(waiters[0]) > first.fence
        (shown,) = lock.held()
        assert (shown.holder, list(shown.waiters)) == (names[0], names[1:])


# Deaths and freezes


def test_a_killed_waiter_leaves_the_queue_though_nothing_else_happens(
    url: str, lock: LeaseLock
) -> None:
    with ExitStack() as stack:
        lease = stack.enter_context(hold(lock, "key", lease_ms=LONG_MS, wait_ms=0))
        waiters = [_queue_up(stack, lock, url) for _ in range(3)]
        waiters[1].kill()
        _until_waiting(lock, 2)
        waiters[0].kill()
        _until_waiting(lock, 1)
        lease.release()
        assert _serve(waiters[2]) > lease.fence


def test_a_frozen_waiter_loses_its_turn_after_its_claim_and_comes_again(
    url: str, lock: LeaseLock
) -> None:
    with ExitStack() as stack:
        lease = stack.enter_context(hold(lock, "key", lease_ms=LONG_MS, wait_ms=0))
        frozen, awake = _queue_up(stack, lock, url), _queue_up(stack, lock, url)
        frozen.freeze()
        lease.release()
        fence = _serve(awake)
        frozen.thaw()
        _until_waiting(lock, 1)
        assert awake.ask("check") == "held"
        assert awake.ask("release") == "released"
        assert _serve(frozen) > fence


def test_a_killed_holder_is_followed_though_its_lease_is_long(url: str, lock: LeaseLock) -> None:
    with ExitStack() as stack:
        dead = stack.enter_context(holder(url, "key", lease_ms=LONG_MS))
        assert dead.listen() == "started"
        fence = _serve(dead)
        waiters = [_queue_up(stack, lock, url) for _ in range(2)]
        dead.kill()
        assert _serve(waiters[0]) > fence
        waiters[0].kill()
        assert _serve(waiters[1]) > fence


def test_the_key_goes_on_when_the_holder_died_between_handing_over_and_ringing(
    url: str, lock: LeaseLock, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        lock.acquire("key", lease_ms=LONG_MS, wait_ms=0)
        waiter = _queue_up(stack, lock, url)
        path = tmp_path / "locks" / "held" / "key"
        with locked_file(path, create=False, patience_s=5) as file:
            assert file is not None
            first = read_waiter(file, 0)
            assert first is not None
            claim = first.claim(now_ns() + NS_PER_S, 0)
            write_record(file, replace(claim, first=1, after=1))
        _serve(waiter)


def test_a_waiter_that_gives_up_breaks_no_chain(url: str, lock: LeaseLock) -> None:
    with ExitStack() as stack:
        dead = stack.enter_context(holder(url, "key", lease_ms=LONG_MS))
        assert dead.listen() == "started"
        _serve(dead)
        first = _queue_up(stack, lock, url)
        leaving = _queue_up(stack, lock, url, wait_ms=3_000)
        last = _queue_up(stack, lock, url)
        assert leaving.listen() == "LockTimeout"
        # The last one watches the first one now, and then the holder.
        first.kill()
        _until_waiting(lock, 1)
        dead.kill()
        _serve(last)


def test_what_killed_processes_left_is_swept_by_the_next_one(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    with ExitStack() as stack:
        lock = from_url(url)
        lock.acquire("key", lease_ms=LONG_MS, wait_ms=0)
        waiters = [_queue_up(stack, lock, url) for _ in range(4)]
        holders = [stack.enter_context(holder(url, f"k{n}", lease_ms=LONG_MS)) for n in range(3)]
        for process in holders:
            assert process.listen() == "started"
            _serve(process)
        for process in [*waiters, *holders]:
            process.kill()
        lock.close()
        assert len(list((folder / "held").iterdir())) == 3
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


# Sleep, and ends


def _switches(pid: int) -> int:
    """How often the process went to sleep by itself (proc_pid_status(5)), in all its threads."""
    return sum(
        int(line.split()[1])
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def test_those_who_wait_sleep(url: str, lock: LeaseLock) -> None:
    with ExitStack() as stack:
        stack.enter_context(hold(lock, "key", lease_ms=LONG_MS, wait_ms=0))
        waiters = [_queue_up(stack, lock, url) for _ in range(4)]
        before = [_switches(process.pid) for process in waiters]
        time.sleep(5)
        woken = [_switches(waiter.pid) - was for waiter, was in zip(waiters, before, strict=True)]
        # The first looks every two seconds, and goes to sleep again each time.
        assert woken[0] <= 10
        # The others may just have been on their way to bed.
        assert max(woken[1:]) <= 2


def test_a_wait_in_vain_leaves_no_place_in_the_queue_and_no_pipe(
    url: str, lock: LeaseLock, tmp_path: Path
) -> None:
    other = from_url(url)

    def wait() -> None:
        with pytest.raises(LockTimeout):
            other.acquire("key", lease_ms=1_000, wait_ms=300)

    with hold(lock, "key", lease_ms=LONG_MS, wait_ms=0):
        for _ in range(3):
            threads = [threading.Thread(target=wait) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert _waiters(lock) == ()
        # Kept for the next wait, no more than were needed at once.
        assert len(list((tmp_path / "locks" / "waiting").iterdir())) <= 5
        other.close()
        assert list((tmp_path / "locks" / "waiting").iterdir()) == []


def test_closing_ends_every_wait_at_once(url: str, lock: LeaseLock, tmp_path: Path) -> None:
    other = from_url(url)
    outcomes: list[str] = []

    def wait() -> None:
        try:
            other.acquire("key", lease_ms=1_000, wait_ms=LONG_MS)
        except LockUnavailable as error:
            outcomes.append(str(error))

    with hold(lock, "key", lease_ms=LONG_MS, wait_ms=0):
        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        _until_waiting(lock, 3)
        other.close()
        for thread in threads:
            thread.join()
        assert _waiters(lock) == ()
    assert len(outcomes) == 3
    assert all("closed" in outcome for outcome in outcomes)
    assert list((tmp_path / "locks" / "waiting").iterdir()) == []


@pytest.mark.parametrize("what", ["held", "waiting"])
def test_who_waits_comes_in_though_somebody_deleted_its_files(
    url: str, lock: LeaseLock, tmp_path: Path, what: str
) -> None:
    with ExitStack() as stack:
        first = lock.acquire("key", lease_ms=LONG_MS, wait_ms=0)
        waiter = _queue_up(stack, lock, url)
        for path in (tmp_path / "locks" / what).iterdir():
            path.unlink()
        first.release()
        _serve(waiter)


def test_a_folder_that_somebody_deleted_is_made_again(url: str, tmp_path: Path) -> None:
    lock = from_url(url)
    lock.acquire("key", lease_ms=1_000, wait_ms=0).release()
    shutil.rmtree(tmp_path / "locks")
    with pytest.raises(LockUnavailable):
        lock.acquire("key", lease_ms=1_000, wait_ms=0)
    lock.acquire("key", lease_ms=1_000, wait_ms=0).release()
    lock.close()
