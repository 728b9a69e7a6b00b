"""What can go wrong with ZooKeeper itself, and with the way to it."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from kazoo.client import KazooClient

from locks import LeaseLost, LockUnavailable, hold
from locks.held import HeldLease
from locks.on_zookeeper.lock import ZooKeeperLock
from tests.integration.locks_support import Proxy
from tests.processes import wait_until
from tests.proxy import Proxy as SilentProxy
from tests.services import ZooKeeperServer

SESSION_MS = 2_000
PATIENCE_S = 30.0


@pytest.fixture
def place(zookeeper_url: str) -> str:
    """host:port/chroot"""
    return zookeeper_url.removeprefix("zookeeper://")


@pytest.fixture
def proxy(zookeeper_server: ZooKeeperServer) -> Iterator[Proxy]:
    """A bad network before the run's ZooKeeper."""
    made = Proxy(zookeeper_server.port)
    yield made
    made.close()


@pytest.fixture
def near(place: str) -> Iterator[ZooKeeperLock]:
    """Straight to the run's ZooKeeper."""
    made = ZooKeeperLock(place, session_ms=SESSION_MS)
    yield made
    made.close()


@pytest.fixture
def far(place: str, proxy: Proxy) -> Iterator[ZooKeeperLock]:
    """A lock behind the bad network."""
    chroot = place.partition("/")[2]
    made = ZooKeeperLock(f"127.0.0.1:{proxy.port}/{chroot}", session_ms=SESSION_MS)
    yield made
    made.close()


@pytest.fixture
def client(place: str) -> Iterator[KazooClient]:
    """Behind the library's back."""
    made = KazooClient(place)
    assert made.start_async().wait(PATIENCE_S)
    yield made
    made.stop()
    made.close()


def _nodes(client: KazooClient, key: str) -> list[str]:
    return [
        f"/leases/{shard}/{node}"
        for shard in client.get_children("/leases")
        for node in client.get_children(f"/leases/{shard}")
        if node.startswith(f"{key}~")
    ]


def test_the_fence_is_the_czxid_of_the_holder_s_node(
    near: ZooKeeperLock, client: KazooClient, key: str
) -> None:
    with hold(near, key, lease_ms=5_000, wait_ms=0) as lease:
        (node,) = _nodes(client, key)
        assert client.exists(node).czxid == lease.fence


def test_fences_go_on_rising_when_the_parent_was_deleted_and_its_sequence_starts_again(
    near: ZooKeeperLock, client: KazooClient, key: str
) -> None:
    fences = []
    for _ in range(3):
        with hold(near, key, lease_ms=5_000, wait_ms=0) as lease:
            fences.append(lease.fence)
            parent = _nodes(client, key)[0].rpartition("/")[0]
        client.delete(parent)
    assert fences == sorted(set(fences))


def test_a_process_without_a_thread_for_the_client_is_told_so_and_served_later(
    near: ZooKeeperLock, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as crowded:
        crowded.setattr(threading.Thread, "start", refuse)
        with pytest.raises(LockUnavailable, match="new thread"):
            near.acquire(key, lease_ms=5_000, wait_ms=0)
    near.acquire(key, lease_ms=5_000, wait_ms=0).release()


def test_no_parent_is_made_for_a_key(near: ZooKeeperLock, client: KazooClient, key: str) -> None:
    for number in range(20):
        near.acquire(f"{key}-{number}", lease_ms=5_000, wait_ms=0).release()
    shards = client.get_children("/leases")
    assert set(shards) <= {f"{number:02x}" for number in range(64)}
    assert _nodes(client, key) == []


def test_a_lease_never_shows_more_time_than_the_session_has(near: ZooKeeperLock, key: str) -> None:
    with hold(near, key, lease_ms=3_600_000, wait_ms=0) as lease:
        assert 0 < lease.remaining_ms() < SESSION_MS // 2


def test_the_server_s_word_on_the_session_time_counts_and_not_our_wish(key: str) -> None:
    with ZooKeeperServer() as server:
        # The test server grants 60 s at most, and half of what is granted is counted on.
        lock = ZooKeeperLock(server.hosts, session_ms=120_000)
        with hold(lock, key, lease_ms=3_600_000, wait_ms=0) as lease:
            assert 20_000 < lease.remaining_ms() < 30_000
        lock.close()


def test_while_the_connection_is_broken_a_lease_is_not_relied_on_and_afterwards_it_is_again(
    far: ZooKeeperLock, proxy: Proxy, key: str
) -> None:
    with hold(far, key, lease_ms=5_000, wait_ms=0) as lease:
        proxy.freeze()  # the client reconnects at once, but is not answered
        proxy.cut()
        refused = False
        while not lease.lost.is_set() and not refused:
            try:
                lease.ensure_held()
            except LeaseLost as error:
                refused = "connection" in str(error)
        assert refused
        assert not lease.lost.is_set()
        proxy.thaw()
        while not lease.lost.is_set():
            try:
                lease.ensure_held()
            except LeaseLost:
                time.sleep(0.01)
            else:
                break
        lease.ensure_held()


def test_an_answer_that_comes_when_its_lease_is_forgotten_harms_no_other_lease(
    place: str, proxy: Proxy, key: str
) -> None:
    chroot = place.partition("/")[2]
    lock = ZooKeeperLock(f"127.0.0.1:{proxy.port}/{chroot}", session_ms=20_000)
    with hold(lock, f"{key}-kept", lease_ms=20_000, wait_ms=0) as kept:
        forgotten = lock.acquire(key, lease_ms=20_000, wait_ms=0)
        proxy.freeze()
        with suppress(LockUnavailable):
            lock._renew([forgotten])
        del forgotten
        proxy.thaw()
        lock.ping()
        kept.ensure_held()
    lock.close()


def test_when_the_session_is_lost_its_leases_are_and_a_new_session_serves(
    far: ZooKeeperLock, near: ZooKeeperLock, proxy: Proxy, key: str
) -> None:
    first = far.acquire(key, lease_ms=5_000, wait_ms=0)
    proxy.freeze()
    proxy.cut()
    with hold(near, key, lease_ms=5_000, wait_ms=30_000) as second:
        assert first.lost.is_set()
        assert second.fence > first.fence
        proxy.thaw()
        first.release()
        second.ensure_held()
    _until_served(far, key)


def test_a_create_whose_answer_was_lost_is_found_by_its_token(
    far: ZooKeeperLock, proxy: Proxy, client: KazooClient, key: str
) -> None:
    with hold(far, f"{key}-warm", lease_ms=5_000, wait_ms=0):
        proxy.lose_reply_once(lambda data: key.encode() in data)
        with hold(far, key, lease_ms=5_000, wait_ms=10_000) as lease:
            assert proxy.lost == 1
            (node,) = _nodes(client, f"{key}")
            assert client.exists(node).czxid == lease.fence
    assert _nodes(client, key) == []


def test_a_create_that_was_never_answered_leaves_no_node_behind_when_the_service_is_back(
    near: ZooKeeperLock,
    zookeeper_server: ZooKeeperServer,
    client: KazooClient,
    place: str,
    key: str,
) -> None:
    chroot = place.partition("/")[2]
    near.acquire(key, lease_ms=5_000, wait_ms=0).release()  # the folders are there
    with SilentProxy(zookeeper_server.port) as proxy:
        lock = ZooKeeperLock(f"127.0.0.1:{proxy.port}/{chroot}", session_ms=60_000)
        lock.ping()
        proxy.drop_replies(1, to=key.encode(), silently=True)
        with pytest.raises(LockUnavailable, match="did not answer"):
            lock.acquire(key, lease_ms=5_000, wait_ms=10_000)
        assert [held.key for held in near.held()] == [key]  # it was made
        (node,) = _nodes(client, key)
        proxy.cut()
        wait_until(lambda: near.held() == [], "it is taken back, in the same session")
        # The request comes again, as if a slow network had kept it till now.
        client.create(node[:-10], b"late", ephemeral=True, sequence=True)
        assert [held.holder for held in near.held()] == ["late"]
        wait_until(lambda: near.held() == [], "it is taken back again")
        lock.close()


def test_a_create_that_arrives_after_another_was_made_in_its_place_is_taken_back_alone(
    near: ZooKeeperLock,
    zookeeper_server: ZooKeeperServer,
    client: KazooClient,
    place: str,
    key: str,
) -> None:
    near.acquire(key, lease_ms=5_000, wait_ms=0).release()  # the folders are there
    got: list[HeldLease] = []

    def take() -> None:
        with suppress(LockUnavailable):  # the new connection took too long: once more
            got.append(lock.acquire(key, lease_ms=60_000, wait_ms=0))

    def lose_the_first_create() -> bool:
        with suppress(LockUnavailable):
            lock.ping()
        proxy.freeze()
        taker = threading.Thread(target=take)
        taker.start()
        wait_until(lambda: bool(lock._session()._link.client._pending), "it is under way")
        proxy.cut()
        proxy.thaw()
        taker.join()
        return bool(got)

    with SilentProxy(zookeeper_server.port) as proxy:
        chroot = place.partition("/")[2]
        lock = ZooKeeperLock(f"127.0.0.1:{proxy.port}/{chroot}", session_ms=60_000)
        wait_until(lose_the_first_create, "the second create is answered")
        # What a try before this one may have left is on its way out.
        wait_until(lambda: len(_nodes(client, key)) == 1, "one node is left")
        (node,) = _nodes(client, key)
        client.create(node[:-10], b"late", ephemeral=True, sequence=True)
        assert [held.waiters for held in near.held()] == [("late",)]
        wait_until(lambda: near.held()[0].waiters == (), "it is taken back")
        got[0].ensure_held()
        assert _nodes(client, key) == [node]
        got[0].release()
        lock.close()


def test_a_delete_whose_answer_was_lost_is_no_error_and_leaves_nothing(
    far: ZooKeeperLock, proxy: Proxy, client: KazooClient, key: str
) -> None:
    lease = far.acquire(key, lease_ms=5_000, wait_ms=0)
    proxy.lose_reply_once(lambda data: key.encode() in data)
    lease.release()
    deadline = time.monotonic() + PATIENCE_S
    while _nodes(client, key) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _nodes(client, key) == []


def test_a_waiter_whose_connection_breaks_keeps_its_place_and_is_served(
    far: ZooKeeperLock, near: ZooKeeperLock, proxy: Proxy, key: str
) -> None:
    first = near.acquire(key, lease_ms=5_000, wait_ms=0)
    fences: list[int] = []

    def wait() -> None:
        with hold(far, key, lease_ms=5_000, wait_ms=30_000) as lease:
            fences.append(lease.fence)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.5)
    proxy.cut()
    time.sleep(0.5)
    first.release()
    waiter.join()
    assert fences
    assert fences[0] > first.fence


def test_waiters_are_served_in_the_order_of_their_coming(near: ZooKeeperLock, key: str) -> None:
    first = near.acquire(key, lease_ms=5_000, wait_ms=0)
    served: list[int] = []

    def wait(number: int) -> None:
        with hold(near, key, lease_ms=5_000, wait_ms=30_000):
            served.append(number)

    waiters = [threading.Thread(target=wait, args=(number,)) for number in range(6)]
    for waiter in waiters:
        waiter.start()
        time.sleep(0.1)
    first.release()
    for waiter in waiters:
        waiter.join()
    assert served == list(range(6))


def _until_served(lock: ZooKeeperLock, key: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            lock.acquire(key, lease_ms=1_500, wait_ms=1_000).release()
            return
        except LockUnavailable:
            time.sleep(0.1)
    pytest.fail("The service is back, but serves no more.")
