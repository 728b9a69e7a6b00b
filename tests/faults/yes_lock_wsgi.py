"""`gunicorn tests.faults.yes_lock_wsgi:app`: the shop with a lock that always says yes.

Everybody holds every order at once; only what the database itself refuses (L1 to L3) stands
between 64 racers and 64 charges. Wired in from here: nothing in the shop knows of it.
"""

import threading
import time

from config.settings import load_settings
from locks import HeldKey, Lease, LeaseLock
from shop.app import create_app
from shop.wiring import build_parts


class YesLease(Lease):
    """A lease that is never lost, and excludes nobody."""

    def __init__(self, key: str, fence: int) -> None:
        self.key = key
        self.fence = fence
        self.lost = threading.Event()

    def remaining_ms(self) -> int:
        """Always an hour."""
        return 3_600_000

    def ensure_held(self, need_ms: int = 0) -> None:
        """Always."""

    def release(self) -> None:
        """Nothing to give back."""


class YesLock(LeaseLock):
    """Grants every lease at once, with fences that grow across processes as real ones do.

    Microseconds since 1970: those of the real locks go on above them.
    """

    backend = "yes"

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._last = 0

    def acquire(self, key: str, *, lease_ms: int, wait_ms: int, fence_floor: int = 0) -> YesLease:
        """Yes."""
        with self._guard:
            self._last = max(self._last + 1, time.time_ns() // 1_000, fence_floor + 1)
            return YesLease(key, self._last)

    def realm(self) -> str:
        """That of the real locks."""
        return "clock"

    def held(self, limit: int = 1_000) -> list[HeldKey]:
        """Nothing that could be listed."""
        return []

    def break_lease(self, key: str) -> HeldKey | None:
        """Nothing that could be broken."""
        return None

    def ping(self) -> None:
        """It is always there."""

    def close(self) -> None:
        """Nothing to close."""


def __getattr__(name: str) -> object:
    """Make `app` when gunicorn asks for it, and not when a test imports YesLock."""
    if name == "app":
        return create_app(parts=build_parts(load_settings(), lock=YesLock()))
    raise AttributeError(name)
