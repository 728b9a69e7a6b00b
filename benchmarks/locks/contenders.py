"""Who takes part: our three back ends, the known libraries, and the floor of each service.

A floor is the least that a lock on that service can do, written by hand, for a key that nobody
else wants: it cannot wait, has no fence, and renews nothing. On Redis `SET NX PX` and an EVALSHA
of compare and delete; on ZooKeeper an ephemeral create and a delete; with files open(O_EXCL), a
write and unlink. For crowds there is another kind of floor, the shortest way from one holder to the
next: a token in a Redis list that is passed on by BLPOP and LPUSH (and is gone for ever with a
process that dies with it), and a flock (that waits without end and with no regard to who is first).

A library is used as its own documentation shows, a new lock object per cycle, with its own defaults
but for the lease's time; pottery's Redlock has one master.
"""

import fcntl
import math
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import redis_lock
import sherlock
from kazoo.client import KazooClient
from pottery import Redlock

from locks import from_url

# Long enough for the last of 16 behind the slowest library; running into it is an error.
WAIT_S = 120
MS_PER_S = 1_000
# In leases: how seldom a waiter of the floor asks whether the service is still there. Ours is as
# seldom in the mean.
ASK_AGAIN = 0.9

Release = Callable[[], object]

# What is measured (see measures); a contender takes part where its measures say so.
CYCLE, CROWD, IDLE, QUEUE, GTHREAD, KEYS = "cycle", "crowd", "idle", "queue", "gthread", "keys"
MEASURES = (CYCLE, CROWD, IDLE, QUEUE, GTHREAD, KEYS)


class NotHeld(RuntimeError):
    """A lock was not granted in time: the run's figures would be worth nothing."""


@dataclass(frozen=True)
class Client:
    """One process's connection to a lock service. `take` may be called by several threads."""

    take: Callable[[str], Release]
    """Waits for a key; gives what gives it back. Raises NotHeld or the library's own error."""
    close: Callable[[], object]


@dataclass(frozen=True)
class Contender:
    """One way to lock."""

    name: str
    title: str
    service: str
    """`redis`, `zookeeper` or `file`."""
    connect: Callable[[str, int], Client]
    """Takes the service's address and the lease (or session) in ms."""
    measures: frozenset[str] = field(default=frozenset(MEASURES))
    renews: bool = False
    """Whether it can be held for longer than its lease."""

    @property
    def is_floor(self) -> bool:
        """Whether it is no lock to use, but what the others on its service are measured against."""
        return self.name.startswith("floor-")

    @property
    def is_ours(self) -> bool:
        """Whether it is one of our back ends."""
        return self.name.startswith("ours-")


def floor_of(service: str) -> str:
    """Name of a service's floor for a key that nobody else wants."""
    return f"floor-{service}"


# Compare and delete, as every description of a Redis lock has it.
_RELEASE = (
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end return 0"
)


def _floor_redis(address: str, lease_ms: int) -> Client:
    client = redis.Redis.from_url(address)
    sha: Any = client.script_load(_RELEASE)

    def take(key: str) -> Release:
        token = secrets.token_hex(16)
        if not client.set(key, token, nx=True, px=lease_ms):
            raise NotHeld(key)
        return lambda: client.evalsha(sha, 1, key, token)

    return Client(take, client.close)


def _floor_zookeeper(address: str, lease_ms: int) -> Client:
    client = _kazoo(address, lease_ms)
    client.ensure_path("/floor")

    def take(key: str) -> Release:
        path = client.create(f"/floor/{key}", b"", ephemeral=True)
        return lambda: client.delete(path)

    return Client(take, lambda: _stop(client))


def _floor_file(address: str, lease_ms: int) -> Client:
    folder = Path(address.removeprefix("file://")) / "floor"
    folder.mkdir(parents=True, exist_ok=True)

    def take(key: str) -> Release:
        path = folder / key
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC)
        os.write(file, secrets.token_hex(16).encode("ascii"))
        os.close(file)
        return path.unlink

    return Client(take, lambda: None)


def _queue_redis(address: str, lease_ms: int) -> Client:
    """Who waits asks again about once in a lease's time, as none can know whether Redis lives."""
    client = redis.Redis.from_url(address, socket_timeout=None)
    known: set[str] = set()
    ask_s = ASK_AGAIN * lease_ms / MS_PER_S

    def take(key: str) -> Release:
        if key not in known:
            known.add(key)
            if client.set(f"{key}-made", "1", nx=True):
                client.lpush(key, "token")
        for _ in range(math.ceil(WAIT_S / ask_s)):
            if client.blpop(key, timeout=ask_s) is not None:
                return lambda: client.lpush(key, "token")
        raise NotHeld(key)

    return Client(take, client.close)


def _queue_file(address: str, lease_ms: int) -> Client:
    folder = Path(address.removeprefix("file://")) / "flock"
    folder.mkdir(parents=True, exist_ok=True)

    def take(key: str) -> Release:
        file = os.open(folder / key, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(file, fcntl.LOCK_EX)
        return lambda: os.close(file)

    return Client(take, lambda: None)


def _ours(address: str, lease_ms: int) -> Client:
    """With the fence and the renewal on: there is no other way to use it."""
    lock = from_url(address)

    def take(key: str) -> Release:
        return lock.acquire(key, lease_ms=lease_ms, wait_ms=WAIT_S * MS_PER_S).release

    return Client(take, lock.close)


def _ours_zookeeper(address: str, lease_ms: int) -> Client:
    return _ours(f"zookeeper://{address}/bench?session_ms={lease_ms}", lease_ms)


def _redis_py(address: str, lease_ms: int) -> Client:
    client = redis.Redis.from_url(address)

    def take(key: str) -> Release:
        lock = client.lock(key, timeout=lease_ms / MS_PER_S, blocking_timeout=WAIT_S)
        return _taken(lock.acquire(), key, lock.release)

    return Client(take, client.close)


def _python_redis_lock(address: str, lease_ms: int, *, renews: bool = False) -> Client:
    # With redis-py's own time-out its long BLPOP would end in an error after five seconds.
    client = redis.Redis.from_url(address, socket_timeout=None)

    def take(key: str) -> Release:
        lock = redis_lock.Lock(client, key, expire=lease_ms // MS_PER_S, auto_renewal=renews)
        return _taken(lock.acquire(), key, lock.release)

    return Client(take, client.close)


def _python_redis_lock_renewing(address: str, lease_ms: int) -> Client:
    return _python_redis_lock(address, lease_ms, renews=True)


def _pottery(address: str, lease_ms: int) -> Client:
    client = redis.Redis.from_url(address)

    def take(key: str) -> Release:
        lock = Redlock(key=key, masters={client}, auto_release_time=lease_ms / MS_PER_S)
        return _taken(lock.acquire(timeout=WAIT_S), key, lock.release)

    return Client(take, client.close)


def _sherlock(address: str, lease_ms: int) -> Client:
    client = redis.Redis.from_url(address)

    def take(key: str) -> Release:
        expire_s = lease_ms // MS_PER_S
        lock = sherlock.RedisLock(key, client=client, expire=expire_s, timeout=WAIT_S)
        return _taken(lock.acquire(), key, lock.release)

    return Client(take, client.close)


def _kazoo_lock(address: str, lease_ms: int) -> Client:
    client = _kazoo(address, lease_ms)

    def take(key: str) -> Release:
        lock = client.Lock(f"/kazoo/{key}")
        return _taken(lock.acquire(timeout=WAIT_S), key, lock.release)

    return Client(take, lambda: _stop(client))


def _kazoo(address: str, session_ms: int) -> Any:
    client = KazooClient(hosts=address, timeout=session_ms / MS_PER_S)
    client.start()
    return client


def _stop(client: Any) -> None:
    client.stop()
    client.close()


def _taken(was_granted: object, key: str, release: Release) -> Release:
    if not was_granted:
        raise NotHeld(key)
    return release


_ALONE = frozenset({CYCLE, KEYS})
_TOGETHER = frozenset({CROWD, GTHREAD})
# Who asks again and again has no queue, and so no first waiter.
_NO_QUEUE = frozenset(MEASURES) - {QUEUE}

CONTENDERS: dict[str, Contender] = {
    each.name: each
    for each in (
        Contender("floor-redis", "floor, Redis", "redis", _floor_redis, _ALONE),
        Contender(
            "floor-redis-queue",
            "floor, Redis: BLPOP, LPUSH",
            "redis",
            _queue_redis,
            _TOGETHER | {IDLE},
            renews=True,
        ),
        Contender("ours-redis", "ours, Redis", "redis", _ours, renews=True),
        Contender("redis-py", "redis-py Lock", "redis", _redis_py, _NO_QUEUE),
        Contender(
            "python-redis-lock",
            "python-redis-lock",
            "redis",
            _python_redis_lock,
            frozenset(MEASURES) - {IDLE},
        ),
        Contender(
            "python-redis-lock-renewing",
            "python-redis-lock, renewing",
            "redis",
            _python_redis_lock_renewing,
            frozenset({CYCLE, IDLE}),
            renews=True,
        ),
        Contender("pottery", "pottery Redlock", "redis", _pottery, _NO_QUEUE - {KEYS}),
        Contender("sherlock", "sherlock RedisLock", "redis", _sherlock, _NO_QUEUE - {KEYS}),
        Contender(
            "floor-zookeeper",
            "floor, ZooKeeper",
            "zookeeper",
            _floor_zookeeper,
            _ALONE,
        ),
        Contender("ours-zookeeper", "ours, ZooKeeper", "zookeeper", _ours_zookeeper, renews=True),
        Contender("kazoo", "kazoo Lock", "zookeeper", _kazoo_lock, renews=True),
        Contender("floor-file", "floor, files", "file", _floor_file, _ALONE),
        Contender("floor-file-queue", "floor, files: flock", "file", _queue_file, _TOGETHER),
        Contender("ours-file", "ours, files", "file", _ours, renews=True),
    )
}
