"""Defects of kazoo 2.11.0's Lock, each shown on it as it is, and that ours does not have it."""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import LockTimeout as KazooLockTimeout
from kazoo.recipe.lock import Lock as KazooLock

from locks import LeaseLost, LockTimeout, hold
from locks.on_zookeeper.lock import ZooKeeperLock
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.services import ZooKeeperServer

# Long: no session ends here but by our hand.
SESSION_S, SESSION_MS = 30.0, 30_000
LEASE_MS, PATIENCE_S, PATIENCE_MS = 30_000, 30.0, 30_000
# A child that answers at all does so within milliseconds.
HANG_S = 3.0
_numbers = count()


@pytest.fixture
def chroot() -> str:
    """A part of ZooKeeper for each test."""
    return f"/defects-{next(_numbers)}"


@pytest.fixture
def connect(zookeeper_server: ZooKeeperServer, chroot: str) -> Iterator[Callable[..., KazooClient]]:
    """Makes kazoo clients, of a session given or of their own, through a port or straight."""
    made: list[KazooClient] = []

    def make(port: int = zookeeper_server.port, **more: object) -> KazooClient:
        made.append(KazooClient(f"127.0.0.1:{port}", timeout=SESSION_S, **more))
        made[-1].start()
        made[-1].ensure_path(f"{chroot}/kazoo")
        return made[-1]

    yield make
    for client in made:
        client.stop()
        client.close()


@pytest.fixture
def new_lock(
    zookeeper_server: ZooKeeperServer, chroot: str
) -> Iterator[Callable[..., ZooKeeperLock]]:
    """Makes locks of ours, through a port or straight."""
    with ExitStack() as stack:

        def make(port: int = zookeeper_server.port) -> ZooKeeperLock:
            lock = ZooKeeperLock(f"127.0.0.1:{port}{chroot}/ours", session_ms=SESSION_MS)
            stack.callback(lock.close)
            lock.acquire("warm-up", lease_ms=LEASE_MS, wait_ms=0).release()
            return lock

        yield make


def _expire(connect: Callable[..., KazooClient], client: KazooClient) -> None:
    """End a client's session at the server, as if its time were out."""
    before = client.client_id
    twin = connect(client_id=before)
    twin.stop()
    wait_until(lambda: client.client_id is not None and client.client_id != before, "a new session")


def test_after_its_session_ended_kazoo_still_says_that_it_holds_and_ours_says_that_it_is_lost(
    connect: Callable[..., KazooClient], new_lock: Callable[..., ZooKeeperLock], chroot: str
) -> None:
    first, second = connect(), connect()
    theirs = KazooLock(first, f"{chroot}/kazoo/order")
    assert theirs.acquire(timeout=PATIENCE_S)
    _expire(connect, first)
    next_one = KazooLock(second, f"{chroot}/kazoo/order")
    assert next_one.acquire(timeout=PATIENCE_S)
    assert theirs.is_acquired  # two believe that they hold it
    assert next_one.is_acquired
    assert theirs.release() is True

    lock, other = new_lock(), new_lock()
    lease = lock.acquire("order", lease_ms=LEASE_MS, wait_ms=0)
    _expire(connect, lock._session().client())
    with hold(other, "order", lease_ms=LEASE_MS, wait_ms=PATIENCE_MS) as next_lease:
        assert lease.lost.wait(PATIENCE_S / 4)
        with pytest.raises(LeaseLost):
            lease.ensure_held()
        lease.release()
        next_lease.ensure_held()


def test_kazoo_waits_on_past_its_time_after_each_wake_and_ours_has_one_deadline(
    connect: Callable[..., KazooClient], new_lock: Callable[..., ZooKeeperLock], chroot: str
) -> None:
    client = connect()
    lock, other, third = new_lock(), new_lock(), new_lock()

    def their_lock() -> KazooLock:
        return KazooLock(client, f"{chroot}/kazoo/order")

    outcomes: dict[str, str] = {}

    def they(name: str, timeout_s: float) -> None:
        mine = their_lock()
        try:
            outcomes[f"kazoo {name}"] = str(mine.acquire(timeout=timeout_s))
            mine.release()
        except KazooLockTimeout:
            outcomes[f"kazoo {name}"] = "gave up"

    def we(name: str, lock: ZooKeeperLock, timeout_s: float) -> None:
        try:
            lock.acquire("order", lease_ms=LEASE_MS, wait_ms=int(timeout_s * 1_000)).release()
            outcomes[f"ours {name}"] = "True"
        except LockTimeout:
            outcomes[f"ours {name}"] = "gave up"

    their_holder = their_lock()
    assert their_holder.acquire(timeout=PATIENCE_S)
    our_holder = lock.acquire("order", lease_ms=LEASE_MS, wait_ms=0)
    # The impatient one wakes the patient one behind it, whose three seconds kazoo counts anew.
    threads = [
        threading.Thread(target=they, args=("impatient", 2.0)),
        threading.Thread(target=we, args=("impatient", other, 2.0)),
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(their_holder.contenders()) == 2, "kazoo's impatient one waits")
    wait_until(lambda: len(lock.held()[0].waiters) == 1, "our impatient one waits")
    patient = [
        threading.Thread(target=they, args=("patient", 3.0)),
        threading.Thread(target=we, args=("patient", third, 3.0)),
    ]
    for thread in patient:
        thread.start()
    time.sleep(3.5)  # past every deadline, and before the end of kazoo's second count
    their_holder.release()
    our_holder.release()
    for thread in [*threads, *patient]:
        thread.join()
    assert outcomes == {
        "kazoo impatient": "gave up",
        "ours impatient": "gave up",
        "kazoo patient": "True",
        "ours patient": "gave up",
    }


def test_kazoo_leaves_a_node_for_each_key_for_ever_and_ours_none(
    connect: Callable[..., KazooClient], new_lock: Callable[..., ZooKeeperLock], chroot: str
) -> None:
    client, lock = connect(), new_lock()
    before = _descendants(client, f"{chroot}/ours")
    for number in range(10):
        with KazooLock(client, f"{chroot}/kazoo/order-{number}"):
            pass
        lock.acquire(f"order-{number}", lease_ms=LEASE_MS, wait_ms=0).release()
    assert len(client.get_children(f"{chroot}/kazoo")) == 10
    assert _descendants(client, f"{chroot}/ours") == before


def _descendants(client: KazooClient, path: str) -> int:
    children = client.get_children(path)
    return len(children) + sum(_descendants(client, f"{path}/{child}") for child in children)


def test_a_forked_child_hangs_on_its_parent_s_kazoo_client_and_works_with_our_lock(
    connect: Callable[..., KazooClient], new_lock: Callable[..., ZooKeeperLock], chroot: str
) -> None:
    client, lock = connect(), new_lock()

    def theirs() -> None:
        KazooLock(client, f"{chroot}/kazoo/order").acquire(timeout=1.0)

    def ours() -> None:
        lock.acquire("order", lease_ms=LEASE_MS, wait_ms=1_000).release()
        lock.close()

    assert not _child_ends(theirs, HANG_S)
    assert _child_ends(ours, PATIENCE_S)
    assert KazooLock(client, f"{chroot}/kazoo/order").acquire(timeout=PATIENCE_S)
    lock.acquire("order", lease_ms=LEASE_MS, wait_ms=0).release()


def _child_ends(run: Callable[[], None], within_s: float) -> bool:
    """Whether a forked child came to the end of this; it is killed if not."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            run()
            os.write(writing, b"done")
        finally:
            os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], within_s)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    word = os.read(reading, 10)
    os.waitpid(pid, 0)
    os.close(reading)
    return word == b"done"


def test_kazoo_s_sequence_starts_again_when_its_parent_was_deleted_and_our_fence_does_not(
    connect: Callable[..., KazooClient], new_lock: Callable[..., ZooKeeperLock], chroot: str
) -> None:
    client, lock = connect(), new_lock()
    sequences, fences = [], []
    for _ in range(3):
        with KazooLock(client, f"{chroot}/kazoo/order"):
            (node,) = client.get_children(f"{chroot}/kazoo/order")
            sequences.append(int(node[-10:]))
        client.delete(f"{chroot}/kazoo/order")
        with hold(lock, "order", lease_ms=LEASE_MS, wait_ms=0) as lease:
            fences.append(lease.fence)
        client.delete(f"{chroot}/ours/leases", recursive=True)
    assert sequences == [0, 0, 0]
    assert fences == sorted(set(fences))


def test_kazoo_leaves_a_ghost_in_the_queue_when_its_delete_is_lost_and_ours_goes_on_deleting(
    zookeeper_server: ZooKeeperServer,
    connect: Callable[..., KazooClient],
    new_lock: Callable[..., ZooKeeperLock],
    chroot: str,
) -> None:
    """Issue 732 of kazoo: https://github.com/python-zk/kazoo/issues/732"""
    with Proxy(zookeeper_server.port) as proxy:
        near, far = connect(), connect(proxy.port)
        lock, other = new_lock(), new_lock(proxy.port)
        their_holder = KazooLock(near, f"{chroot}/kazoo/order")
        assert their_holder.acquire(timeout=PATIENCE_S)
        our_holder = lock.acquire("order", lease_ms=LEASE_MS, wait_ms=0)
        unlucky = [
            threading.Thread(
                target=_in_vain,
                args=(lambda: KazooLock(far, f"{chroot}/kazoo/order").acquire(timeout=1.0),),
            ),
            threading.Thread(
                target=_in_vain,
                args=(lambda: other.acquire("order", lease_ms=LEASE_MS, wait_ms=1_000),),
            ),
        ]
        for thread in unlucky:
            thread.start()
        wait_until(lambda: len(their_holder.contenders()) == 2, "kazoo's waits")
        wait_until(lambda: len(lock.held()[0].waiters) == 1, "ours waits")
        proxy.freeze()
        # Both give up now, and ask to delete their nodes: on a way on which nothing arrives.
        wait_until(lambda: bool(far._pending), "kazoo's delete is under way")
        wait_until(lambda: bool(other._session()._link.client._pending), "so is ours")
        proxy.cut()
        proxy.thaw()
        for thread in unlucky:
            thread.join()
        wait_until(lambda: far.connected, "kazoo is back in its session")
        wait_until(lambda: lock.held()[0].waiters == (), "ours has left the queue")
        their_holder.release()
        our_holder.release()
        assert len(their_holder.contenders()) == 1  # nobody, and yet one
        with pytest.raises(KazooLockTimeout):
            KazooLock(near, f"{chroot}/kazoo/order").acquire(timeout=0.5)
        lock.acquire("order", lease_ms=LEASE_MS, wait_ms=0).release()


def _in_vain(acquire: Callable[[], object]) -> None:
    with pytest.raises((KazooLockTimeout, LockTimeout)):
        acquire()
