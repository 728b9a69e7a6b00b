"""Leases on keys, with fencing tokens, over Redis, ZooKeeper or the files of one host.

    lock = from_url("redis://127.0.0.1:6379/0")
    with hold(lock, order_code, lease_ms=15_000, wait_ms=3_000) as lease:
        ...  # write with lease.fence; lease.ensure_held() before every outside call

The lock is for order and cost. It is never what safety rests on: whatever is protected must refuse
a fence lower than one it has seen.
"""

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def hold(
    lock: LeaseLock, key: str, *, lease_ms: int, wait_ms: int, fence_floor: int = 0
) -> Iterator[Lease]:
    """Hold `key` for the length of a with-block. Raises as LeaseLock.acquire does."""
    lease = lock.acquire(key, lease_ms=lease_ms, wait_ms=wait_ms, fence_floor=fence_floor)
    try:
        yield lease
    finally:
        lease.release()
