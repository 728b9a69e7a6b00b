"""Leases across a promotion: a real master, its replica and three sentinels.

What holds: a lease whose writes reached the replica stands through the promotion. One whose writes
were lost is known to be lost by its next renewal, or runs out, and whoever gets the key meanwhile
has a higher fence. So the database's fence is the safety: it refuses the earlier holder in the time
between (LOCKS of this kind cannot do better: the promotion itself forgot).
"""

import threading
import time
from collections.abc import Iterator

import pytest
import redis

from locks import LeaseLost, LockTimeout, LockUnavailable, from_url, hold
from locks.on_redis.lock import RedisLock
from locks.on_redis.scripts import lock_keys
from tests.processes import wait_until
from tests.redis_servers import SentinelKit

PATIENCE_MS = 30_000
# Longer than a promotion takes, and renewed several times in it.
LEASE_MS = 15_000


@pytest.fixture
def kit() -> Iterator[SentinelKit]:
    """A master, a replica, three sentinels; each test may kill what it likes."""
    with SentinelKit() as started:
        yield started


@pytest.fixture
def lock(kit: SentinelKit) -> Iterator[RedisLock]:
    """One process's lock, by the sentinels."""
    made = RedisLock(kit.url)
    yield made
    made.close()


def test_a_promotion_keeps_the_lease_and_its_waiter_gets_the_key_with_a_higher_fence(
    kit: SentinelKit, lock: RedisLock
) -> None:
    held = lock.acquire("kept", lease_ms=LEASE_MS, wait_ms=0)
    lost = lock.acquire("wiped", lease_ms=LEASE_MS, wait_ms=0)
    _wait_for_replica(kit)
    served: list[int] = []
    waiter = threading.Thread(target=_get_it_at_last, args=(kit.url, "kept", served))
    waiter.start()
    wait_until(lambda: len(_waiters_of(lock, "kept")) == 1, "the waiter queues up")
    kit.master.process.kill9()
    kit.wait_for_promotion()
    with kit.replica.client() as client:
        wait_until(lambda: client.info("replication")["role"] == "master", "the replica is master")
        # Kept: renewed at the new master, by the same thread and with the same fence.
        before = _token_ttl(client, "kept")
        wait_until(lambda: _token_ttl(client, "kept") > before, "the lease is renewed there")
        # Lost: what is not there is known to be lost.
        client.delete(lock_keys("wiped")[0])
    assert lost.lost.wait(PATIENCE_MS / 1_000)
    held.ensure_held(need_ms=1_000)
    assert not served
    held.release()
    waiter.join(PATIENCE_MS / 1_000)
    assert served
    assert served[0] > held.fence


def test_after_a_promotion_that_lost_the_grant_the_next_holder_s_fence_is_higher(
    kit: SentinelKit, lock: RedisLock
) -> None:
    lock.ping()
    with kit.master.client() as client:
        numbers = [client.incr("counter") for _ in range(3)]
        _wait_for_replica(kit)
        # From here on nothing reaches the replica, as if the network between the two had failed.
        client.config_set("requirepass", "another")
        client.client_kill_filter(_type="replica")
        wait_until(lambda: client.info("replication")["connected_slaves"] == 0, "it is cut off")
        held = lock.acquire("order", lease_ms=LEASE_MS, wait_ms=0)
        numbers.append(client.incr("counter"))
    kit.master.process.kill9()
    kit.wait_for_promotion()
    with kit.replica.client() as client:
        wait_until(lambda: client.info("replication")["role"] == "master", "the replica is master")
        # A counter's fences: two holders with the same one, which no resource can tell apart.
        numbers.append(client.incr("counter"))
        assert numbers[-2:] == [4, 4]
    served: list[int] = []
    _get_it_at_last(kit.url, "order", served)
    assert served[0] > held.fence
    # The first holder is told by its next renewal, and not later than its lease's end.
    assert held.lost.wait(PATIENCE_MS / 1_000)
    with pytest.raises(LeaseLost):
        held.ensure_held()


def test_a_grant_that_must_be_confirmed_is_refused_without_replicas(kit: SentinelKit) -> None:
    lock = from_url(f"{kit.url}&wait_replicas=1")
    try:
        first = lock.acquire("order", lease_ms=LEASE_MS, wait_ms=0)
        with kit.replica.client() as client:
            # Confirmed means: it is there already.
            owner = client.get(lock_keys("order")[0])
        assert owner is not None
        assert owner.split("|")[1] == str(first.fence)
        first.release()
        kit.replica.process.sigstop()
        with pytest.raises(LockUnavailable, match="0 of 1 replicas confirmed"):
            lock.acquire("order", lease_ms=LEASE_MS, wait_ms=0)
        kit.replica.process.sigcont()
        # What was granted without counting is given back in the background.
        with hold(lock, "order", lease_ms=LEASE_MS, wait_ms=PATIENCE_MS) as later:
            assert later.fence > first.fence
    finally:
        kit.replica.process.sigcont()
        lock.close()


def test_a_user_that_may_not_ask_for_a_confirmation_is_refused_with_the_reason(
    kit: SentinelKit,
) -> None:
    with kit.master.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "locker", "on", ">word", "~*", "&*", "+@all", "-wait"
        )
    lock = from_url(kit.url.replace("default:red%3Ais", "locker:word") + "&wait_replicas=1")
    with pytest.raises(LockUnavailable, match="'wait' command"):
        lock.acquire("order", lease_ms=LEASE_MS, wait_ms=0)
    lock.close()


def test_sentinels_that_cannot_help_are_named_and_no_password_is(kit: SentinelKit) -> None:
    for url, named in (
        (kit.url.replace("/shop/", "/depot/"), "'depot'"),
        (kit.url.replace("senti%2Fnel", "wrongword"), "invalid username-password"),
        (kit.url.replace("red%3Ais", "wrongword"), "refused"),
    ):
        lock = from_url(url)
        with pytest.raises(LockUnavailable, match=named) as caught:
            lock.acquire("order", lease_ms=LEASE_MS, wait_ms=0)
        assert "wrongword" not in str(caught.value)
        assert "nel" not in str(caught.value).replace("sentinel", "")
        lock.close()


def _get_it_at_last(url: str, key: str, served: list[int]) -> None:
    """As a shop does: whoever is told that the service is away comes again."""
    lock = from_url(url)
    until = time.monotonic() + PATIENCE_MS / 1_000
    while not served and time.monotonic() < until:
        try:
            with hold(lock, key, lease_ms=LEASE_MS, wait_ms=PATIENCE_MS) as lease:
                served.append(lease.fence)
        except (LockUnavailable, LockTimeout):
            time.sleep(0.05)
    lock.close()


def _waiters_of(lock: RedisLock, key: str) -> tuple[str, ...]:
    return next(held.waiters for held in lock.held() if held.key == key)


def _wait_for_replica(kit: SentinelKit) -> None:
    with kit.master.client() as client:
        wait_until(lambda: client.wait(1, 100) == 1, "the replica has all writes")


def _token_ttl(client: "redis.Redis", key: str) -> int:
    return int(client.pttl(lock_keys(key)[0]))
