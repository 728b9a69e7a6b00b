"""A lock as it is often written: redis-py's Lock, and a fence by INCR. It must be convicted.

INCR counts from one again when Redis comes back empty, so fences repeat and fall; and redis-py's
Lock does not say that its time has run out, so a holder that looks at what it has believes.
"""

import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import LockNotOwnedError
from redis.lock import Lock
from redis.retry import Retry

from locks import HeldKey, LockTimeout, LockUnavailable

SCHEME = "weak-redis"
TIMEOUT_S = 2.0
POLL_S = 0.02


@dataclass
class WeakLease:
    """What redis-py gives, in the shape of our Lease."""

    key: str
    fence: int
    inner: Lock
    lost: threading.Event = field(default_factory=threading.Event)

    def remaining_ms(self) -> int:
        """The library keeps no account of it."""
        return 0

    def ensure_held(self, need_ms: int = 0) -> None:
        """The library knows of no loss without asking, and its users seldom ask."""

    def release(self) -> None:
        """Give it back."""
        try:
            self.inner.release()
        except (LockNotOwnedError, redis.ConnectionError, redis.TimeoutError):
            return  # It ran out, or Redis is away: nothing more can be done.


class WeakLock:
    """The LeaseLock that is not one."""

    backend = SCHEME

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis(
            port=urlsplit(url).port or 0, socket_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )

    def acquire(self, key: str, *, lease_ms: int, wait_ms: int, fence_floor: int = 0) -> WeakLease:
        """The floor means nothing to INCR."""
        inner = Lock(
            self._redis, f"lock:{key}", timeout=lease_ms / 1_000, sleep=POLL_S, thread_local=False
        )
        try:
            if not inner.acquire(blocking=True, blocking_timeout=wait_ms / 1_000):
                raise LockTimeout(key, wait_ms)
            return WeakLease(key, int(self._redis.incr(f"fence:{key}")), inner)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise LockUnavailable(str(error)) from error

    def realm(self) -> str:
        """See LeaseLock."""
        return SCHEME

    def held(self, limit: int = 1_000) -> list[HeldKey]:
        """See LeaseLock."""
        raise LockUnavailable("It cannot be listed.")

    def break_lease(self, key: str) -> HeldKey | None:
        """See LeaseLock."""
        raise LockUnavailable("It cannot be broken.")

    def ping(self) -> None:
        """See LeaseLock."""
        self._redis.ping()

    def close(self) -> None:
        """See LeaseLock."""
        self._redis.close()
