"""The hook of the lock library: what happens is told, once each, and an observer hurts no lease."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from locks import LeaseLock, LockObserver, LockTimeout, LockUnavailable, from_url, hold
from tests.integration.locks_support import storm
from tests.processes import ManagedProcess, free_port, wait_until
from tests.services import RedisServer

ROOT = Path(__file__).resolve().parents[2]

BACKENDS = ["file", "redis", "zookeeper"]
# Renewed every 0.8 s; on a busy machine a renewal may take twice as long.
LEASE_MS = 2_400
# To be lost soon. With ZooKeeper it is the session that must end.
SHORT_LEASE_MS, SHORT_SESSION = 800, "?session_ms=2000"
LONG_LEASE_MS = 60_000
# Ends a wait that should end by itself.
PATIENCE_MS = 30_000


class Recording(LockObserver):
    """Keeps everything that it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, tuple[int, ...]]] = []

    def _note(self, event: str, backend: str, *numbers: int) -> None:
        self.told.append((event, backend, numbers))

    def granted(self, backend: str, wait_ns: int, ahead: int) -> None:
        self._note("granted", backend, wait_ns, ahead)

    def handed_over(self, backend: str, took_ns: int) -> None:
        self._note("handed_over", backend, took_ns)

    def timed_out(self, backend: str, wait_ns: int) -> None:
        self._note("timed_out", backend, wait_ns)

    def unavailable(self, backend: str, wait_ns: int) -> None:
        self._note("unavailable", backend, wait_ns)

    def released(self, backend: str, held_ns: int) -> None:
        self._note("released", backend, held_ns)

    def renewed(self, backend: str, leases: int) -> None:
        self._note("renewed", backend, leases)

    def renewal_failed(self, backend: str, leases: int) -> None:
        self._note("renewal_failed", backend, leases)

    def lost(self, backend: str) -> None:
        self._note("lost", backend)

    def count(self, event: str) -> int:
        """How often this was told."""
        return sum(1 for told, _, _ in self.told if told == event)

    def events(self, *but: str) -> list[str]:
        """What was told, in order; hand-overs are told only where the service can tell."""
        return [event for event, _, _ in self.told if event not in {"handed_over", *but}]

    def numbers(self, event: str) -> list[tuple[int, ...]]:
        """What came with each of these."""
        return [numbers for told, _, numbers in self.told if told == event]


# A process that holds a key until its time is over, gives it back, and says what was told.
HEAD = """
import sys, time
from locks import from_url
from tests.unit.test_locks_observe import Recording

url, key, lease_ms = sys.argv[1:]
seen = Recording()
lock = from_url(url, seen)
lease = lock.acquire(key, lease_ms=int(lease_ms), wait_ms=0)
print("held", flush=True)
"""
FROZEN = """
while not lease.lost.is_set():
    time.sleep(0.001)
time.sleep(0.3)
"""
# No other thread of the process runs meanwhile, as in a long call that keeps the interpreter.
STARVING = """
sys.setswitchinterval(1_000)
while not lease.lost.is_set():
    pass
sys.setswitchinterval(0.005)
"""
TAIL = """
lease.release()
lock.close()
print(*seen.events())
"""


class Failing(LockObserver):
    """Raises at everything, and remembers at what."""

    def __init__(self) -> None:
        self.called: set[str] = set()

    def _fail(self, event: str) -> None:
        self.called.add(event)
        raise RuntimeError(f"the observer's own fault at {event}")

    def granted(self, backend: str, wait_ns: int, ahead: int) -> None:
        self._fail("granted")

    def timed_out(self, backend: str, wait_ns: int) -> None:
        self._fail("timed_out")

    def released(self, backend: str, held_ns: int) -> None:
        self._fail("released")

    def renewed(self, backend: str, leases: int) -> None:
        self._fail("renewed")

    def lost(self, backend: str) -> None:
        self._fail("lost")


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A lock service of each kind."""
    if request.param == "file":
        return f"file://{tmp_path}/locks"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def seen() -> Recording:
    return Recording()


@pytest.fixture
def lock(url: str, seen: Recording) -> Iterator[LeaseLock]:
    """A lock whose observer is `seen`."""
    made = from_url(url, seen)
    yield made
    made.close()


@pytest.fixture
def other(url: str) -> Iterator[LeaseLock]:
    """A second object on the same service, with nobody listening."""
    made = from_url(url)
    yield made
    made.close()


def test_a_grant_and_a_release_are_told_once_each_with_their_times(
    lock: LeaseLock, seen: Recording, key: str
) -> None:
    with hold(lock, key, lease_ms=LONG_LEASE_MS, wait_ms=PATIENCE_MS):
        assert seen.events() == ["granted"]
    assert seen.events() == ["granted", "released"]
    assert {backend for _, backend, _ in seen.told} == {lock.backend}
    [(wait_ns, ahead)] = seen.numbers("granted")
    [(held_ns,)] = seen.numbers("released")
    assert wait_ns > 0
    assert held_ns > 0
    assert ahead == 0


def test_a_second_release_of_a_lease_is_not_told(
    lock: LeaseLock, seen: Recording, key: str
) -> None:
    lease = lock.acquire(key, lease_ms=LONG_LEASE_MS, wait_ms=0)
    lease.release()
    lease.release()
    assert seen.events() == ["granted", "released"]


def test_a_wait_in_vain_is_told_as_timed_out_with_its_length(
    lock: LeaseLock, other: LeaseLock, seen: Recording, key: str
) -> None:
    with hold(other, key, lease_ms=LONG_LEASE_MS, wait_ms=PATIENCE_MS):
        for wait_ms in (0, 50):
            with pytest.raises(LockTimeout):
                lock.acquire(key, lease_ms=LONG_LEASE_MS, wait_ms=wait_ms)
    assert seen.events() == ["timed_out", "timed_out"]
    assert seen.numbers("timed_out")[1][0] >= 50_000_000


def test_a_grant_after_waiting_tells_who_was_ahead_and_how_long_it_took(
    lock: LeaseLock, other: LeaseLock, seen: Recording, key: str
) -> None:
    held = other.acquire(key, lease_ms=LONG_LEASE_MS, wait_ms=0)
    timer = threading.Timer(0.1, held.release)
    timer.start()
    lock.acquire(key, lease_ms=LONG_LEASE_MS, wait_ms=PATIENCE_MS).release()
    timer.join()
    assert seen.events() == ["granted", "released"]
    [(wait_ns, ahead)] = seen.numbers("granted")
    assert wait_ns >= 50_000_000
    assert ahead == 1
    handed_over = seen.numbers("handed_over")
    assert len(handed_over) <= 1
    assert all(0 <= took_ns <= wait_ns for (took_ns,) in handed_over)


def test_of_many_holders_at_once_each_is_told_once(
    lock: LeaseLock, seen: Recording, key: str, tmp_path: Path
) -> None:
    storm(lock, key, tmp_path, threads=8, rounds=10)
    assert (seen.count("granted"), seen.count("released")) == (80, 80)
    assert set(seen.events("renewed")) == {"granted", "released"}
    # Redis and the file tell when they handed over, by one clock; ZooKeeper cannot.
    handed_over = seen.count("handed_over")
    assert handed_over == 0 if lock.backend == "zookeeper" else 0 < handed_over < 80
    longest_ns = max(wait_ns for wait_ns, _ in seen.numbers("granted"))
    assert longest_ns > min(held_ns for (held_ns,) in seen.numbers("released"))


def test_a_bad_argument_is_told_as_nothing(lock: LeaseLock, seen: Recording) -> None:
    with pytest.raises(ValueError, match="key"):
        lock.acquire("no key", lease_ms=LONG_LEASE_MS, wait_ms=0)
    assert seen.told == []


@pytest.mark.parametrize("scheme", ["redis", "zookeeper", "file"])
def test_a_service_that_is_away_is_told_as_unavailable(
    scheme: str, seen: Recording, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    where = {
        "redis": f"redis://127.0.0.1:{free_port()}/0",
        "zookeeper": f"zookeeper://127.0.0.1:{free_port()}/nothing",
        "file": f"file://{tmp_path}/file/locks",
    }[scheme]
    lock = from_url(where, seen)
    with pytest.raises(LockUnavailable):
        lock.acquire("away", lease_ms=LONG_LEASE_MS, wait_ms=0)
    assert seen.events() == ["unavailable"]
    lock.close()


def test_each_renewal_is_told_with_the_number_of_leases(
    lock: LeaseLock, seen: Recording, key: str
) -> None:
    with hold(lock, key, lease_ms=LEASE_MS, wait_ms=0):
        wait_until(lambda: seen.count("renewed") >= 2, "it is renewed twice")
    assert set(seen.events()) == {"granted", "renewed", "released"}
    assert {number for (number,) in seen.numbers("renewed")} == {1}


def test_renewals_that_fail_are_told_until_one_succeeds_and_nothing_is_lost(
    seen: Recording,
) -> None:
    with RedisServer() as server:
        lock = from_url(server.url, seen)
        lease = lock.acquire("frozen", lease_ms=6_000, wait_ms=0)
        server.process.sigstop()
        wait_until(lambda: seen.count("renewal_failed") >= 1, "a renewal fails")
        server.process.sigcont()
        wait_until(lambda: seen.count("renewed") >= 1, "a renewal succeeds")
        lease.ensure_held()
        lock.close()
    told = seen.events()
    assert set(told[1 : told.index("renewed")]) == {"renewal_failed"}
    assert "lost" not in told


def test_a_lease_whose_service_died_is_told_as_lost_once(seen: Recording) -> None:
    with RedisServer() as server:
        lock = from_url(server.url, seen)
        lease = lock.acquire("orphan", lease_ms=LEASE_MS, wait_ms=0)
        server.process.kill9()
        wait_until(lambda: seen.count("lost") == 1, "the loss is told")
        assert seen.count("renewal_failed") > 0
        assert lease.lost.is_set()
        server.start()
        lease.release()
        lock.close()
    assert seen.events("renewal_failed") == ["granted", "lost", "released"]


def test_a_lease_that_was_broken_is_told_as_lost_once_and_then_as_released(
    lock: LeaseLock, other: LeaseLock, seen: Recording, key: str
) -> None:
    lease = lock.acquire(key, lease_ms=LEASE_MS, wait_ms=0)
    other.break_lease(key)
    wait_until(lambda: seen.count("lost") == 1, "the loss is told")
    assert lease.lost.is_set()
    lease.release()
    lock.close()
    assert seen.events("renewed", "renewal_failed") == ["granted", "lost", "released"]


def test_a_lease_that_ran_out_while_its_process_was_frozen_is_told_as_lost_once(
    url: str, other: LeaseLock, key: str, tmp_path: Path
) -> None:
    with busy_holder(FROZEN, url, key, tmp_path) as process:
        process.sigstop()
        with hold(other, key, lease_ms=LONG_LEASE_MS, wait_ms=PATIENCE_MS):
            process.sigcont()
            assert process.wait() == 0
    assert told_by(process) == ["granted", "lost", "released"]


@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_a_lease_that_ran_out_with_nobody_looking_is_told_as_lost_by_its_release(
    url: str, key: str, tmp_path: Path
) -> None:
    """The holder is the first to find its time over, before the thread that renews can run."""
    with busy_holder(STARVING, url, key, tmp_path) as process:
        assert process.wait() == 0
    assert told_by(process) == ["granted", "lost", "released"]


def busy_holder(code: str, url: str, key: str, folder: Path) -> ManagedProcess:
    """A process that holds the key until it is lost; it is past its grant."""
    if url.startswith("zookeeper"):
        url += SHORT_SESSION
    command = [sys.executable, "-c", HEAD + code + TAIL, url, key, str(SHORT_LEASE_MS)]
    process = ManagedProcess("holder", command, log=folder / "log", cwd=ROOT).start()
    process.wait_ready(lambda: "held" in process.log_text())
    return process


def told_by(process: ManagedProcess) -> list[str]:
    """What its observer was told, but for renewals."""
    told = process.log_text().splitlines()[-1].split()
    return [event for event in told if "renew" not in event]


def test_closing_the_lock_gives_back_what_is_held_and_tells_so(
    lock: LeaseLock, seen: Recording, key: str
) -> None:
    lease = lock.acquire(key, lease_ms=LONG_LEASE_MS, wait_ms=0)
    lock.close()
    assert lease.remaining_ms() == 0
    assert seen.events() == ["granted", "released"]


def test_an_observer_that_raises_at_everything_hurts_no_lease(
    url: str, other: LeaseLock, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing()
    lock = from_url(url, failing)
    with hold(lock, key, lease_ms=LEASE_MS, wait_ms=0) as lease:
        wait_until(lambda: "renewed" in failing.called, "it is renewed")
        lease.ensure_held()
        with pytest.raises(LockTimeout):
            lock.acquire(key, lease_ms=LEASE_MS, wait_ms=0)
        other.break_lease(key)
        wait_until(lambda: "lost" in failing.called, "the loss is told")
        assert lease.lost.is_set()
    assert failing.called == {"granted", "renewed", "timed_out", "lost", "released"}
    # It renews still: the fault did not end its thread.
    failing.called.clear()
    with hold(lock, key, lease_ms=LEASE_MS, wait_ms=PATIENCE_MS) as lease:
        wait_until(lambda: "renewed" in failing.called, "it is renewed again")
        lease.ensure_held()
    lock.close()
    assert "A lock's observer failed" in caplog.text


def test_a_forked_child_tells_of_its_own_leases_only(
    lock: LeaseLock, seen: Recording, key: str
) -> None:
    lease = lock.acquire(key, lease_ms=LONG_LEASE_MS, wait_ms=0)
    before = len(seen.told)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        lease.release()  # it is the parent's: nothing happens, and nothing is told
        with hold(lock, f"{key}-child", lease_ms=LONG_LEASE_MS, wait_ms=PATIENCE_MS):
            pass
        os.write(writing, " ".join(event for event, _, _ in seen.told[before:]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read().split() == ["granted", "released"]
    os.waitpid(child, 0)
    assert len(seen.told) == before
    lease.release()
    assert seen.events("renewed") == ["granted", "released"]
