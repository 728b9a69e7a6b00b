"""What stands in for a lease while the lock service is away: the order's row itself."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from locks import Lease, LeaseLost
from locks.base import CLOCK_REALM

_SINCE = datetime(1970, 1, 1, tzinfo=UTC)


def fence_of_now(realm: str, now: datetime) -> int:
    """A fence above all that services of this realm have granted so far, where that can be known.

    Fences of the `clock` realm are microseconds since 1970; those of others are their own secret,
    and 1 is given.
    """
    return (now - _SINCE) // timedelta(microseconds=1) if realm == CLOCK_REALM else 1


class DatabaseLease(Lease):
    """The order was claimed by its row: whoever claims it next supersedes this holder.

    Nobody waits for it and it does not run out; it is looked at before every outside call, and the
    fence guards every write.
    """

    def __init__(self, key: str, fence: int, is_held: Callable[[], bool]) -> None:
        self.key = key
        self.fence = fence
        self.lost = threading.Event()
        self._is_held = is_held

    def remaining_ms(self) -> int:
        """Nothing is certain: another may claim the order at any time."""
        return 0

    def ensure_held(self, need_ms: int = 0) -> None:
        """Raise LeaseLost if somebody else has claimed the order since. Reads the database."""
        if not self._is_held():
            self.lost.set()
            raise LeaseLost(f"Key {self.key!r}: the order was claimed by somebody else.")

    def release(self) -> None:
        """Nothing to give back."""
