"""Many want one key while the servers of an ensemble are killed in turn."""

import os
import threading
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from locks import LockError, LockTimeout
from locks.on_zookeeper.lock import ZooKeeperLock
from tests.processes import wait_until
from tests.zookeeper_servers import Ensemble

SESSION_MS, LEASE_MS, WAIT_MS = 20_000, 20_000, 5_000
PROCESSES, THREADS = 3, 2
KILLS = 2
# So many are granted between two kills that hand-overs are under way at each.
GRANTS_BETWEEN = 40


class Ground:
    """What only one may be on at a time; the file system sees to it that two are noticed."""

    def __init__(self, folder: Path) -> None:
        self._mark = folder / "inside"
        self.fences: list[int] = []
        self.collisions = 0

    def enter(self, fence: int) -> None:
        """Go in and out."""
        try:
            os.close(os.open(self._mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            self.collisions += 1
            return
        self.fences.append(fence)
        self._mark.unlink()

    def until_entered(self, times: int) -> None:
        """Wait until it was entered so often again."""
        enough = len(self.fences) + times
        wait_until(lambda: len(self.fences) >= enough, "leases are granted")


def _go_in_and_out(lock: ZooKeeperLock, ground: Ground, over: threading.Event) -> None:
    while not over.is_set():
        try:
            lease = lock.acquire("order", lease_ms=LEASE_MS, wait_ms=WAIT_MS)
        except LockTimeout:
            continue
        except LockError:
            over.wait(0.05)  # the service is away
            continue
        ground.enter(lease.fence)
        lease.release()


def _end(threads: list[threading.Thread], over: threading.Event) -> None:
    over.set()
    for thread in threads:
        thread.join()


@pytest.mark.slow
def test_one_at_a_time_and_rising_fences_while_leaders_are_killed(tmp_path: Path) -> None:
    ground, over = Ground(tmp_path), threading.Event()
    with ExitStack() as stack:
        ensemble = stack.enter_context(Ensemble())
        locks = [
            ZooKeeperLock(f"{ensemble.hosts}/storm", session_ms=SESSION_MS)
            for _ in range(PROCESSES)
        ]
        threads = [
            threading.Thread(target=_go_in_and_out, args=(lock, ground, over))
            for lock in locks
            for _ in range(THREADS)
        ]
        stack.callback(_end, threads, over)
        for thread in threads:
            thread.start()
        ground.until_entered(GRANTS_BETWEEN)
        for _ in range(KILLS):
            ensemble.leader().process.kill9()
            ensemble.start()
            ground.until_entered(GRANTS_BETWEEN)
        _end(threads, over)
        wait_until(lambda: locks[0].held() == [], "all nodes are gone")
        wait_until(lambda: ensemble.watches() == 0, "all watches are gone")
        for lock in locks:
            lock.close()
    assert ground.collisions == 0
    assert all(earlier < later for earlier, later in pairwise(ground.fences))
