"""What every back end promises: the lock, the lease, and the limits of their arguments."""

import re
import threading
from typing import Protocol, runtime_checkable

from locks.inspection import HeldKey

# The signs that are safe in a Redis key, a znode's name and a file's name alike.
KEY_PATTERN = re.compile(r"[0-9A-Za-z_-]{1,64}")
# Below, the network's own delay would eat the lease; above, a dead holder blocks for too long.
MIN_LEASE_MS, MAX_LEASE_MS = 100, 3_600_000
MAX_WAIT_MS = 3_600_000
# Redis computes in doubles, which are exact up to here; microseconds since 1970 reach it in 2255.
MAX_FENCE = 2**53 - 1


@runtime_checkable
class Lease(Protocol):
    """A key held for a time, renewed in the background until released or lost.

    A lease cannot stop a holder that froze and woke: the resource must refuse older fences.
    """

    key: str
    fence: int
    """Fencing token: grows strictly per key in the order of holding, and never repeats."""
    lost: threading.Event
    """Set before the lease can run out by the local clock, and as soon as its loss is known."""

    def remaining_ms(self) -> int:
        """Time that is certainly left, counted from before the last request was sent; 0 if none."""
        ...

    def ensure_held(self, need_ms: int = 0) -> None:
        """Raise LeaseLost if the lease is lost or released, or has less than need_ms left."""
        ...

    def release(self) -> None:
        """Give the key back. May be called again; a lost answer of the service is no error."""
        ...


@runtime_checkable
class LeaseLock(Protocol):
    """A lock service. Safe to share between threads; after a fork the child starts afresh."""

    backend: str
    """`redis`, `zookeeper` or `file`."""

    def acquire(self, key: str, *, lease_ms: int, wait_ms: int, fence_floor: int = 0) -> Lease:
        """Hold `key` ([0-9A-Za-z_-]{1,64}), waiting at most wait_ms for it.

        `fence_floor` is a fence seen at the resource: the lease's fence will be greater (on
        ZooKeeper it cannot be raised; see locks.on_zookeeper). Not re-entrant: a thread that holds
        the key and asks again waits in vain.

        Raises ValueError for a bad argument, LockTimeout when another holder kept the key, and
        LockUnavailable: within about two seconds when the service does not answer, and at the next
        question to it for who stands in a queue already (README has how soon that is).
        """
        ...

    def realm(self) -> str:
        """Names whose fences these are: only fences of one realm can be compared.

        Clocks of microseconds make one realm, `clock`, for Redis and files together; each
        ZooKeeper ensemble is a realm of its own. May raise LockUnavailable.
        """
        ...

    def held(self, limit: int = 1_000) -> list[HeldKey]:
        """At most `limit` of the keys that are held now, by anybody, and who waits for them.

        For an operator's eyes: a long list costs the service a scan. Raises LockUnavailable.
        """
        ...

    def break_lease(self, key: str) -> HeldKey | None:
        """End whatever lease stands on `key`, by an operator's will; the next waiter is served.

        Gives what stood there, or None. The ousted holder is not stopped: it learns of it by its
        next renewal at the latest, and the resource refuses its fence once a later holder has
        written. Raises ValueError for a bad key, LockUnavailable.
        """
        ...

    def ping(self) -> None:
        """Raise LockUnavailable within about a second if the service does not answer."""
        ...

    def close(self) -> None:
        """Release what is held, stop the threads and close the session. The object is done."""
        ...
