"""Leases in a real Redis Cluster of three nodes."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from locks import LockObserver, LockUnavailable, from_url, hold
from locks.on_redis.cluster import slot_of
from locks.on_redis.lock import RedisLock
from locks.on_redis.scripts import lock_keys
from tests.integration.locks_support import Process, holder, storm
from tests.processes import free_port, wait_until
from tests.redis_servers import ClusterKit, ConfiguredRedis
from tests.services import RedisServer

PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def kit() -> Iterator[ClusterKit]:
    """One cluster for all tests but those that break it."""
    with ClusterKit() as started:
        yield started


@pytest.fixture
def lock(kit: ClusterKit) -> Iterator[RedisLock]:
    """One process's lock; it is told of one node only."""
    made = RedisLock(kit.url)
    yield made
    made.close()


def _key_at(kit: ClusterKit, node: int, stem: str) -> str:
    """A key whose slot this node has."""
    return next(
        key
        for key in (f"{stem}-{number}" for number in range(1_000))
        if kit.owner_of(slot_of(key)) == node
    )


def test_the_four_keys_of_a_lock_are_in_the_slot_that_redis_itself_counts(kit: ClusterKit) -> None:
    with kit.nodes[0].client() as client:
        for name in ("a", "order-1", "ORDER_2", "x" * 64):
            slots = {client.cluster("KEYSLOT", each) for each in lock_keys(name)}
            assert slots == {slot_of(name)}


@pytest.mark.parametrize("node", [0, 1, 2])
def test_the_key_is_handed_over_directly_whichever_node_has_it(
    kit: ClusterKit, node: int, tmp_path: Path
) -> None:
    key = _key_at(kit, node, "storm")
    told: list[int] = []

    class Telling(LockObserver):
        def handed_over(self, backend: str, took_ns: int) -> None:
            told.append(took_ns)

    lock = RedisLock(kit.url, Telling())
    try:
        with Process("storm", kit.url, key, tmp_path, 3, 10) as other:
            storm(lock, key, tmp_path, 3, 10)
            assert other.wait() == 0
        assert lock.held() == []
    finally:
        lock.close()
    fences = [int(line) for line in (tmp_path / "fences").read_text().split()]
    assert len(fences) == 60
    assert all(earlier < later for earlier, later in pairwise(fences))
    assert told  # by messages that were counted rightly, not by asking again


def test_a_dead_waiter_is_passed_over_in_the_very_release(kit: ClusterKit, lock: RedisLock) -> None:
    key = _key_at(kit, 2, "dead")
    first = lock.acquire(key, lease_ms=20_000, wait_ms=0)
    with holder(kit.url, key, lease_ms=20_000, wait_ms=PATIENCE_MS) as process:
        assert process.listen() == "started"
        wait_until(lambda: _waiters(lock, key) == 1, "the waiter queues up")
        process.kill()
        with kit.nodes[2].client() as client:
            wait_until(lambda: not client.pubsub_channels("lease-granted:*"), "its channel closes")
        first.release()
        lock.acquire(key, lease_ms=1_000, wait_ms=0).release()


def test_leases_of_all_nodes_are_listed_renewed_and_broken(
    kit: ClusterKit, lock: RedisLock
) -> None:
    keys = sorted(_key_at(kit, node, "listed") for node in range(3))
    with ExitStack() as stack:
        leases = [stack.enter_context(hold(lock, key, lease_ms=1_000, wait_ms=0)) for key in keys]
        assert [held.key for held in lock.held()] == keys
        assert len(lock.held(limit=2)) == 2
        assert not leases[0].lost.wait(2.0)  # renewed twice over
        for lease in leases:
            lease.ensure_held()
            broken = lock.break_lease(lease.key)
            assert broken is not None
            assert broken.fence == lease.fence
        assert lock.held() == []


def test_a_slot_that_moves_takes_its_lease_and_its_waiters_along(
    kit: ClusterKit, lock: RedisLock
) -> None:
    key = _key_at(kit, 0, "moving")
    slot = slot_of(key)
    held = lock.acquire(key, lease_ms=1_500, wait_ms=0)
    served: list[int] = []

    def wait() -> None:
        with hold(lock, key, lease_ms=1_500, wait_ms=PATIENCE_MS) as lease:
            served.append(lease.fence)

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(lambda: _waiters(lock, key) == 1, "the waiter queues up")
    kit.move_slot(slot, 0, 1)
    try:
        # Between the two: the old node has the slot, the new one the keys (ASK).
        held.ensure_held()
        assert not held.lost.wait(1.8)
    finally:
        kit.finish_move(slot, 1)
    assert not held.lost.wait(1.8)
    held.release()
    waiter.join(PATIENCE_MS / 1_000)
    assert served
    assert served[0] > held.fence
    with hold(lock, key, lease_ms=1_500, wait_ms=0) as later:
        assert later.fence > served[0]


def test_a_url_of_one_server_that_leads_to_a_cluster_is_refused_with_what_to_write(
    kit: ClusterKit,
) -> None:
    lock = from_url(f"redis://127.0.0.1:{kit.nodes[0].port}/0")
    try:
        with pytest.raises(LockUnavailable, match=r"write redis\+cluster://"):
            lock.acquire(_key_at(kit, 1, "plain"), lease_ms=1_000, wait_ms=0)
    finally:
        lock.close()


def test_a_url_of_a_cluster_that_leads_to_one_server_or_to_nodes_without_slots_is_refused(
    redis_server: RedisServer,
) -> None:
    with ConfiguredRedis("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as empty:
        for port, said in (
            (redis_server.port, "cluster support disabled"),
            (empty.port, "No node of the cluster has"),
        ):
            lock = from_url(f"redis+cluster://127.0.0.1:{port}")
            with pytest.raises(LockUnavailable, match=said):
                lock.acquire("order", lease_ms=1_000, wait_ms=0)
            with pytest.raises(LockUnavailable, match=said):
                lock.ping()
            lock.close()


def test_a_dead_node_takes_only_its_own_keys_away() -> None:
    with ClusterKit() as kit:
        lock = from_url(kit.url)
        try:
            keys = [_key_at(kit, node, "alive") for node in range(3)]
            for key in keys:
                lock.acquire(key, lease_ms=1_000, wait_ms=0).release()
            for node in kit.nodes:
                with node.client() as client:
                    client.config_set("cluster-require-full-coverage", "no")
            leases = [
                lock.acquire(_key_at(kit, node, "held"), lease_ms=2_000, wait_ms=0)
                for node in range(3)
            ]
            kit.nodes[1].process.kill9()
            with pytest.raises(LockUnavailable):
                lock.acquire(keys[1], lease_ms=1_000, wait_ms=PATIENCE_MS)
            for key in (keys[0], keys[2]):
                lock.acquire(key, lease_ms=1_000, wait_ms=0).release()
            with pytest.raises(LockUnavailable):
                lock.ping()
            wait_until(leases[1].lost.is_set, "the dead node's lease is lost")
            time.sleep(2.0)  # the others have been renewed since, or would be lost as well
            assert [lease.lost.is_set() for lease in leases] == [False, True, False]
        finally:
            lock.close()


def test_a_node_that_hangs_takes_no_leases_of_the_others_away(
    kit: ClusterKit, lock: RedisLock
) -> None:
    leases = [
        lock.acquire(_key_at(kit, node, "beside"), lease_ms=3_000, wait_ms=0) for node in range(3)
    ]
    for node in kit.nodes:
        with node.client() as client:
            client.script_flush()  # as if none of these leases had been renewed before
    kit.nodes[0].process.sigstop()
    try:
        # Twice as long as unrenewed ones last, and less than the cluster takes to notice.
        assert leases[0].lost.wait(PATIENCE_MS / 1_000)
        time.sleep(1.5)
        assert [lease.lost.is_set() for lease in leases] == [True, False, False]
    finally:
        kit.nodes[0].process.sigcont()
    for lease in leases:
        lease.release()


def _waiters(lock: RedisLock, key: str) -> int:
    return sum(len(held.waiters) for held in lock.held() if held.key == key)
