"""Those who wait for a file lock: served in the order of their coming, and asleep meanwhile."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from locks import LeaseLock, LockObserver, LockTimeout, LockUnavailable, from_url, hold
from locks.clock import now_ns
from tests.integration.locks_file_support import (
    LONG_MS,
    PATIENCE_MS,
    is_free,
    queue_up,
    serve,
    until_waiting,
    waiters,
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
            until_waiting(lock, number + 1)
    for thread in threads:
        thread.join()
    assert served == list(range(20))
    assert is_free(lock)


def test_who_comes_later_overtakes_nobody_even_when_the_holder_is_gone(
    url: str, lock: LeaseLock
) -> None:
    with ExitStack() as stack:
        dead = stack.enter_context(holder(url, "key", lease_ms=LONG_MS))
        assert dead.listen() == "started"
        serve(dead)
        waiter = queue_up(stack, lock, url)
        waiter.freeze()
        dead.kill()
        # The key is free, but it is the waiter's turn for as long as a claim lasts.
        assert not is_free(lock)
        waiter.thaw()
        serve(waiter)
        assert not is_free(lock)


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
        until_waiting(lock, number + 1)
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
        queue = [queue_up(stack, lock, url) for _ in range(2)]
        names = [f"{os.uname().nodename} {process.pid}" for process in queue]
        broken = lock.break_lease("key")
        assert broken is not None
        assert (broken.fence, list(broken.waiters)) == (first.fence, names)
        assert serve(queue[0]) > first.fence
        (shown,) = lock.held()
        assert (shown.holder, list(shown.waiters)) == (names[0], names[1:])


# Takes the key as often as it can until `stop` is there, and says how often that was.
LOOP = """
import sys, time
from pathlib import Path
from locks import from_url

url, stop = sys.argv[1:]
lock = from_url(url)
count = 0
while not Path(stop).exists():
    lease = lock.acquire("key", lease_ms=60_000, wait_ms=600_000)
    count += 1
    time.sleep(0.001)
    lease.release()
print(count)
"""


def test_those_who_come_again_and_again_get_equal_shares(
    url: str, lock: LeaseLock, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        lease = lock.acquire("key", lease_ms=LONG_MS, wait_ms=0)
        command = [sys.executable, "-c", LOOP, url, str(tmp_path / "stop")]
        loops = [
            stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(6)
        ]
        until_waiting(lock, 6)
        lease.release()
        time.sleep(1.5)
        (tmp_path / "stop").touch()
        counts = [int(loop.communicate()[0]) for loop in loops]
    # Jain's index of fairness: 1 for equal shares, 1/6 if one has all. One that looked again and
    # again had 0.1 to 0.4 here.
    assert sum(counts) ** 2 / (len(counts) * sum(count**2 for count in counts)) > 0.95, counts


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
        queue = [queue_up(stack, lock, url) for _ in range(4)]
        before = [_switches(process.pid) for process in queue]
        time.sleep(3)
        woken = [_switches(waiter.pid) - was for waiter, was in zip(queue, before, strict=True)]
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
        open_before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(3):
            threads = [threading.Thread(target=wait) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert waiters(lock) == ()
        # Kept for the next wait, no more than were needed at once.
        assert len(list((tmp_path / "locks" / "waiting").iterdir())) <= 5
        other.close()
        assert list((tmp_path / "locks" / "waiting").iterdir()) == []
        assert len(list(Path("/proc/self/fd").iterdir())) == open_before


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
        until_waiting(lock, 3)
        other.close()
        for thread in threads:
            thread.join()
        assert waiters(lock) == ()
    assert len(outcomes) == 3
    assert all("closed" in outcome for outcome in outcomes)
    assert list((tmp_path / "locks" / "waiting").iterdir()) == []


@pytest.mark.parametrize("what", ["held", "waiting"])
def test_who_waits_comes_in_though_somebody_deleted_its_files(
    url: str, lock: LeaseLock, tmp_path: Path, what: str
) -> None:
    with ExitStack() as stack:
        first = lock.acquire("key", lease_ms=LONG_MS, wait_ms=0)
        waiter = queue_up(stack, lock, url)
        for path in (tmp_path / "locks" / what).iterdir():
            path.unlink()
        first.release()
        serve(waiter)


def test_a_folder_that_somebody_deleted_is_made_again(url: str, tmp_path: Path) -> None:
    lock = from_url(url)
    lock.acquire("key", lease_ms=1_000, wait_ms=0).release()
    shutil.rmtree(tmp_path / "locks")
    with pytest.raises(LockUnavailable):
        lock.acquire("key", lease_ms=1_000, wait_ms=0)
    lock.acquire("key", lease_ms=1_000, wait_ms=0).release()
    lock.close()
