"""What can go wrong with Redis itself, and with the way to it."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count

import pytest
import redis

from locks import HeldKey, LockObserver, LockTimeout, LockUnavailable, hold
from locks.clock import NS_PER_MS
from locks.on_redis.link import Endpoint, LinkBroken
from locks.on_redis.lock import RedisLock
from locks.on_redis.node import Node
from locks.on_redis.scripts import lock_keys
from locks.on_redis.subscription import Subscriptions
from locks.protocol import MAX_FENCE
from tests.integration.locks_support import Process, Proxy, holder
from tests.processes import free_port, wait_until
from tests.services import RedisServer
from tests.strikes import strike

PATIENCE_MS = 30_000


@pytest.fixture
def lock(redis_url: str) -> Iterator[RedisLock]:
    """Straight to the run's Redis."""
    made = RedisLock(redis_url)
    yield made
    made.close()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """A bad network before the run's Redis."""
    made = Proxy(redis_server.port)
    yield made
    made.close()


@pytest.fixture
def far(proxy: Proxy) -> Iterator[RedisLock]:
    """A lock behind the bad network."""
    made = RedisLock(f"redis://127.0.0.1:{proxy.port}/0")
    made.acquire("warm-up", lease_ms=1_000, wait_ms=0).release()
    yield made
    made.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """Behind the library's back."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as made:
        yield made


def test_a_grant_whose_reply_was_lost_is_found_and_not_waited_for(
    far: RedisLock, proxy: Proxy, lock: RedisLock, client: redis.Redis, key: str
) -> None:
    proxy.lose_reply_once(lambda data: b"EVAL" in data)
    with hold(far, key, lease_ms=10_000, wait_ms=0) as lease:
        assert proxy.lost == 1
        assert client.get(lock_keys(key)[1]) == str(lease.fence)  # minted once, not twice
        lease.ensure_held(need_ms=5_000)
    with hold(lock, key, lease_ms=10_000, wait_ms=0) as after:
        assert after.fence > lease.fence


def test_a_release_whose_reply_was_lost_is_no_error(
    far: RedisLock, proxy: Proxy, lock: RedisLock, key: str
) -> None:
    lease = far.acquire(key, lease_ms=10_000, wait_ms=0)
    proxy.lose_reply_once(lambda data: b"EVAL" in data)
    lease.release()
    assert proxy.lost == 1
    lock.acquire(key, lease_ms=1_000, wait_ms=0).release()


def test_a_place_in_the_queue_whose_reply_was_lost_is_taken_once(
    far: RedisLock, proxy: Proxy, lock: RedisLock, client: redis.Redis, key: str
) -> None:
    first = lock.acquire(key, lease_ms=20_000, wait_ms=0)
    fences: list[int] = []

    def wait() -> None:
        with hold(far, key, lease_ms=10_000, wait_ms=PATIENCE_MS) as lease:
            fences.append(lease.fence)

    # The second request is the one that queues: the first finds no subscription.
    requests: list[bytes] = []

    def is_second(data: bytes) -> bool:
        if b"EVAL" in data:
            requests.append(data)
        return len(requests) == 2

    proxy.lose_reply_once(is_second)
    waiter = threading.Thread(target=wait)
    waiter.start()
    while proxy.lost == 0:
        time.sleep(0.01)
    for _ in range(20):
        assert client.llen(lock_keys(key)[2]) <= 1
        time.sleep(0.02)
    first.release()
    waiter.join()
    assert fences
    assert fences[0] > first.fence


def test_a_request_that_times_out_leaves_neither_an_owner_nor_a_waiter(
    far: RedisLock, proxy: Proxy, client: redis.Redis, key: str
) -> None:
    proxy.freeze()
    with pytest.raises(LockUnavailable):
        far.acquire(key, lease_ms=60_000, wait_ms=0)
    proxy.thaw()  # only now the server sees the request, and grants it to nobody's use
    owner = lock_keys(key)[0]
    deadline = time.monotonic() + PATIENCE_MS / 1_000
    seen = 0
    while time.monotonic() < deadline and seen < 20:
        seen = 0 if client.exists(owner) else seen + 1
        time.sleep(0.05)
    assert seen == 20


def test_a_waiter_whose_subscription_breaks_is_served_all_the_same(
    far: RedisLock, proxy: Proxy, lock: RedisLock, key: str
) -> None:
    first = lock.acquire(key, lease_ms=20_000, wait_ms=0)
    fences: list[int] = []

    def wait() -> None:
        with hold(far, key, lease_ms=10_000, wait_ms=PATIENCE_MS) as lease:
            fences.append(lease.fence)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.3)
    proxy.cut()
    time.sleep(0.3)
    first.release()
    waiter.join()
    assert fences
    assert fences[0] > first.fence


def test_a_handler_may_close_the_connections_whose_use_it_has_interrupted(redis_url: str) -> None:
    def close_at_every_step() -> None:
        for step in count(1):
            node = Node(Endpoint.of_url(redis_url))
            home = node.subscriptions

            def use(node: Node = node, home: Subscriptions = home) -> None:
                node.ping()
                with suppress(LinkBroken):
                    home.put_back(home.idle() or home.fresh())

            if not strike(step, use, "on_redis", node.close):
                node.close()
                done.append(step)
                break
            if node._idle or home._idle:
                left.append(step)

    done: list[int] = []
    left: list[int] = []
    thread = threading.Thread(target=close_at_every_step, daemon=True)
    thread.start()
    thread.join(PATIENCE_MS / 1_000)
    assert done, "it waits for itself"
    assert left == []
    assert done[0] > 10


def test_waiters_are_served_in_the_order_of_their_coming(lock: RedisLock, key: str) -> None:
    first = lock.acquire(key, lease_ms=20_000, wait_ms=0)
    served: list[int] = []

    def wait(number: int) -> None:
        with hold(lock, key, lease_ms=10_000, wait_ms=PATIENCE_MS):
            served.append(number)

    waiters = [threading.Thread(target=wait, args=(number,)) for number in range(6)]
    for waiter in waiters:
        waiter.start()
        time.sleep(0.1)
    first.release()
    for waiter in waiters:
        waiter.join()
    assert served == list(range(6))


def test_a_waiter_that_died_is_passed_over_in_the_very_release(
    lock: RedisLock, client: redis.Redis, redis_url: str, key: str
) -> None:
    first = lock.acquire(key, lease_ms=20_000, wait_ms=0)
    before = set(client.pubsub_channels("lease-granted:*"))
    with holder(redis_url, key, lease_ms=20_000, wait_ms=PATIENCE_MS) as process:
        assert process.listen() == "started"
        while client.llen(lock_keys(key)[2]) == 0:
            time.sleep(0.01)
        assert set(client.pubsub_channels("lease-granted:*")) > before
        process.kill()
        while set(client.pubsub_channels("lease-granted:*")) > before:
            time.sleep(0.01)
        first.release()
        lock.acquire(key, lease_ms=1_000, wait_ms=0).release()


def test_the_fence_rises_though_the_server_s_clock_steps_back_and_loses_no_digit(
    lock: RedisLock, client: redis.Redis, key: str
) -> None:
    ahead = 4_503_599_627_370_497  # far in the future, in microseconds; odd, and above 2^52
    client.set(lock_keys(key)[1], ahead)
    fences = []
    for _ in range(3):
        with hold(lock, key, lease_ms=5_000, wait_ms=0) as lease:
            fences.append(lease.fence)
    assert fences == [ahead + 1, ahead + 2, ahead + 3]


def test_two_fences_above_one_floor_differ_though_everything_was_wiped_between(
    lock: RedisLock, client: redis.Redis, key: str
) -> None:
    floor = 4_503_599_627_370_497  # as after the server's clock was set back
    fences = []
    for _ in range(5):
        with hold(lock, key, lease_ms=5_000, wait_ms=0, fence_floor=floor) as lease:
            fences.append(lease.fence)
        client.delete(*lock_keys(key))
    assert min(fences) > floor
    assert len(set(fences)) == 5


def test_a_floor_up_to_the_highest_fence_is_kept_to(lock: RedisLock, key: str) -> None:
    with hold(lock, key, lease_ms=5_000, wait_ms=0, fence_floor=MAX_FENCE - 1) as lease:
        assert lease.fence == MAX_FENCE


def test_a_dead_holder_s_lease_is_not_prolonged_by_a_server_s_clock_that_steps_back(
    lock: RedisLock, redis_url: str, client: redis.Redis, key: str
) -> None:
    with holder(redis_url, key, lease_ms=1_500) as process:
        assert process.listen() == "started"
        assert process.listen().startswith("held ")
        process.kill()
        # A time to live is stored as wall time: an hour back makes it an hour more.
        assert client.pexpire(lock_keys(key)[0], 3_600_000)
        with hold(lock, key, lease_ms=1_500, wait_ms=PATIENCE_MS):
            pass


def test_a_waiter_that_is_handed_the_key_gets_a_fence_above_its_own_floor(
    lock: RedisLock, key: str
) -> None:
    first = lock.acquire(key, lease_ms=20_000, wait_ms=0)
    floor = first.fence + 5_000_000_000
    got: list[int] = []

    def wait() -> None:
        with hold(lock, key, lease_ms=5_000, wait_ms=PATIENCE_MS, fence_floor=floor) as lease:
            got.append(lease.fence)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.2)
    first.release()
    waiter.join()
    assert got[0] > floor


def test_flushed_scripts_are_sent_again(lock: RedisLock, client: redis.Redis, key: str) -> None:
    for _ in range(2):
        client.script_flush()
        with hold(lock, key, lease_ms=600, wait_ms=0) as lease:
            client.script_flush()
            time.sleep(1.2)  # renewed meanwhile
            lease.ensure_held()
            client.script_flush()


def test_the_keys_of_one_lock_share_a_cluster_slot() -> None:
    assert lock_keys("order-1") == [
        "lease:{order-1}:owner",
        "lease:{order-1}:fence",
        "lease:{order-1}:queue",
        "lease:{order-1}:waiters",
    ]


def test_all_that_is_stored_ends_by_itself(lock: RedisLock, client: redis.Redis, key: str) -> None:
    with hold(lock, key, lease_ms=20_000, wait_ms=0):
        waiter = threading.Thread(target=lambda: _wait_in_vain(lock, key))
        waiter.start()
        time.sleep(0.2)
        lives = {name: client.pttl(name) for name in lock_keys(key)}
        waiter.join()
    assert all(life > 0 for life in lives.values()), lives


def _wait_in_vain(lock: RedisLock, key: str) -> None:
    with pytest.raises(LockTimeout):
        lock.acquire(key, lease_ms=1_000, wait_ms=700)


def test_a_server_that_comes_back_empty_is_found_again_and_fences_go_on_rising(key: str) -> None:
    with RedisServer() as server:
        lock = RedisLock(server.url)
        try:
            lease = lock.acquire(key, lease_ms=1_500, wait_ms=0)
            waiting: list[int] = []

            def wait() -> None:
                # The wait itself ends with the server; a new one finds it again.
                while not waiting:
                    try:
                        with hold(lock, key, lease_ms=1_500, wait_ms=PATIENCE_MS) as later:
                            waiting.append(later.fence)
                    except LockUnavailable:
                        time.sleep(0.05)

            waiter = threading.Thread(target=wait)
            waiter.start()
            server.process.kill9()
            with pytest.raises(LockUnavailable):
                lock.ping()
            server.start()
            waiter.join()
            assert waiting[0] > lease.fence
            assert lease.lost.wait(PATIENCE_MS / 1_000)
        finally:
            lock.close()


def test_a_server_that_refuses_is_unavailable_and_says_why(key: str) -> None:
    with RedisServer() as server:
        with redis.Redis.from_url(server.url) as client:
            client.replicaof("127.0.0.1", free_port())  # as after a failover, seen too late
        lock = RedisLock(server.url)
        with pytest.raises(LockUnavailable, match=r"refused.*read only replica"):
            lock.acquire(key, lease_ms=1_000, wait_ms=0)
        lock.close()


def test_a_password_is_asked_for_and_used(key: str) -> None:
    with RedisServer() as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", "wo:rd")
        stranger = RedisLock(server.url)
        with pytest.raises(LockUnavailable, match="Authentication"):
            stranger.ping()
        stranger.close()
        lock = RedisLock(f"redis://:wo%3Ard@127.0.0.1:{server.port}/0")
        lock.acquire(key, lease_ms=1_000, wait_ms=0).release()
        lock.close()


def test_what_is_held_is_listed_with_its_waiters_in_order(
    lock: RedisLock, redis_url: str, key: str
) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(holder(redis_url, key, lease_ms=20_000))
        assert first.listen() == "started"
        fence = int(first.listen().removeprefix("held "))
        second = stack.enter_context(holder(redis_url, key, lease_ms=20_000, wait_ms=PATIENCE_MS))
        assert second.listen() == "started"
        wait_until(lambda: len(_shown(lock, key).waiters) == 1, "the second queues up")
        with pytest.raises(LockTimeout):
            lock.acquire(key, lease_ms=1_000, wait_ms=300)  # comes third, and leaves
        held = _shown(lock, key)
        assert (held.fence, held.waiters) == (fence, (_shown_as(second),))
        assert held.holder == _shown_as(first)
        assert held.remaining_ms is not None
        assert 0 < held.remaining_ms <= 20_000
    assert lock.held(limit=0) == []


def test_no_more_is_listed_than_was_asked_for(lock: RedisLock, key: str) -> None:
    with ExitStack() as stack:
        for number in range(120):
            stack.enter_context(hold(lock, f"{key}-{number}", lease_ms=20_000, wait_ms=0))
        assert len([each for each in lock.held() if each.key.startswith(f"{key}-")]) == 120
        assert len(lock.held(limit=7)) == 7


def test_a_broken_lease_is_the_next_waiter_s_and_the_ousted_holder_learns_of_it(
    lock: RedisLock, key: str
) -> None:
    ousted = lock.acquire(key, lease_ms=3_000, wait_ms=0)
    served: list[int] = []

    def wait() -> None:
        with hold(lock, key, lease_ms=10_000, wait_ms=PATIENCE_MS) as lease:
            served.append(lease.fence)

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(lambda: len(_shown(lock, key).waiters) == 1, "the waiter queues up")
    broken = lock.break_lease(key)
    assert broken is not None
    assert (broken.fence, len(broken.waiters)) == (ousted.fence, 1)
    waiter.join()
    assert served[0] > ousted.fence
    assert ousted.lost.wait(PATIENCE_MS / 1_000)
    ousted.release()
    assert lock.break_lease(key) is None


def test_the_queue_and_the_hand_over_are_told(redis_url: str, key: str) -> None:
    told: list[tuple[str, int]] = []

    class Telling(LockObserver):
        def granted(self, backend: str, wait_ns: int, ahead: int) -> None:
            told.append(("ahead", ahead))

        def handed_over(self, backend: str, took_ns: int) -> None:
            told.append(("handed over", took_ns))

    lock = RedisLock(redis_url, Telling())
    try:
        first = lock.acquire(key, lease_ms=20_000, wait_ms=0)
        waiters = []
        for number in (1, 2):
            waiters.append(
                threading.Thread(
                    target=lambda: lock.acquire(key, lease_ms=20_000, wait_ms=PATIENCE_MS).release()
                )
            )
            waiters[-1].start()
            wait_until(partial(_has_waiters, lock, key, number), "the waiter queues up")
        first.release()
        for waiter in waiters:
            waiter.join()
    finally:
        lock.close()
    assert [ahead for what, ahead in told if what == "ahead"] == [0, 1, 2]
    took = [ns for what, ns in told if what == "handed over"]
    assert len(took) == 2
    # Dated by halving a round trip: 0 where that says that it was told before it was sent.
    assert all(0 <= ns < PATIENCE_MS * NS_PER_MS for ns in took), took


def _shown(lock: RedisLock, key: str) -> HeldKey:
    """The one key as it is listed."""
    [held] = [each for each in lock.held() if each.key == key]
    return held


def _has_waiters(lock: RedisLock, key: str, count: int) -> bool:
    return len(_shown(lock, key).waiters) == count


def _shown_as(process: Process) -> str:
    return f"{re.sub('[^0-9A-Za-z-]', '-', socket.gethostname())[:48]} {process.pid}"


@pytest.mark.parametrize("damaged", ["1e17", "inf", "nan", "-inf", "0x7fffffffffffffff", "abc"])
def test_after_a_damaged_fence_the_clock_goes_on(
    lock: RedisLock, client: redis.Redis, key: str, damaged: str
) -> None:
    client.set(lock_keys(key)[1], damaged)
    with hold(lock, key, lease_ms=1_000, wait_ms=0) as lease:
        assert abs(lease.fence - time.time_ns() // 1_000) < 3_600_000_000


def test_above_the_last_fence_none_is_minted(
    lock: RedisLock, client: redis.Redis, key: str
) -> None:
    client.set(lock_keys(key)[1], MAX_FENCE - 1)
    with hold(lock, key, lease_ms=1_000, wait_ms=0) as lease:
        assert lease.fence == MAX_FENCE
    with pytest.raises(LockUnavailable, match="used up"):
        lock.acquire(key, lease_ms=1_000, wait_ms=0)


def test_one_damaged_key_costs_no_other_lease_its_renewal_nor_the_list_its_rest(
    lock: RedisLock, client: redis.Redis, key: str
) -> None:
    damaged = lock.acquire(f"{key}-damaged", lease_ms=1_000, wait_ms=0)
    with hold(lock, key, lease_ms=1_000, wait_ms=0) as lease:
        owner = lock_keys(damaged.key)[0]
        client.delete(owner)
        client.rpush(owner, "no lease of ours")
        wait_until(damaged.lost.is_set, "the damaged lease is lost")
        time.sleep(1.0)  # the other was renewed since, or is lost as well
        lease.ensure_held()
        assert key in [held.key for held in lock.held()]
    client.delete(owner)


def test_a_damaged_fence_is_minted_anew_by_the_clock(
    lock: RedisLock, client: redis.Redis, key: str
) -> None:
    before = lock.acquire(key, lease_ms=1_000, wait_ms=0)
    before.release()
    client.set(lock_keys(key)[1], "garbage")
    with hold(lock, key, lease_ms=1_000, wait_ms=0) as lease:
        assert lease.fence > before.fence
