"""A waiter that was handed the key and is frozen: who handed it over sees to the next one."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import redis

from locks import Lease, LockUnavailable, hold
from locks.clock import NS_PER_MS, now_ns
from locks.on_redis import waiter
from locks.on_redis.claim_watch import ClaimWatch
from locks.on_redis.lock import RedisLock
from locks.on_redis.scripts import lock_keys
from locks.renewal import Chore
from tests.integration.locks_support import holder
from tests.processes import wait_until
from tests.proxy import Proxy
from tests.services import RedisServer

PATIENCE_MS = 60_000
# By themselves waiters would ask after 12 seconds at the earliest.
BEFORE_THEY_ASK_S = 9.0


@pytest.fixture
def lock(redis_url: str) -> Iterator[RedisLock]:
    """The holder's."""
    made = RedisLock(redis_url)
    yield made
    made.close()


@pytest.fixture
def other(redis_url: str) -> Iterator[RedisLock]:
    """Another process's, so to say."""
    made = RedisLock(redis_url)
    yield made
    made.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """Behind the library's back."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as made:
        yield made


class Waiting:
    """A thread that waits for the key and keeps it until told."""

    def __init__(self, lock: RedisLock, key: str) -> None:
        self.served = threading.Event()
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(lock, key), daemon=True)
        self._thread.start()

    def _run(self, lock: RedisLock, key: str) -> None:
        with hold(lock, key, lease_ms=60_000, wait_ms=PATIENCE_MS):
            self.served.set()
            self._enough.wait()

    def end(self) -> None:
        """Give the key back."""
        self._enough.set()
        self._thread.join()


def _queue(client: redis.Redis, key: str, length: int) -> None:
    queue_key = lock_keys(key)[2]
    wait_until(lambda: client.llen(queue_key) == length, f"{length} in the queue")


@pytest.mark.parametrize("frozen", [1, 2])
def test_behind_frozen_waiters_the_next_is_served_though_it_does_not_ask(
    redis_url: str, lock: RedisLock, other: RedisLock, client: redis.Redis, key: str, frozen: int
) -> None:
    with ExitStack() as stack:
        first = lock.acquire(key, lease_ms=60_000, wait_ms=0)
        for number in range(1, frozen + 1):
            process = holder(redis_url, key, lease_ms=60_000, wait_ms=PATIENCE_MS)
            stack.enter_context(process)
            assert process.listen() == "started"
            _queue(client, key, number)
            process.freeze()
        waiting = Waiting(other, key)
        _queue(client, key, frozen + 1)
        first.release()
        assert waiting.served.wait(BEFORE_THEY_ASK_S), client.get(lock_keys(key)[0])
        waiting.end()


@contextmanager
def behind_a_frozen_waiter(
    redis_url: str, lock: RedisLock, client: redis.Redis, key: str
) -> Iterator[Waiting]:
    """Waits for a key by `lock`, behind a process that waits for it and is frozen."""
    with holder(redis_url, key, lease_ms=60_000, wait_ms=PATIENCE_MS) as process:
        assert process.listen() == "started"
        _queue(client, key, 1)
        process.freeze()
        waiting = Waiting(lock, key)
        _queue(client, key, 2)
        yield waiting
        waiting.end()


def test_behind_a_frozen_waiter_the_next_is_served_after_an_operator_ended_the_lease(
    redis_url: str, lock: RedisLock, other: RedisLock, client: redis.Redis, key: str
) -> None:
    first = other.acquire(key, lease_ms=60_000, wait_ms=0)
    with behind_a_frozen_waiter(redis_url, other, client, key) as waiting:
        assert lock.break_lease(key) is not None
        assert waiting.served.wait(BEFORE_THEY_ASK_S), client.get(lock_keys(key)[0])
    first.release()


def test_if_who_handed_it_over_is_gone_as_well_the_next_one_asks_in_the_end(
    redis_url: str,
    lock: RedisLock,
    other: RedisLock,
    client: redis.Redis,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiter, "POLL_S", 3.0)
    first = lock.acquire(key, lease_ms=60_000, wait_ms=0)
    with behind_a_frozen_waiter(redis_url, other, client, key) as waiting:
        first.release()
        lock.close()
        assert waiting.served.wait(PATIENCE_MS / 1_000)


def test_a_key_is_watched_once_and_no_longer_than_needed(
    lock: RedisLock, other: RedisLock, key: str
) -> None:
    watched = lock._claims._ends_ns
    for _ in range(20):
        first = lock.acquire(key, lease_ms=60_000, wait_ms=PATIENCE_MS)
        waiting = Waiting(other, key)
        wait_until(lambda: bool(lock.held()[0].waiters), "one waits")
        first.release()
        assert waiting.served.wait(PATIENCE_MS / 1_000)
        waiting.end()
        assert len(lock._renewer._chores) <= 1  # none, if the look fell into this very moment
    wait_until(lambda: not watched and not lock._renewer._chores, "nothing is watched any more")


def test_a_subscription_that_did_not_hear_of_its_turn_is_not_used_again(
    redis_server: RedisServer,
    lock: RedisLock,
    client: redis.Redis,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiter, "POLL_S", 3.0)
    with Proxy(redis_server.port) as proxy:
        far = RedisLock(f"redis://127.0.0.1:{proxy.port}/0")
        try:
            for is_deaf in (False, True):
                first = lock.acquire(key, lease_ms=60_000, wait_ms=0)
                if is_deaf:
                    [channel] = client.pubsub_channels()
                    proxy.deafen()  # as a gateway does that forgot the connection
                    with pytest.raises(LockUnavailable):  # requests notice, and connect anew
                        far.acquire(f"{key}-other", lease_ms=1_000, wait_ms=0)
                waiting = Waiting(far, key)
                _queue(client, key, 1)
                first.release()
                assert waiting.served.wait(PATIENCE_MS / 1_000)
                waiting.end()
            wait_until(lambda: channel not in client.pubsub_channels(), "it was dropped")
        finally:
            far.close()


def test_a_lock_that_watches_is_closed_with_all_its_leases(
    lock: RedisLock, other: RedisLock, client: redis.Redis, key: str
) -> None:
    first = lock.acquire(key, lease_ms=60_000, wait_ms=0)
    waiting = Waiting(other, key)
    _queue(client, key, 1)
    first.release()
    assert waiting.served.wait(PATIENCE_MS / 1_000)
    for number in range(3):
        lock.acquire(f"{key}-{number}", lease_ms=60_000, wait_ms=0)
    lock.close()
    again: list[Lease] = [
        other.acquire(f"{key}-{number}", lease_ms=1_000, wait_ms=0) for number in range(3)
    ]
    for lease in again:
        lease.release()
    waiting.end()


def test_many_keys_that_were_handed_over_are_looked_at_in_one_batch() -> None:
    batches: list[list[str]] = []
    chores: list[Chore] = []

    def look_at(keys: list[str]) -> Iterable[tuple[int, int | LockUnavailable]]:
        batches.append(keys)
        return [(1, 0), (2, 700), (0, LockUnavailable("no answer"))]

    watch = ClaimWatch(look_at, chores.append)
    for key in ("a", "b", "c"):
        watch.handed_over(key)
    [chore] = chores
    wait_until(lambda: chore.next_ns + 50 * NS_PER_MS < now_ns(), "all are due")
    with pytest.raises(LockUnavailable):
        chore.run()
    assert batches == [["a", "b", "c"]]
    assert 0 < chore.every_ns <= 705 * NS_PER_MS  # `c` comes next; who was not told of, later
    watch.close()
    assert chore.run()
