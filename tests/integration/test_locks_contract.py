"""What every lock service promises (locks/protocol.py), on real servers, for all three."""

import gc
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count, pairwise
from pathlib import Path

import pytest
import redis
from kazoo.client import KazooClient

import locks
from locks import (
    HeldKey,
    Lease,
    LeaseLock,
    LeaseLost,
    LockObserver,
    LockTimeout,
    LockUnavailable,
    from_url,
    hold,
)
from locks.base import BaseLock
from locks.held import HeldLease
from tests.integration.locks_support import Collision, Process, Proxy, holder, storm
from tests.processes import free_port, wait_until
from tests.strikes import strike

LOCKS = str(Path(locks.__file__).parent)
BACKENDS = ["file", "redis", "zookeeper"]
# So that a dead holder's session ends soon; leases here are shorter still.
SESSION = "session_ms=2000"
# Ends a wait that should end by itself, so that a defect shows as a failure and not as a hang.
PATIENCE_MS = 30_000


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A lock service of each kind."""
    if request.param == "file":
        return f"file://{tmp_path}/locks"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found + (f"?{SESSION}" if request.param == "zookeeper" else "")


@pytest.fixture
def lock(url: str) -> Iterator[LeaseLock]:
    """One process's lock object."""
    made = from_url(url)
    yield made
    made.close()


@pytest.fixture
def other(url: str) -> Iterator[LeaseLock]:
    """A second object on the same service, as another process would have."""
    made = from_url(url)
    yield made
    made.close()


def _is_free(lock: LeaseLock, key: str) -> bool:
    try:
        lock.acquire(key, lease_ms=1_000, wait_ms=0).release()
    except LockTimeout:
        return False
    return True


def _traces(url: str, key: str) -> list[str]:
    """What the service still stores of a key, but for the fence of the last holding."""
    place = url.partition("?")[0].partition("://")[2]
    if url.startswith("file"):
        return [name for name in os.listdir(f"{place}/held") if name == key]
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            names = [str(name, "ascii") for name in client.keys(f"*{{{key}}}*")]
        return [name for name in names if not name.endswith(":fence")]
    client = KazooClient(place)
    assert client.start_async().wait(PATIENCE_MS / 1_000)
    try:
        return [
            node
            for shard in client.get_children("/leases")
            for node in client.get_children(f"/leases/{shard}")
            if node.startswith(f"{key}~")
        ]
    finally:
        client.stop()
        client.close()


def _wipe(url: str, key: str) -> None:
    """Take the key away from its holder behind the library's back."""
    place = url.partition("?")[0].partition("://")[2]
    if url.startswith("file"):
        Path(f"{place}/held/{key}").unlink()
    elif url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            client.delete(*client.keys(f"*{{{key}}}*"))
    else:
        client = KazooClient(place)
        assert client.start_async().wait(PATIENCE_MS / 1_000)
        for shard in client.get_children("/leases"):
            for node in client.get_children(f"/leases/{shard}"):
                if node.startswith(f"{key}~"):
                    client.delete(f"/leases/{shard}/{node}")
        client.stop()
        client.close()


# Exclusion and fences


class _AlwaysYes:
    """No lock at all."""

    backend = "none"

    def acquire(self, key: str, *, lease_ms: int, wait_ms: int, fence_floor: int = 0) -> Lease:
        return _YesLease()

    def realm(self) -> str:
        return "none"

    def held(self, limit: int = 1_000) -> list[HeldKey]:
        return []

    def break_lease(self, key: str) -> HeldKey | None:
        return None

    def ping(self) -> None:
        return

    def close(self) -> None:
        return


class _YesLease:
    key = "any"
    fence = 1
    lost = threading.Event()

    def remaining_ms(self) -> int:
        return 1

    def ensure_held(self, need_ms: int = 0) -> None:
        return

    def release(self) -> None:
        return


def test_without_a_lock_the_storm_collides(tmp_path: Path) -> None:
    with pytest.raises(Collision):
        storm(_AlwaysYes(), "key", tmp_path, 8, 20)


def test_one_of_many_threads_and_processes_holds_a_key_and_fences_rise_in_the_order_of_holding(
    url: str, lock: LeaseLock, key: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        others = [
            stack.enter_context(Process("storm", url, key, tmp_path, 4, 10)) for _ in range(3)
        ]
        storm(lock, key, tmp_path, 4, 10)
        assert [each.wait() for each in others] == [0, 0, 0]
    fences = [int(line) for line in (tmp_path / "fences").read_text().split()]
    assert len(fences) == 4 * 4 * 10
    assert all(earlier < later for earlier, later in pairwise(fences))
    assert _traces(url, key) == []


def test_different_keys_do_not_wait_for_each_other(lock: LeaseLock, key: str) -> None:
    with ExitStack() as stack:
        for number in range(40):
            stack.enter_context(hold(lock, f"{key}-{number}", lease_ms=10_000, wait_ms=0))


def test_the_fence_rises_from_one_object_to_another(
    lock: LeaseLock, other: LeaseLock, key: str
) -> None:
    fences = []
    for turn in range(6):
        with hold(lock if turn % 2 else other, key, lease_ms=5_000, wait_ms=0) as lease:
            fences.append(lease.fence)
    assert fences == sorted(set(fences))


def test_a_fence_is_above_the_floor_where_it_can_be_raised(lock: LeaseLock, key: str) -> None:
    with hold(lock, key, lease_ms=5_000, wait_ms=0) as lease:
        first = lease.fence
    floor = first + 5_000_000_000
    fences = []
    for wanted in (floor, 0):
        with hold(lock, key, lease_ms=5_000, wait_ms=0, fence_floor=wanted) as lease:
            fences.append(lease.fence)
    if lock.backend == "zookeeper":
        # A czxid cannot be raised: the floor is ignored, and the resource goes on to refuse.
        assert first < fences[0] < fences[1] < floor
    else:
        assert floor < fences[0] < fences[1]


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "a" * 65, "订单", "a{b}", "a\n", "..", "a~b"])
def test_a_key_with_other_signs_is_refused(lock: LeaseLock, bad: str) -> None:
    with pytest.raises(ValueError, match="A lock's key is"):
        lock.acquire(bad, lease_ms=1_000, wait_ms=0)


@pytest.mark.parametrize(
    ("lease_ms", "wait_ms", "floor", "named"),
    [
        (0, 0, 0, "lease_ms"),
        (3_600_001, 0, 0, "lease_ms"),
        (1_000, -1, 0, "wait_ms"),
        (1_000, 3_600_001, 0, "wait_ms"),
        (1_000, 0, -1, "fence_floor"),
        (1_000, 0, 2**53, "fence_floor"),
    ],
)
def test_times_and_floors_out_of_bounds_are_refused(
    lock: LeaseLock, lease_ms: int, wait_ms: int, floor: int, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        lock.acquire("key", lease_ms=lease_ms, wait_ms=wait_ms, fence_floor=floor)


# Waiting and releasing


@pytest.mark.parametrize("wait_ms", [0, 300])
def test_a_wait_in_vain_ends_and_leaves_nothing_behind(
    url: str, lock: LeaseLock, other: LeaseLock, key: str, wait_ms: int
) -> None:
    with hold(lock, key, lease_ms=10_000, wait_ms=0):
        before = _traces(url, key)
        for _ in range(3):
            with pytest.raises(LockTimeout) as caught:
                other.acquire(key, lease_ms=10_000, wait_ms=wait_ms)
            assert (caught.value.key, caught.value.wait_ms) == (key, wait_ms)
        assert _traces(url, key) == before
    assert _traces(url, key) == []
    assert _is_free(other, key)


def test_a_release_lets_the_waiter_in(lock: LeaseLock, other: LeaseLock, key: str) -> None:
    first = lock.acquire(key, lease_ms=20_000, wait_ms=0)
    got: list[Lease] = []
    waiter = threading.Thread(
        target=lambda: got.append(other.acquire(key, lease_ms=20_000, wait_ms=PATIENCE_MS))
    )
    waiter.start()
    waiter.join(0.3)
    assert got == []
    first.release()
    waiter.join()
    assert got[0].fence > first.fence
    got[0].ensure_held(need_ms=500)
    got[0].release()


def test_a_waiter_that_gives_up_does_not_let_the_one_behind_it_in(
    lock: LeaseLock, other: LeaseLock, key: str
) -> None:
    outcomes: list[str] = []

    def wait(wait_ms: int) -> None:
        try:
            other.acquire(key, lease_ms=5_000, wait_ms=wait_ms)
            outcomes.append("came in")
        except LockTimeout:
            outcomes.append("gave up")

    with hold(lock, key, lease_ms=5_000, wait_ms=0) as lease:
        waiters = [threading.Thread(target=wait, args=(wait_ms,)) for wait_ms in (600, 1_200)]
        for waiter in waiters:
            waiter.start()
            time.sleep(0.2)
        for waiter in waiters:
            waiter.join()
        lease.ensure_held()
    assert outcomes == ["gave up", "gave up"]


def test_a_release_may_be_repeated_and_does_not_disturb_the_next_holder(
    lock: LeaseLock, other: LeaseLock, key: str
) -> None:
    first = lock.acquire(key, lease_ms=10_000, wait_ms=0)
    first.release()
    first.release()
    with hold(other, key, lease_ms=10_000, wait_ms=0):
        first.release()
        assert not _is_free(lock, key)


def test_a_released_lease_is_no_longer_held(lock: LeaseLock, key: str) -> None:
    lease = lock.acquire(key, lease_ms=10_000, wait_ms=0)
    assert 0 < lease.remaining_ms() <= 10_000
    lease.ensure_held()
    lease.release()
    assert lease.remaining_ms() == 0
    assert not lease.lost.is_set()
    with pytest.raises(LeaseLost, match="released"):
        lease.ensure_held()


def test_a_lease_may_be_released_by_another_thread(lock: LeaseLock, key: str) -> None:
    lease = lock.acquire(key, lease_ms=10_000, wait_ms=0)
    thread = threading.Thread(target=lease.release)
    thread.start()
    thread.join()
    assert _is_free(lock, key)


def test_an_error_inside_the_block_releases_the_key(lock: LeaseLock, key: str) -> None:
    with pytest.raises(ZeroDivisionError), hold(lock, key, lease_ms=10_000, wait_ms=0):
        _ = 1 // 0
    assert _is_free(lock, key)


# Renewal and loss


def test_renewal_keeps_many_leases_far_beyond_their_time(
    lock: LeaseLock, other: LeaseLock, key: str
) -> None:
    with ExitStack() as stack:
        leases = [
            stack.enter_context(hold(lock, f"{key}-{number}", lease_ms=900, wait_ms=0))
            for number in range(10)
        ]
        with pytest.raises(LockTimeout):
            other.acquire(f"{key}-3", lease_ms=900, wait_ms=3_000)
        for lease in leases:
            lease.ensure_held(need_ms=100)
            assert not lease.lost.is_set()


def test_more_time_than_is_left_is_not_promised(lock: LeaseLock, key: str) -> None:
    with hold(lock, key, lease_ms=1_000, wait_ms=0) as lease:
        lease.ensure_held(need_ms=100)
        with pytest.raises(LeaseLost, match="are needed"):
            lease.ensure_held(need_ms=1_001)
        assert not lease.lost.is_set()


def test_a_holder_whose_key_is_taken_away_learns_of_it(
    url: str, lock: LeaseLock, other: LeaseLock, key: str
) -> None:
    lease = lock.acquire(key, lease_ms=1_500, wait_ms=0)
    _wipe(url, key)
    with hold(other, key, lease_ms=10_000, wait_ms=0) as next_lease:
        assert lease.lost.wait(PATIENCE_MS / 1_000)
        with pytest.raises(LeaseLost):
            lease.ensure_held()
        lease.release()
        next_lease.ensure_held()
        assert not _is_free(lock, key)


def test_a_holder_killed_with_kill_9_frees_its_key(url: str, lock: LeaseLock, key: str) -> None:
    with holder(url, key, lease_ms=1_500) as process:
        assert process.listen() == "started"
        fence = int(process.listen().removeprefix("held "))
        assert not _is_free(lock, key)
        process.kill()
        with hold(lock, key, lease_ms=5_000, wait_ms=PATIENCE_MS) as lease:
            assert lease.fence > fence


def test_a_holder_frozen_past_its_lease_is_followed_and_knows_it_when_it_wakes(
    url: str, lock: LeaseLock, other: LeaseLock, key: str
) -> None:
    with holder(url, key, lease_ms=1_000) as process:
        assert process.listen() == "started"
        fence = int(process.listen().removeprefix("held "))
        assert process.ask("check") == "held"
        process.freeze()
        with hold(lock, key, lease_ms=10_000, wait_ms=PATIENCE_MS) as lease:
            assert lease.fence > fence
            process.thaw()
            assert process.ask("check") == "lost"
            assert process.ask("release") == "released"
            lease.ensure_held(need_ms=100)
            assert not _is_free(other, key)
        assert _is_free(other, key)


@pytest.mark.parametrize("fate", ["kill", "freeze"])
def test_a_waiter_that_is_killed_or_frozen_does_not_keep_the_key_from_the_next(
    url: str, lock: LeaseLock, key: str, fate: str
) -> None:
    with hold(lock, key, lease_ms=20_000, wait_ms=0) as first:
        process = holder(url, key, lease_ms=20_000, wait_ms=PATIENCE_MS)
        with process:
            assert process.listen() == "started"
            time.sleep(1.0)  # it queues up now; if it should come too late, nothing is tested
            getattr(process, fate)()
            first.release()
            with hold(lock, key, lease_ms=5_000, wait_ms=PATIENCE_MS) as lease:
                assert lease.fence > first.fence


# Forks, ends, failures


def _waiters(lock: LeaseLock, key: str) -> int:
    return sum(len(held.waiters) for held in lock.held() if held.key == key)


def test_who_waits_when_its_lock_is_closed_is_told_and_leaves_nothing_behind(
    url: str, lock: LeaseLock, other: LeaseLock, key: str
) -> None:
    with hold(lock, key, lease_ms=20_000, wait_ms=0):
        before = _traces(url, key)
        told: list[Exception] = []

        def wait() -> None:
            try:
                other.acquire(key, lease_ms=20_000, wait_ms=PATIENCE_MS)
            except LockUnavailable as error:
                told.append(error)

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        wait_until(lambda: _waiters(lock, key) == 1, "it stands in the queue")
        other.close()
        waiting.join(PATIENCE_MS / 1_000)
        assert len(told) == 1
        wait_until(lambda: _traces(url, key) == before, "nothing is left of it")
    assert _is_free(lock, key)


def test_a_lease_that_no_thread_could_renew_is_refused_and_the_next_one_is_renewed(
    lock: LeaseLock, other: LeaseLock, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.ping()  # ZooKeeper's client has its own threads by now
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("lease-renewer"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as crowded:
        crowded.setattr(threading.Thread, "start", refuse)
        with pytest.raises(LockUnavailable, match="thread"):
            lock.acquire(key, lease_ms=20_000, wait_ms=0)
    assert _is_free(other, key)
    with hold(lock, key, lease_ms=1_000, wait_ms=0) as lease:
        time.sleep(2.0)  # renewed since, or lost
        lease.ensure_held()


class Interrupting(LockObserver):
    """A signal's handler that raises after the grant, before the caller has the lease."""

    def granted(self, backend: str, wait_ns: int, ahead: int) -> None:
        """It strikes here."""
        raise KeyboardInterrupt


def test_a_caller_that_is_interrupted_before_it_has_the_lease_leaves_the_key_free(
    url: str, other: LeaseLock, key: str
) -> None:
    interrupted = from_url(url, Interrupting())
    with pytest.raises(KeyboardInterrupt):
        interrupted.acquire(key, lease_ms=60_000, wait_ms=0)
    other.acquire(key, lease_ms=1_000, wait_ms=0).release()
    interrupted.close()


def _queues(lock: LeaseLock, stem: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(each.key, each.waiters) for each in lock.held() if each.key.startswith(stem)]


# Python drops what strikes as a generator is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_of_a_signal_wherever_it_strikes_leaves_no_key_held_and_none_waiting(
    url: str, lock: LeaseLock, other: LeaseLock, key: str
) -> None:
    keys = (f"{key}-{number}" for number in count())

    def cycle() -> None:
        with hold(lock, next(keys), lease_ms=60_000, wait_ms=0):
            pass

    def wait_in_vain() -> None:
        with suppress(LockTimeout):
            lock.acquire(f"{key}-taken", lease_ms=60_000, wait_ms=1)

    cycle()  # connections and threads are there
    with hold(other, f"{key}-taken", lease_ms=60_000, wait_ms=0) as taken:
        for work in (cycle, wait_in_vain):
            for step in count(1):
                if not strike(step, work, LOCKS):
                    break
            assert step > 50
        gc.collect()
        # The renewer, which this wakes early, gives back what could not be given back at once.
        with hold(lock, key, lease_ms=200, wait_ms=0):
            pass
        left = [(taken.key, ())]
        wait_until(lambda: _queues(other, key) == left, "only the other's lease is left")


@pytest.mark.parametrize("renewals", [0, 1])
def test_a_lease_that_its_holder_forgot_is_given_back(
    lock: LeaseLock, other: LeaseLock, key: str, renewals: int
) -> None:
    lease = lock.acquire(key, lease_ms=3_000, wait_ms=0)
    assert isinstance(lock, BaseLock)
    assert isinstance(lease, HeldLease)
    for _ in range(renewals):
        lock._renew([lease])
    del lease
    # An exception that was met on the way to it may still refer to the frame that made it.
    gc.collect()
    other.acquire(key, lease_ms=1_000, wait_ms=PATIENCE_MS).release()


def _in_child(lock: LeaseLock, lease: Lease, key: str) -> str:
    """What a forked child finds."""
    try:
        lease.ensure_held()
        return "the child believes in its parent's lease"
    except LeaseLost:
        lease.release()
    if not lease.lost.is_set() or lease.remaining_ms():
        return "the parent's lease does not look lost in the child"
    if _is_free(lock, key):
        return "the child got, or released, what its parent holds"
    with hold(lock, f"{key}-child", lease_ms=600, wait_ms=0) as own:
        time.sleep(1.2)  # twice the lease: the child has a renewer of its own
        own.ensure_held(need_ms=1)
    lock.close()
    return "good"


def test_a_forked_child_uses_the_same_object_on_connections_of_its_own(
    lock: LeaseLock, key: str
) -> None:
    with hold(lock, key, lease_ms=3_000, wait_ms=0) as lease:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            verdict = "the child failed"
            try:
                verdict = _in_child(lock, lease, key)
            except BaseException as error:
                verdict = f"{type(error).__name__}: {error}"
                raise
            finally:
                os.write(writing, verdict.encode())
                os._exit(0)
        os.close(writing)
        ready, _, _ = select.select([reading], [], [], PATIENCE_MS / 1_000)
        if not ready:
            os.kill(pid, 9)
        verdict = os.read(reading, 1_000).decode()
        os.waitpid(pid, 0)
        os.close(reading)
        assert verdict == "good"
        lease.ensure_held(need_ms=100)
    assert _is_free(lock, key)


def test_a_process_that_ends_gives_back_what_it_holds(url: str, lock: LeaseLock, key: str) -> None:
    with holder(url, key, lease_ms=600_000) as process:
        assert process.listen() == "started"
        assert process.listen().startswith("held ")
        assert process.end() == 0
        assert _is_free(lock, key)


def test_closing_releases_ends_all_threads_and_is_final(url: str, other: LeaseLock) -> None:
    assert _is_free(other, "warm-up")  # the other object's threads are there before and after
    before = set(threading.enumerate())
    lock = from_url(url)
    lock.acquire("closing-1", lease_ms=20_000, wait_ms=0)
    lease = lock.acquire("closing-2", lease_ms=20_000, wait_ms=0)
    assert set(threading.enumerate()) > before
    lock.close()
    lock.close()
    assert set(threading.enumerate()) <= before
    assert _is_free(other, "closing-1")
    assert _is_free(other, "closing-2")
    with pytest.raises(LeaseLost):
        lease.ensure_held()
    with pytest.raises(LockUnavailable, match="closed"):
        lock.acquire("closing-1", lease_ms=1_000, wait_ms=0)


def test_a_close_that_a_signal_interrupted_can_be_made_good(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/locks"
    other = from_url(url)
    for step in count(1):
        lock = from_url(url)
        kept = lock.acquire("key", lease_ms=60_000, wait_ms=0)
        was_struck = strike(step, lock.close, LOCKS)
        lock.close()
        assert _is_free(other, kept.key), step
        if not was_struck:
            break
    other.close()
    assert step > 20
    assert [each for each in threading.enumerate() if each.name == "lease-renewer-file"] == []


def test_an_error_of_this_family_that_a_handler_raises_leaves_no_key_held(tmp_path: Path) -> None:
    def give_up() -> None:
        raise LeaseLost("another key's, which the handler looked after")

    lock = from_url(f"file://{tmp_path}/locks")
    keys = (f"key-{number}" for number in count())

    def take() -> None:
        with suppress(LeaseLost), hold(lock, next(keys), lease_ms=600_000, wait_ms=0):
            pass

    take()
    for step in count(1):
        was_struck = strike(step, take, LOCKS, give_up)
        if not was_struck:
            break
    assert step > 20
    gc.collect()
    # The renewer, which this wakes early, gives back what could not be given back at once.
    with hold(lock, "key", lease_ms=200, wait_ms=0):
        pass
    wait_until(lambda: lock.held() == [], "nothing is held")
    lock.close()


def test_nothing_connects_before_it_is_needed() -> None:
    for url in ("redis://no-such-host.invalid:1/0", "zookeeper://no-such-host.invalid:1"):
        before = set(threading.enumerate())
        lock = from_url(url)
        assert set(threading.enumerate()) == before
        lock.close()


def test_ping_answers_when_the_service_does(lock: LeaseLock) -> None:
    lock.ping()


@pytest.fixture(params=["file", "redis-refused", "zookeeper-refused", "redis-mute", "zoo-mute"])
def dead_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Services that refuse connections, or take them and never say a word."""
    name, _, how = request.param.partition("-")
    if name == "file":
        (tmp_path / "in-the-way").write_text("a file, not a folder")
        yield f"file://{tmp_path}/in-the-way/locks"
        return
    scheme = "redis" if name == "redis" else "zookeeper"
    if how == "refused":
        yield f"{scheme}://127.0.0.1:{free_port()}"
        return
    with socket.create_server(("127.0.0.1", 0)) as mute:
        yield f"{scheme}://127.0.0.1:{mute.getsockname()[1]}"


@pytest.mark.timeout(60)
def test_a_service_that_cannot_be_reached_is_reported_however_long_one_would_wait(
    dead_url: str,
) -> None:
    lock = from_url(dead_url)
    try:
        with pytest.raises(LockUnavailable):
            lock.ping()
        with pytest.raises(LockUnavailable):
            lock.acquire("key", lease_ms=1_000, wait_ms=3_000_000)
    finally:
        lock.close()


@pytest.mark.parametrize("backend", ["redis", "zookeeper"])
@pytest.mark.timeout(60)
def test_a_service_that_falls_silent_ends_every_wait_and_every_lease_and_then_serves_again(
    backend: str, request: pytest.FixtureRequest, key: str
) -> None:
    url: str = request.getfixturevalue(f"{backend}_url")
    port = int(url.split(":")[2].split("/")[0])
    proxy = Proxy(port)
    behind = url.replace(f":{port}", f":{proxy.port}") + (
        f"?{SESSION}" if backend == "zookeeper" else ""
    )
    lock = from_url(behind)
    try:
        lease = lock.acquire(key, lease_ms=1_500, wait_ms=0)
        proxy.freeze()
        with pytest.raises(LockUnavailable):
            lock.acquire(f"{key}-2", lease_ms=1_500, wait_ms=3_000_000)
        assert lease.lost.wait(PATIENCE_MS / 1_000)
        with pytest.raises(LeaseLost):
            lease.ensure_held()
        lease.release()
        proxy.thaw()
        _until_served(lock, key)
        _until_served(lock, f"{key}-2")
    finally:
        lock.close()
        proxy.close()


def _until_served(lock: LeaseLock, key: str) -> None:
    for _ in range(PATIENCE_MS // 100):
        try:
            lock.acquire(key, lease_ms=1_500, wait_ms=1_000).release()
            return
        except (LockUnavailable, LockTimeout):
            time.sleep(0.1)
    pytest.fail("The service is back, but serves no more.")
