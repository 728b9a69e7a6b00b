"""The hook through which a lock tells what it does. It knows no metrics library.

class Counting(LockObserver):
    def lost(self, backend: str) -> None:
        self.losses += 1

lock = from_url("redis://127.0.0.1:6379/0", observer=Counting())
"""

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class LockObserver:
    """Override what you want to know. Called in the lock's own threads: be quick and thread-safe.

    Times are in nanoseconds by the monotonic clock of this process. `backend` is the lock's.
    What an observer raises is logged and hurts no lease.
    """

    def granted(self, backend: str, wait_ns: int, ahead: int) -> None:
        """A lease was granted after wait_ns; `ahead` holders and waiters were before us."""

    def handed_over(self, backend: str, took_ns: int) -> None:
        """The last holder's release reached us after took_ns, where the service can tell."""

    def timed_out(self, backend: str, wait_ns: int) -> None:
        """LockTimeout: another kept the key."""

    def unavailable(self, backend: str, wait_ns: int) -> None:
        """LockUnavailable: the service did not answer an acquire."""

    def released(self, backend: str, held_ns: int) -> None:
        """A lease was given back by its holder after held_ns; also when it was lost before."""

    def renewed(self, backend: str, leases: int) -> None:
        """So many leases were renewed by one request."""

    def renewal_failed(self, backend: str, leases: int) -> None:
        """So many leases could not be renewed; they may still stand, and it is tried again."""

    def lost(self, backend: str) -> None:
        """A lease that was not given back is known to be lost."""


class GuardedObserver:
    """An observer, bound to one lock, whose faults stay its own."""

    def __init__(self, observer: LockObserver, backend: str) -> None:
        self._observer = observer
        self._backend = backend

    def granted(self, wait_ns: int, ahead: int, handover_ns: int | None) -> None:
        """See LockObserver; tells the hand-over too, where it is known."""
        self._call(self._observer.granted, wait_ns, ahead)
        if handover_ns is not None:
            self._call(self._observer.handed_over, handover_ns)

    def timed_out(self, wait_ns: int) -> None:
        """See LockObserver."""
        self._call(self._observer.timed_out, wait_ns)

    def unavailable(self, wait_ns: int) -> None:
        """See LockObserver."""
        self._call(self._observer.unavailable, wait_ns)

    def released(self, held_ns: int) -> None:
        """See LockObserver."""
        self._call(self._observer.released, held_ns)

    def renewed(self, leases: int) -> None:
        """See LockObserver."""
        self._call(self._observer.renewed, leases)

    def renewal_failed(self, leases: int) -> None:
        """See LockObserver."""
        self._call(self._observer.renewal_failed, leases)

    def lost(self) -> None:
        """See LockObserver."""
        self._call(self._observer.lost)

    def _call(self, method: Callable[..., None], *arguments: Any) -> None:
        try:
            method(self._backend, *arguments)
        except Exception:
            log.exception("A lock's observer failed")
