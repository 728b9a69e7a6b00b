"""The clock that leases are counted by: it never steps, and goes on while the host sleeps."""

import time

# Linux's CLOCK_BOOTTIME counts a suspended host's sleep, as the lease's service does
# (clock_gettime(2)). Elsewhere the plain monotonic clock must do. Both are one for all processes.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
# A lease is counted as over a little early, for the drift between two hosts' clocks (a quartz
# drifts by 0.01 % at most; this is a hundred times that) and the coarseness of their timers.
DRIFT_DIVISOR = 100
TIMER_GRAIN_MS = 2


def now_ns() -> int:
    """Nanoseconds since some fixed instant before the host's start."""
    return time.clock_gettime_ns(_CLOCK)


def safe_end_ns(sent_ns: int, ttl_ms: int) -> int:
    """When to stop relying on a time to live of ttl_ms that was asked for at sent_ns."""
    return sent_ns + (ttl_ms - ttl_ms // DRIFT_DIVISOR - TIMER_GRAIN_MS) * NS_PER_MS


class Deadline:
    """An end for all waiting of one call."""

    def __init__(self, wait_ms: int) -> None:
        self._end_ns = now_ns() + wait_ms * NS_PER_MS

    def left_s(self) -> float:
        """Seconds left, 0 if none."""
        return max(0, self._end_ns - now_ns()) / NS_PER_S

    def left_ms(self) -> int:
        """Milliseconds left, rounded up; 0 if none."""
        return -(-max(0, self._end_ns - now_ns()) // NS_PER_MS)

    def is_over(self) -> bool:
        """Whether no time is left."""
        return now_ns() >= self._end_ns
