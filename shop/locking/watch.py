"""What one process remembers of its lock service: that it was away, and whose fences it grants."""

import time
from collections.abc import Callable

NS_PER_MS = 1_000_000
# To find a service away takes its time-out, some two seconds; so long nobody asks it again.
REST_MS = 2_000


class ServiceWatch:
    """Remembers an outage for REST_MS; then one caller looks again, and the others still do not.

    Threads share it without a lock: a race costs one look more, and a fork can break nothing.
    """

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now_ns = now_ns
        self._rests_until_ns: int | None = None
        self.realm: str | None = None
        """The realm that it named last; None before the first time."""

    def is_resting(self) -> bool:
        """Whether the service was away a moment ago and is not to be asked by this caller."""
        until_ns = self._rests_until_ns
        if until_ns is None:
            return False
        now_ns = self._now_ns()
        if now_ns < until_ns:
            return True
        self._rests_until_ns = now_ns + REST_MS * NS_PER_MS
        return False

    def went_away(self) -> None:
        """It did not answer."""
        self._rests_until_ns = self._now_ns() + REST_MS * NS_PER_MS

    def answered(self) -> None:
        """It is there."""
        self._rests_until_ns = None
