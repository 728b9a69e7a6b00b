"""Three ZooKeepers: one is killed, two are, sessions end at every point; and nothing is left."""

import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from kazoo.client import KazooClient

from locks import LeaseLost, LockTimeout, LockUnavailable, hold
from locks.held import HeldLease
from locks.on_zookeeper.lock import ZooKeeperLock
from locks.on_zookeeper.queue import shard_of
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.zookeeper_servers import Ensemble

# Long: what is shown here is never the work of time running out.
SESSION_MS = 60_000
LEASE_MS, PATIENCE_MS = 60_000, 60_000
ROOT = "/shop/locks"


@pytest.fixture(scope="module")
def one_ensemble() -> Iterator[Ensemble]:
    """The three servers of this module."""
    with Ensemble() as made:
        yield made


@pytest.fixture
def ensemble(one_ensemble: Ensemble) -> Ensemble:
    """All three run and agree, whatever the test before did."""
    one_ensemble.start()
    one_ensemble.settle()
    return one_ensemble


@pytest.fixture
def new_lock(ensemble: Ensemble) -> Iterator[Callable[..., ZooKeeperLock]]:
    """Makes lock objects, each with a session of its own."""
    made: list[ZooKeeperLock] = []

    def make(hosts: str = ensemble.hosts) -> ZooKeeperLock:
        made.append(ZooKeeperLock(hosts + ROOT, session_ms=SESSION_MS))
        return made[-1]

    yield make
    ensemble.start()  # or else the sessions cannot be closed
    for lock in made:
        lock.close()


@pytest.fixture
def lock(new_lock: Callable[..., ZooKeeperLock]) -> ZooKeeperLock:
    """One process's lock object."""
    return new_lock()


@pytest.fixture
def other(new_lock: Callable[..., ZooKeeperLock]) -> ZooKeeperLock:
    """Another one's."""
    return new_lock()


class Waiting:
    """Somebody who waits for a key in a thread, holds it for a moment, and tells its fence."""

    def __init__(self, lock: ZooKeeperLock, key: str) -> None:
        self._fences: list[int] = []
        self._lock, self._key = lock, key
        self._thread = threading.Thread(target=self._wait)
        self._thread.start()

    def _wait(self) -> None:
        lease = taken(self._lock, self._key)
        self._fences.append(lease.fence)
        lease.release()

    def fence(self) -> int:
        """What it got in the end."""
        self._thread.join(PATIENCE_MS / 1_000)
        return self._fences[0]


def taken(lock: ZooKeeperLock, key: str) -> HeldLease:
    """A lease, as soon as the service gives it; who was told that it is away asks again."""
    got: list[HeldLease] = []

    def take() -> bool:
        try:
            got.append(lock.acquire(key, lease_ms=LEASE_MS, wait_ms=PATIENCE_MS))
        except LockUnavailable:
            return False
        return True

    wait_until(take, "the service serves")
    return got[0]


def places(lock: ZooKeeperLock, key: str) -> int:
    """How many hold the key or wait for it."""
    return sum(1 + len(held.waiters) for held in lock.held() if held.key == key)


def is_relied_on(lease: HeldLease) -> bool:
    """Whether its holder would go on."""
    try:
        lease.ensure_held()
    except LeaseLost:
        return False
    return True


def expire(lock: ZooKeeperLock, hosts: str) -> None:
    """End the lock's session at the service, as if its time were out."""
    twin = KazooClient(hosts, client_id=lock._session().client().client_id)
    twin.start()
    twin.stop()
    twin.close()


def check_nothing_is_left(lock: ZooKeeperLock, ensemble: Ensemble) -> None:
    """No node and no watch, while all sessions go on."""
    wait_until(lambda: lock.held() == [], "all nodes are gone")
    wait_until(lambda: ensemble.watches() == 0, "all watches are gone")


def test_a_holder_is_in_no_doubt_again_after_the_leader_was_killed_and_its_waiter_is_served(
    lock: ZooKeeperLock, other: ZooKeeperLock, ensemble: Ensemble
) -> None:
    lease = taken(lock, "order")
    waiting = Waiting(other, "order")
    wait_until(lambda: places(lock, "order") == 2, "it waits")
    ensemble.leader().process.kill9()
    ensemble.leader()  # another one
    wait_until(lambda: is_relied_on(lease), "the lease stands again")
    assert not lease.lost.is_set()
    # Kept all the while: a newcomer comes third.
    with pytest.raises((LockTimeout, LockUnavailable)):
        other.acquire("order", lease_ms=LEASE_MS, wait_ms=0)
    lease.ensure_held()
    lease.release()
    assert waiting.fence() > lease.fence
    check_nothing_is_left(lock, ensemble)


def test_fences_rise_over_a_change_of_leader(lock: ZooKeeperLock, ensemble: Ensemble) -> None:
    fences = []
    for turn in range(3):
        lease = taken(lock, "order")
        fences.append(lease.fence)
        lease.release()
        if turn == 1:
            ensemble.leader().process.kill9()
            ensemble.leader()
    assert fences == sorted(set(fences))


def test_without_a_quorum_leases_are_in_doubt_and_none_is_granted_until_all_goes_on(
    lock: ZooKeeperLock, other: ZooKeeperLock, ensemble: Ensemble
) -> None:
    lease, given_back = taken(lock, "order"), taken(lock, "given-back")
    waiting = Waiting(other, "order")
    wait_until(lambda: places(lock, "order") == 2, "it waits")
    for server in ensemble.followers():
        server.process.kill9()
    wait_until(lambda: not is_relied_on(lease), "the lease is in doubt")
    assert not lease.lost.is_set()
    with pytest.raises(LeaseLost, match="connection to ZooKeeper is broken"):
        lease.ensure_held()
    for _ in range(2):
        with pytest.raises(LockUnavailable):
            lock.acquire("another", lease_ms=LEASE_MS, wait_ms=PATIENCE_MS)
        with pytest.raises(LockUnavailable):
            lock.ping()
    given_back.release()  # which the service will hear of when it is back
    ensemble.start()
    wait_until(lambda: is_relied_on(lease), "the lease stands again")
    wait_until(lambda: places(lock, "given-back") == 0, "what was given back is free")
    lease.release()
    assert waiting.fence() > lease.fence
    taken(lock, "another").release()
    check_nothing_is_left(lock, ensemble)


def test_a_holder_whose_session_ends_knows_it_long_before_its_time_is_out(
    lock: ZooKeeperLock, other: ZooKeeperLock, ensemble: Ensemble
) -> None:
    lease = taken(lock, "order")
    assert lease.remaining_ms() > SESSION_MS // 3
    expire(lock, ensemble.hosts)
    assert lease.lost.wait(SESSION_MS / 1_000 / 4)
    with pytest.raises(LeaseLost, match="session ended"):
        lease.ensure_held()
    later = taken(other, "order")
    assert later.fence > lease.fence
    lease.release()
    later.ensure_held()
    later.release()
    taken(lock, "order").release()
    check_nothing_is_left(lock, ensemble)


def test_a_waiter_whose_session_ends_queues_up_again_at_the_end(
    lock: ZooKeeperLock, new_lock: Callable[..., ZooKeeperLock], ensemble: Ensemble
) -> None:
    unlucky, third = new_lock(), new_lock()
    lease = taken(lock, "order")
    early = Waiting(unlucky, "order")
    wait_until(lambda: places(lock, "order") == 2, "it waits")
    late = Waiting(third, "order")
    wait_until(lambda: places(lock, "order") == 3, "both wait")
    expire(unlucky, ensemble.hosts)
    taken(unlucky, "another").release()  # in its new session
    wait_until(lambda: places(lock, "order") == 3, "it waits again")
    lease.ensure_held()
    lease.release()
    assert lease.fence < late.fence() < early.fence()
    check_nothing_is_left(lock, ensemble)


@pytest.mark.parametrize("lost", ["the answer to create", "the answer to get_children"])
def test_a_session_that_ends_between_create_and_get_children_leaves_nothing_and_queues_up_again(
    ensemble: Ensemble, other: ZooKeeperLock, lost: str
) -> None:
    taken(other, "order").release()  # the folders are there
    server = ensemble.leader()
    shard = shard_of(ROOT, "order").encode("ascii")
    request = {
        "the answer to create": b"order~",
        # zookeeper.jute: type 8 is getChildren, then the path with its length.
        "the answer to get_children": struct.pack("!ii", 8, len(shard)) + shard,
    }[lost]
    with Proxy(server.port) as proxy:
        lock = ZooKeeperLock(f"127.0.0.1:{proxy.port}{ROOT}", session_ms=SESSION_MS)
        lock.ping()
        proxy.drop_replies(1, to=request, silently=True)
        waiting = Waiting(lock, "order")
        wait_until(lambda: proxy.dropped == 1, "the answer is lost")
        expire(lock, server.hosts)
        fence = waiting.fence()
        later = taken(other, "order")
        assert later.fence > fence
        later.release()
        wait_until(lambda: places(other, "order") == 0, "all nodes are gone")
        check_nothing_is_left(other, ensemble)
        lock.close()


def test_a_server_that_falls_silent_is_left_for_another_and_leases_outlive_it(
    lock: ZooKeeperLock, ensemble: Ensemble
) -> None:
    lease = taken(lock, "order")
    _, port = lock._session().client()._connection._socket.getpeername()
    (server,) = [each for each in ensemble.servers if each.port == port]
    server.process.sigstop()
    try:
        # One that goes on asking all the while, as a busy shop would.
        taken(lock, "another").release()
        lease.ensure_held()
    finally:
        server.process.sigcont()
    lease.release()
    check_nothing_is_left(lock, ensemble)


def test_a_follower_that_is_cut_off_from_its_leader_renews_no_lease(
    new_lock: Callable[..., ZooKeeperLock], ensemble: Ensemble
) -> None:
    server, other = ensemble.followers()
    lock = new_lock(server.hosts)
    lease = taken(lock, "order")
    # Both others, so that there is nobody who could lead or vote.
    silent = [ensemble.leader(), other]
    for each in silent:
        each.process.sigstop()
    try:
        # For a while the follower goes on to answer what it knows.
        with pytest.raises(LockUnavailable):
            lock._renew([lease])
    finally:
        for each in silent:
            each.process.sigcont()
    wait_until(lambda: is_relied_on(lease), "the lease stands again")
    lease.release()
    check_nothing_is_left(lock, ensemble)


def test_waiters_that_gave_up_leave_no_watch_on_the_one_who_still_holds(
    lock: ZooKeeperLock, other: ZooKeeperLock, ensemble: Ensemble
) -> None:
    with hold(lock, "order", lease_ms=LEASE_MS, wait_ms=0):
        for _ in range(3):
            with pytest.raises(LockTimeout):
                other.acquire("order", lease_ms=LEASE_MS, wait_ms=20)
        wait_until(lambda: ensemble.watches() == 0, "all watches are gone")
        assert places(lock, "order") == 1
    check_nothing_is_left(lock, ensemble)


def test_a_waiter_behind_one_that_gave_up_is_served_all_the_same(
    lock: ZooKeeperLock, other: ZooKeeperLock, ensemble: Ensemble
) -> None:
    lease = taken(lock, "order")
    impatient = threading.Thread(target=_give_up, args=(other, "order"))
    impatient.start()
    wait_until(lambda: places(lock, "order") == 2, "the impatient one waits")
    # In the same session: the watch that the one takes back is the one that the other sets.
    waiting = Waiting(other, "order")
    wait_until(lambda: places(lock, "order") == 3, "both wait")
    impatient.join()
    wait_until(lambda: places(lock, "order") == 2, "one is left")
    lease.release()
    assert waiting.fence() > lease.fence
    check_nothing_is_left(lock, ensemble)


def _give_up(lock: ZooKeeperLock, key: str) -> None:
    with pytest.raises(LockTimeout):
        lock.acquire(key, lease_ms=LEASE_MS, wait_ms=1_500)
