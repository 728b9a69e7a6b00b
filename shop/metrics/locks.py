"""The lock service's observer: what `locks` tells becomes metrics here."""

from locks import LockObserver
from shop.metrics import instruments

NS_PER_S = 1_000_000_000


class LockMetrics(LockObserver):
    """Counts and times what a lock does. A fault of it is caught and logged by the lock."""

    def granted(self, backend: str, wait_ns: int, ahead: int) -> None:
        """See LockObserver."""
        instruments.LOCK_WAIT.labels(backend, "granted").observe(wait_ns / NS_PER_S)
        instruments.LOCK_QUEUE.labels(backend).observe(ahead)

    def handed_over(self, backend: str, took_ns: int) -> None:
        """See LockObserver."""
        instruments.LOCK_HANDOVER.labels(backend).observe(took_ns / NS_PER_S)

    def timed_out(self, backend: str, wait_ns: int) -> None:
        """See LockObserver."""
        instruments.LOCK_WAIT.labels(backend, "timed_out").observe(wait_ns / NS_PER_S)

    def unavailable(self, backend: str, wait_ns: int) -> None:
        """See LockObserver."""
        instruments.LOCK_WAIT.labels(backend, "unavailable").observe(wait_ns / NS_PER_S)

    def released(self, backend: str, held_ns: int) -> None:
        """See LockObserver."""
        instruments.LOCK_HOLD.labels(backend).observe(held_ns / NS_PER_S)

    def renewed(self, backend: str, leases: int) -> None:
        """See LockObserver."""
        instruments.LOCK_RENEWALS.labels(backend, "renewed").inc(leases)

    def renewal_failed(self, backend: str, leases: int) -> None:
        """See LockObserver."""
        instruments.LOCK_RENEWALS.labels(backend, "failed").inc(leases)

    def lost(self, backend: str) -> None:
        """See LockObserver."""
        instruments.LOCK_LOST.labels(backend).inc()
