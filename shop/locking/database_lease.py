"""What stands in for a lease while the lock service is away: the order's row itself."""

import threading
from collections.abc import Callable

from locks import Lease, LeaseLost


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
