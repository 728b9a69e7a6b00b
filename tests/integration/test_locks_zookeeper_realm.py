"""A realm names the ensemble whose czxids the fences are."""

import shutil
import threading
from collections.abc import Iterator
from itertools import count

import pytest
from kazoo.client import KazooClient

from locks import LockUnavailable
from locks.on_zookeeper.lock import ZooKeeperLock
from tests.processes import free_port, wait_until
from tests.services import ZooKeeperServer

SESSION_MS = 2_000
_chroots = count()


@pytest.fixture
def hosts(zookeeper_server: ZooKeeperServer) -> str:
    """host:port/chroot, a chroot for each test."""
    return f"{zookeeper_server.hosts}/realm-{next(_chroots)}"


@pytest.fixture
def lock(hosts: str) -> Iterator[ZooKeeperLock]:
    """One process's lock object."""
    made = ZooKeeperLock(hosts, session_ms=SESSION_MS)
    yield made
    made.close()


def test_every_process_names_the_same_realm_even_when_all_come_first_at_once(hosts: str) -> None:
    locks = [ZooKeeperLock(hosts, session_ms=SESSION_MS) for _ in range(8)]
    realms: list[str] = []
    together = threading.Barrier(len(locks))

    def ask(each: ZooKeeperLock) -> None:
        each.ping()
        together.wait()
        realms.append(each.realm())

    threads = [threading.Thread(target=ask, args=(each,)) for each in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in locks:
        each.close()
    assert len(realms) == len(locks)
    assert len(set(realms)) == 1
    assert realms[0].startswith("zookeeper:")
    assert len(realms[0]) > len("zookeeper:")


def test_the_realm_is_kept_by_the_ensemble_and_asked_once_in_a_session(
    lock: ZooKeeperLock, hosts: str
) -> None:
    realm = lock.realm()
    client = KazooClient(hosts)
    client.start()
    assert client.get("/leases-id")[0].decode() == realm.removeprefix("zookeeper:")
    client.delete("/leases-id")
    assert lock.realm() == realm  # not asked again
    client.stop()
    client.close()
    other = ZooKeeperLock(hosts, session_ms=SESSION_MS)
    assert other.realm() != realm
    other.close()


def test_a_new_session_asks_for_the_realm_again(lock: ZooKeeperLock, hosts: str) -> None:
    realm = lock.realm()
    client = KazooClient(hosts)
    client.start()
    client.delete("/leases-id")
    client.stop()
    client.close()
    expire(lock, hosts)
    wait_until(lambda: _realm(lock) not in ("", realm), "the realm is another one")


def test_an_ensemble_that_comes_back_empty_serves_the_same_lock_object_as_another_realm() -> None:
    with ZooKeeperServer() as server:
        lock = ZooKeeperLock(f"{server.hosts}/shop", session_ms=SESSION_MS)
        realm = lock.realm()
        for _ in range(3):  # more than the empty one will have seen
            lock.acquire("order", lease_ms=1_000, wait_ms=0).release()
        server.process.kill9()
        shutil.rmtree(server.folder / "data")
        server.start()
        wait_until(lambda: _realm(lock) not in ("", realm), "the realm is another one")
        lock.acquire("order", lease_ms=1_000, wait_ms=0).release()
        lock.close()


def test_a_realm_that_cannot_be_asked_for_is_lock_unavailable() -> None:
    lock = ZooKeeperLock(f"127.0.0.1:{free_port()}")
    with pytest.raises(LockUnavailable):
        lock.realm()
    lock.close()


def expire(lock: ZooKeeperLock, hosts: str) -> None:
    """End the lock's session at the server, as if its time were out."""
    twin = KazooClient(hosts, client_id=lock._session().client().client_id)
    twin.start()
    twin.stop()
    twin.close()


def _realm(lock: ZooKeeperLock) -> str:
    try:
        return lock.realm()
    except LockUnavailable:
        return ""
