"""A ZooKeeper lock object that is closed: who waits gives up, and no session is left or begun."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count

import pytest

from locks import LockUnavailable
from locks.held import HeldLease
from locks.on_zookeeper.lock import ZooKeeperLock
from locks.on_zookeeper.session import REPLACE_EVERY_MS
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.services import ZooKeeperServer
from tests.strikes import strike
from tests.zookeeper_servers import four_letters

SESSION_MS = 20_000
LEASE_MS, WAIT_MS = 10_000, 25_000
# Well before the wait is over; a client that is told to stop does so in milliseconds.
SOON_S = 12.0


@pytest.fixture
def server() -> Iterator[ZooKeeperServer]:
    """Of this test alone, since its sessions are counted."""
    with ZooKeeperServer() as made:
        yield made


def _sessions(server: ZooKeeperServer) -> int:
    return four_letters(server.port, "cons").count("sid=")


def _waits(lock: ZooKeeperLock, pool: ThreadPoolExecutor) -> "Future[HeldLease]":
    return pool.submit(lambda: lock.acquire("order", lease_ms=LEASE_MS, wait_ms=WAIT_MS))


def _in_queue(holder: ZooKeeperLock, number: int) -> None:
    wait_until(lambda: len(holder.held()[0].waiters) == number, f"{number} wait")


def test_those_who_wait_are_told_and_nothing_is_left_at_the_server(server: ZooKeeperServer) -> None:
    holder = ZooKeeperLock(server.hosts, session_ms=SESSION_MS)
    lease = holder.acquire("order", lease_ms=LEASE_MS, wait_ms=0)
    closed = ZooKeeperLock(server.hosts, session_ms=SESSION_MS)
    closed.acquire("other", lease_ms=LEASE_MS, wait_ms=0)
    with ThreadPoolExecutor(3) as pool:
        waiting = [_waits(closed, pool) for _ in range(3)]
        try:
            _in_queue(holder, 3)
            # From now on a client that ended would be replaced by one with a new session.
            time.sleep(REPLACE_EVERY_MS / 1_000)
            closed.close()
            for each in waiting:
                with pytest.raises(LockUnavailable):
                    each.result(SOON_S)
        finally:
            lease.release()
    assert _sessions(server) == 1
    assert holder.held() == []
    with pytest.raises(LockUnavailable):
        closed._session()
    holder.close()
    wait_until(lambda: _sessions(server) == 0, "no session is left")


def test_one_who_waits_for_a_broken_connection_does_not_come_back_after_the_close(
    server: ZooKeeperServer,
) -> None:
    holder = ZooKeeperLock(server.hosts, session_ms=SESSION_MS)
    lease = holder.acquire("order", lease_ms=LEASE_MS, wait_ms=0)
    with Proxy(server.port) as proxy, ThreadPoolExecutor(1) as pool:
        closed = ZooKeeperLock(f"127.0.0.1:{proxy.port}", session_ms=2_000)
        waiting = _waits(closed, pool)
        try:
            _in_queue(holder, 1)
            proxy.freeze()
            proxy.cut()
            wait_until(lambda: bool(closed._doubt()), "the connection is known to be broken")
            closed.close()
            proxy.thaw()
            with pytest.raises(LockUnavailable):
                waiting.result(SOON_S)
        finally:
            lease.release()
        wait_until(lambda: _sessions(server) == 1, "only the holder's session is left")
        wait_until(lambda: holder.held() == [], "the waiter's node has gone with its session")
    holder.close()


def test_a_grant_that_comes_while_the_object_is_being_closed_is_not_left_behind(
    server: ZooKeeperServer,
) -> None:
    other = ZooKeeperLock(server.hosts, session_ms=SESSION_MS)
    other.acquire("warm-up", lease_ms=LEASE_MS, wait_ms=0).release()
    for _ in range(10):
        lock = ZooKeeperLock(server.hosts, session_ms=SESSION_MS)
        lock.ping()
        is_over = threading.Event()

        def take(lock: ZooKeeperLock = lock, is_over: threading.Event = is_over) -> None:
            while not is_over.is_set():
                lock.acquire("order", lease_ms=LEASE_MS, wait_ms=WAIT_MS).release()

        with ThreadPoolExecutor(3) as pool:
            takers = [pool.submit(take) for _ in range(3)]
            try:
                lock.close()
                for each in takers:
                    with pytest.raises(LockUnavailable):
                        each.result(SOON_S)
            finally:
                is_over.set()
        other.acquire("order", lease_ms=LEASE_MS, wait_ms=0).release()
        assert _sessions(server) == 1
    other.close()


@pytest.mark.parametrize("comes_again", [False, True])
def test_a_handler_that_closes_what_is_just_connecting_leaves_no_session(
    server: ZooKeeperServer, comes_again: bool
) -> None:
    def connect(lock: ZooKeeperLock) -> None:
        with suppress(LockUnavailable):
            session = lock._session()
            session._replace_if_dead(session._link)

    before = {*threading.enumerate()}
    for step in count(1):
        lock = ZooKeeperLock(server.hosts, session_ms=SESSION_MS)
        if comes_again:
            link = lock._session()._link
            link.client.stop()  # as it ends for good, some time ago
            link._began_ns = 0
        was_struck = strike(step, partial(connect, lock), "on_zookeeper", lock.close)
        lock.close()
        if not was_struck:
            break
    assert step > 10
    wait_until(lambda: before >= {*threading.enumerate()}, "no client is left")
    assert _sessions(server) == 0
