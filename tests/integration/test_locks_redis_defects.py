"""Defects of known lock libraries over Redis, shown on each, and that ours does not have them.

Real libraries, a real server, and a loopback proxy that loses replies. A failover with a lost write
is in test_locks_redis_sentinel, ZooKeeper's libraries are in test_locks_zookeeper_*.
"""

import threading
import time
from collections.abc import Iterator

import pytest
import redis
import redis_lock
import sherlock
from redis.backoff import NoBackoff
from redis.retry import Retry

from locks import LockTimeout, from_url, hold
from locks.on_redis.link import REPLY_TIMEOUT_S
from locks.on_redis.lock import RedisLock
from locks.on_redis.scripts import lock_keys
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.services import RedisServer

PATIENCE_MS = 30_000
LEASE_MS = 20_000
# More replies than the libraries' clients repeat a request for: an outage, if a short one.
OUTAGE_REPLIES = 12


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """A bad network before the run's Redis."""
    with Proxy(redis_server.port) as started:
        yield started


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the libraries, or behind their back, on a good network."""
    with redis.Redis(port=redis_server.port) as made:
        yield made


@pytest.fixture
def far_client(proxy: Proxy) -> Iterator[redis.Redis]:
    """A client of the libraries behind the bad network, as redis-py makes it by default."""
    with redis.Redis(port=proxy.port) as made:
        assert made.ping()
        yield made


@pytest.fixture
def lock(redis_url: str) -> Iterator[RedisLock]:
    """Ours, on a good network."""
    made = RedisLock(redis_url)
    yield made
    made.close()


@pytest.fixture
def far(proxy: Proxy) -> Iterator[RedisLock]:
    """Ours, behind the bad network."""
    made = RedisLock(f"redis://127.0.0.1:{proxy.port}/0")
    made.acquire("warm-up", lease_ms=1_000, wait_ms=0).release()
    yield made
    made.close()


# The reply to the grant is lost once


def test_redis_py_says_no_to_the_one_whose_grant_stands(
    far_client: redis.Redis, proxy: Proxy, client: redis.Redis, key: str
) -> None:
    theirs = far_client.lock(key, timeout=LEASE_MS / 1_000)
    proxy.drop_replies(1, to=key.encode())
    assert theirs.acquire(blocking=False) is False
    assert proxy.dropped == 1
    # Nobody has it, and nobody gets it until the time is out.
    assert client.get(key) is not None
    assert client.lock(key).acquire(blocking=False) is False


def test_ours_finds_the_grant_whose_reply_was_lost(
    far: RedisLock, proxy: Proxy, lock: RedisLock, key: str
) -> None:
    proxy.drop_replies(1, to=key.encode())
    with hold(far, key, lease_ms=LEASE_MS, wait_ms=0) as lease:
        assert proxy.dropped == 1
        lease.ensure_held(need_ms=1_000)
    lock.acquire(key, lease_ms=1_000, wait_ms=0).release()


# The reply to the release is lost once


def test_redis_py_calls_a_good_release_a_lock_that_was_not_owned(
    far_client: redis.Redis, proxy: Proxy, client: redis.Redis, key: str
) -> None:
    with far_client.lock(f"{key}-before"):
        pass  # so that the server knows the script
    theirs = far_client.lock(key, timeout=LEASE_MS / 1_000)
    assert theirs.acquire(blocking=False)
    proxy.drop_replies(1, to=key.encode())
    with pytest.raises(redis.exceptions.LockNotOwnedError):
        theirs.release()
    assert proxy.dropped == 1
    assert client.get(key) is None  # it was released, and rightly


def test_ours_takes_a_release_whose_reply_was_lost_for_what_it_is(
    far: RedisLock, proxy: Proxy, lock: RedisLock, key: str
) -> None:
    lease = far.acquire(key, lease_ms=LEASE_MS, wait_ms=0)
    proxy.drop_replies(1, to=key.encode())
    lease.release()
    assert proxy.dropped == 1
    lock.acquire(key, lease_ms=1_000, wait_ms=0).release()


# The release cannot be sent at all


def test_redis_py_forgets_its_token_when_a_release_fails(
    proxy: Proxy, client: redis.Redis, key: str
) -> None:
    with redis.Redis(port=proxy.port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0)) as impatient:
        theirs = impatient.lock(key, timeout=LEASE_MS / 1_000)
        assert theirs.acquire(blocking=False)
        proxy.freeze()
        with pytest.raises(redis.TimeoutError):
            theirs.release()
        proxy.cut()
        proxy.thaw()
        with pytest.raises(redis.exceptions.LockError, match="not owned or is already unlocked"):
            theirs.release()
        assert client.get(key) is not None


def test_ours_releases_when_the_service_is_back(
    far: RedisLock, proxy: Proxy, lock: RedisLock, key: str
) -> None:
    lease = far.acquire(key, lease_ms=600_000, wait_ms=0)
    proxy.freeze()
    lease.release()
    proxy.cut()
    with pytest.raises(LockTimeout):
        lock.acquire(key, lease_ms=1_000, wait_ms=0)
    proxy.thaw()
    lock.acquire(key, lease_ms=1_000, wait_ms=PATIENCE_MS).release()


# A wait that is longer than the client's time-out for a reply


def test_python_redis_lock_s_wait_is_ended_by_the_client_s_time_out(
    redis_server: RedisServer, client: redis.Redis, key: str
) -> None:
    # redis-py's own is 5 s, and it repeats three times; shorter here, so that nobody waits 20 s.
    assert client.connection_pool.connection_kwargs["socket_timeout"] == 5
    with redis.Redis(
        port=redis_server.port, socket_timeout=0.2, retry=Retry(NoBackoff(), 3)
    ) as impatient:
        first = redis_lock.Lock(impatient, key, expire=60)
        assert first.acquire(blocking=False)
        with pytest.raises(redis.TimeoutError):
            redis_lock.Lock(impatient, key, expire=60).acquire(blocking=True)
        first.release()


def test_ours_waits_for_longer_than_a_reply_may_take(lock: RedisLock, key: str) -> None:
    first = lock.acquire(key, lease_ms=LEASE_MS, wait_ms=0)
    releaser = threading.Timer(2 * REPLY_TIMEOUT_S + 0.2, first.release)
    releaser.start()
    with hold(lock, key, lease_ms=LEASE_MS, wait_ms=PATIENCE_MS) as lease:
        assert lease.fence > first.fence
    releaser.join()


# A lock that is meant not to expire


def test_sherlock_without_an_expiry_has_two_holders(client: redis.Redis, key: str) -> None:
    first = sherlock.RedisLock(key, client=client, expire=None)
    second = sherlock.RedisLock(key, client=client, expire=None)
    assert first.acquire(blocking=False)
    assert second.acquire(blocking=False)


def test_ours_always_expires_and_is_kept_by_renewal_alone(
    lock: RedisLock, redis_url: str, client: redis.Redis, key: str
) -> None:
    other = from_url(redis_url)
    with hold(lock, key, lease_ms=1_000, wait_ms=0):
        with pytest.raises(LockTimeout):
            other.acquire(key, lease_ms=1_000, wait_ms=2_500)
        assert 0 < client.pttl(lock_keys(key)[0]) <= 1_000
    other.close()


# The renewal fails for a moment


def test_python_redis_lock_s_renewal_dies_and_its_holder_is_not_told(
    far_client: redis.Redis,
    proxy: Proxy,
    client: redis.Redis,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deaths: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda death: deaths.append(death.exc_type))
    theirs = redis_lock.Lock(far_client, key, expire=1, auto_renewal=True)
    assert theirs.acquire(blocking=False)
    proxy.drop_replies(OUTAGE_REPLIES, to=key.encode())
    wait_until(lambda: bool(deaths), "the renewing thread dies")
    proxy.drop_replies(0)
    assert issubclass(deaths[0], redis.ConnectionError)
    # The network is good again, the first holder works on, and a second one comes in.
    second = redis_lock.Lock(client, key, expire=60)
    wait_until(lambda: bool(second.acquire(blocking=False)), "the lock runs out")
    # Only now, when all is done, the first one hears of it.
    with pytest.raises(redis_lock.NotAcquired):
        theirs.release()
    second.release()


def test_ours_goes_on_renewing_after_an_outage(
    far: RedisLock, proxy: Proxy, lock: RedisLock, key: str
) -> None:
    with hold(far, key, lease_ms=2_400, wait_ms=0) as lease:
        proxy.drop_replies(OUTAGE_REPLIES, to=key.encode())
        wait_until(lambda: proxy.dropped == OUTAGE_REPLIES, "renewals fail")
        until = time.monotonic() + 3.0
        while time.monotonic() < until:
            lease.ensure_held()
            with pytest.raises(LockTimeout):
                lock.acquire(key, lease_ms=1_000, wait_ms=200)


def test_ours_tells_its_holder_of_an_outage_that_outlasts_the_lease(
    far: RedisLock, proxy: Proxy, lock: RedisLock, key: str
) -> None:
    lease = far.acquire(key, lease_ms=1_000, wait_ms=0)
    proxy.freeze()
    with hold(lock, key, lease_ms=LEASE_MS, wait_ms=PATIENCE_MS) as later:
        assert lease.lost.is_set()  # before anybody else could come in
        assert later.fence > lease.fence
    proxy.thaw()
