"""Leases on keys, with fencing tokens, over Redis, ZooKeeper or the files of one host.

    lock = from_url("redis://127.0.0.1:6379/0")
    with hold(lock, order_code, lease_ms=15_000, wait_ms=3_000) as lease:
        ...  # write with lease.fence; lease.ensure_held() before every outside call

The lock is for order and cost. It is never what safety rests on: whatever is protected must refuse
a fence lower than one it has seen.
"""

from contextlib import AbstractContextManager

from locks.errors import LeaseLost, LockConfigError, LockError, LockTimeout, LockUnavailable
from locks.inspection import HeldKey
from locks.observe import LockObserver
from locks.protocol import Lease, LeaseLock
from locks.urls import from_url

__all__ = [
    "HeldKey",
    "Lease",
    "LeaseLock",
    "LeaseLost",
    "LockConfigError",
    "LockError",
    "LockObserver",
    "LockTimeout",
    "LockUnavailable",
    "from_url",
    "hold",
]


def hold(
    lock: LeaseLock, key: str, *, lease_ms: int, wait_ms: int, fence_floor: int = 0
) -> AbstractContextManager[Lease]:
    """Hold `key` for the length of a with-block. Raises as LeaseLock.acquire does."""
    return _Hold(lock, key, lease_ms, wait_ms, fence_floor)


class _Hold(AbstractContextManager[Lease]):
    """Not a generator: between the grant and its `try` the exception of a signal could come."""

    def __init__(
        self, lock: LeaseLock, key: str, lease_ms: int, wait_ms: int, fence_floor: int
    ) -> None:
        self._lock, self._key, self._lease_ms = lock, key, lease_ms
        self._wait_ms, self._fence_floor = wait_ms, fence_floor

    def __enter__(self) -> Lease:
        self._lease = self._lock.acquire(
            self._key,
            lease_ms=self._lease_ms,
            wait_ms=self._wait_ms,
            fence_floor=self._fence_floor,
        )
        return self._lease

    def __exit__(self, *_raised: object) -> None:
        self._lease.release()
