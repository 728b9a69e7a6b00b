"""What an operator sees of ZooKeeper's queues, and how one breaks a lease."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from locks import LeaseLost, LockObserver, LockTimeout, LockUnavailable, hold
from locks.on_zookeeper.lock import ZooKeeperLock
from tests.integration.locks_support import holder
from tests.processes import free_port, wait_until
from tests.services import ZooKeeperServer

SESSION_MS = 2_000
PATIENCE_MS = 30_000
ME = f"{socket.gethostname()} {os.getpid()}"
_chroots = count()


@pytest.fixture
def hosts(zookeeper_server: ZooKeeperServer) -> str:
    """host:port/chroot, a chroot for each test."""
    return f"{zookeeper_server.hosts}/operator-{next(_chroots)}"


@pytest.fixture
def lock(hosts: str) -> Iterator[ZooKeeperLock]:
    """One process's lock object."""
    made = ZooKeeperLock(hosts, session_ms=SESSION_MS)
    yield made
    made.close()


def test_what_is_held_is_listed_with_holder_fence_and_those_who_wait_in_their_order(
    lock: ZooKeeperLock, hosts: str
) -> None:
    url = f"zookeeper://{hosts}?session_ms={SESSION_MS}"
    with ExitStack() as stack:
        first = stack.enter_context(hold(lock, "order-1", lease_ms=5_000, wait_ms=0))
        second = stack.enter_context(hold(lock, "order-2", lease_ms=5_000, wait_ms=0))
        waiting: list[str] = []
        for number in range(3):
            process = stack.enter_context(
                holder(url, "order-2", lease_ms=5_000, wait_ms=PATIENCE_MS)
            )
            assert process.listen() == "started"
            waiting.append(f"{socket.gethostname()} {process.pid}")
            _until_waiting(lock, "order-2", number + 1)
        shown = lock.held()
        assert [held.key for held in shown] == ["order-1", "order-2"]
        assert [held.holder for held in shown] == [ME, ME]
        assert [held.fence for held in shown] == [first.fence, second.fence]
        assert [held.remaining_ms for held in shown] == [None, None]
        assert [held.waiters for held in shown] == [(), tuple(waiting)]
        assert lock.held(limit=1) == shown[:1]


def test_nothing_is_listed_where_nothing_was_ever_held(lock: ZooKeeperLock) -> None:
    assert lock.held() == []
    assert lock.break_lease("order") is None


def test_a_broken_lease_is_lost_to_its_holder_at_once_and_the_next_is_served(
    lock: ZooKeeperLock, hosts: str
) -> None:
    other = ZooKeeperLock(hosts, session_ms=SESSION_MS)
    lease = lock.acquire("order", lease_ms=60_000, wait_ms=0)
    with hold(other, "wait", lease_ms=1_000, wait_ms=0), ExitStack() as stack:
        got: list[int] = []

        def wait() -> None:
            with hold(other, "order", lease_ms=5_000, wait_ms=PATIENCE_MS) as next_lease:
                got.append(next_lease.fence)

        waiter = threading.Thread(target=wait)
        waiter.start()
        stack.callback(waiter.join)
        _until_waiting(lock, "order", 1)
        broken = other.break_lease("order")
        assert broken is not None
        assert (broken.key, broken.holder, broken.fence) == ("order", ME, lease.fence)
        assert broken.waiters == (ME,)
    assert got[0] > lease.fence
    assert lease.lost.wait(PATIENCE_MS / 1_000)
    with pytest.raises(LeaseLost, match="gone from ZooKeeper"):
        lease.ensure_held()
    lease.release()
    assert lock.held() == []
    other.close()


def test_a_holder_is_told_of_the_break_by_its_watch_and_need_not_wait_for_a_renewal(
    lock: ZooKeeperLock, hosts: str
) -> None:
    other = ZooKeeperLock(hosts, session_ms=SESSION_MS)
    slow = ZooKeeperLock(hosts, session_ms=60_000)  # renews each ten seconds or more
    lease = slow.acquire("order", lease_ms=60_000, wait_ms=0)
    slow._renew([lease])  # the first renewal, which sets the watch, comes early
    assert other.break_lease("order") is not None
    assert lease.lost.wait(8.0)
    slow.close()
    other.close()


def test_listing_and_breaking_without_a_service_is_lock_unavailable() -> None:
    lock = ZooKeeperLock(f"127.0.0.1:{free_port()}")
    with pytest.raises(LockUnavailable):
        lock.held()
    with pytest.raises(LockUnavailable):
        lock.break_lease("order")
    lock.close()


def test_the_number_of_those_ahead_is_told_to_the_observer(hosts: str) -> None:
    told: list[int] = []

    class Told(LockObserver):
        def granted(self, backend: str, wait_ns: int, ahead: int) -> None:
            told.append(ahead)

    lock = ZooKeeperLock(hosts, session_ms=SESSION_MS, observer=Told())
    with hold(lock, "order", lease_ms=5_000, wait_ms=0):
        waiters = [
            threading.Thread(
                target=lambda: lock.acquire("order", lease_ms=5_000, wait_ms=PATIENCE_MS).release()
            )
            for _ in range(2)
        ]
        for number, waiter in enumerate(waiters):
            waiter.start()
            _until_waiting(lock, "order", number + 1)
    for waiter in waiters:
        waiter.join()
    with hold(lock, "order", lease_ms=5_000, wait_ms=0), pytest.raises(LockTimeout):
        lock.acquire("order", lease_ms=5_000, wait_ms=0)
    lock.close()
    assert told == [0, 1, 2, 0]


def _until_waiting(lock: ZooKeeperLock, key: str, number: int) -> None:
    """Wait until so many are queued up for the key."""

    def waits() -> bool:
        return any(held.key == key and len(held.waiters) == number for held in lock.held())

    wait_until(waits, f"{number} wait")
