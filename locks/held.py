"""A lease as its holder sees it, the same for all back ends."""

import os
import threading
from collections.abc import Callable
from typing import NamedTuple

from locks.clock import NS_PER_MS, NS_PER_S, now_ns, safe_end_ns
from locks.errors import LeaseLost

# Renewed at a third of its time, a lease survives one failed renewal and a slow second one.
RENEWALS_PER_LEASE = 3
# A lease that was given in part is asked for in whole this soon, as a part of that part: a short
# hold is over by then, and costs no request for it.
WHOLE_AFTER_PARTS = 10
# After a failed renewal the next try comes this soon, as a part of the lease.
RETRIES_PER_LEASE = 12


class LossEvent(threading.Event):
    """Set when the lease is known to be lost, and, by the clock alone, when it may have run out.

    It needs no thread to come in time: a process that was frozen finds it set when it wakes,
    whichever of its threads runs first. Once set it stays set.
    """

    def __init__(self, end_ns: int) -> None:
        # Not Event's own, which makes a Condition: few holders ever wait for the loss, and a lease
        # is made while the next waiter waits.
        self._end_ns = end_ns
        self._guard = threading.RLock()
        self._waiters: threading.Condition | None = None
        self._is_set = False
        self._counting = True
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<loss of a lease, {'known' if self.is_set() else 'not known'}>"

    def is_set(self) -> bool:
        """Whether the lease must no longer be relied on; always so in a forked child."""
        if self._is_set or os.getpid() != self._pid:
            return True
        if now_ns() < self._end_ns:
            return False
        with self._guard:
            if self._counting and now_ns() >= self._end_ns:
                self.set()
        return self._is_set

    def set(self) -> None:
        """The loss is known."""
        with self._guard:
            self._is_set = True
            if self._waiters is not None:
                self._waiters.notify_all()

    def clear(self) -> None:
        """Not to be had: what is lost stays lost."""
        raise TypeError("A lost lease cannot be had back.")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the loss, at most `timeout` seconds. Gives whether it has come."""
        until_ns = None if timeout is None else now_ns() + int(timeout * NS_PER_S)
        while not self.is_set():
            now = now_ns()
            if until_ns is not None and now >= until_ns:
                return False
            ends = [end for end in (until_ns, self._end_ns if self._counting else None) if end]
            with self._guard:
                if self._waiters is None:
                    self._waiters = threading.Condition(self._guard)
                if not self._is_set:
                    self._waiters.wait(max(0, min(ends) - now) / NS_PER_S if ends else None)
        return True

    def left_ns(self) -> int:
        """Nanoseconds until it sets itself; 0 if it is set."""
        return 0 if self.is_set() else max(0, self._end_ns - now_ns())

    def put_off(self, end_ns: int) -> bool:
        """Move its time; gives False, and moves nothing, if it is set already."""
        with self._guard:
            if self.is_set():
                return False
            self._end_ns = max(self._end_ns, end_ns)
            return True

    def stop_counting(self) -> None:
        """From now on the clock no longer sets it: the lease was given back."""
        with self._guard:
            self.is_set()
            self._counting = False


class Grant(NamedTuple):
    """What a back end hands over when it grants a key."""

    key: str
    token: str
    """Names this one holding; nobody else ever has it."""
    fence: int
    lease_ms: int
    sent_ns: int
    """Clock before the request was sent that the grant answers."""
    place: str = ""
    """Where the back end keeps the lease, if the key and token do not say."""
    ttl_ms: int = 0
    """What the service really gives, if that is less than lease_ms."""
    is_partial: bool = False
    """Whether the service gives all of lease_ms for the asking: by the first renewal, or as soon
    as more is needed than ttl_ms."""
    ahead: int = 0
    """Holders and waiters that were before us when we first asked, as far as the service told."""
    handover_ns: int | None = None
    """From the last holder's release to our knowing, where the service can tell."""


class HeldLease:
    """The Lease of every back end. Made by BaseLock.acquire only."""

    def __init__(
        self,
        grant: Grant,
        give_back: Callable[["HeldLease"], None],
        doubt: Callable[[], str],
        complete: Callable[["HeldLease"], None] | None = None,
    ) -> None:
        """`complete` is called to ask for the rest of a lease that was granted in part."""
        self.grant = grant
        self.key = grant.key
        self.fence = grant.fence
        self.token = grant.token
        self.lease_ms = grant.lease_ms
        self.ttl_ms = min(grant.lease_ms, grant.ttl_ms or grant.lease_ms)
        self.place = grant.place
        self.since_ns = now_ns()
        self.renew_at_ns = 0
        self.lost: threading.Event = LossEvent(safe_end_ns(grant.sent_ns, self.ttl_ms))
        self._loss: LossEvent = self.lost
        self._why = "It ran out before it could be renewed."
        self._give_back = give_back
        self._doubt = doubt
        self._complete = complete if grant.is_partial else None
        self._pid = os.getpid()
        # May be asked for again by a signal's handler in the midst of a renewal or release.
        self._guard = threading.RLock()
        self._released = False
        self._plan_renewal(grant.sent_ns)

    def __repr__(self) -> str:
        return f"<lease on {self.key} fence={self.fence} remaining_ms={self.remaining_ms()}>"

    @property
    def is_released(self) -> bool:
        """Whether release() was called."""
        return self._released

    def remaining_ms(self) -> int:
        """See Lease."""
        return 0 if self._released else self._loss.left_ns() // NS_PER_MS

    def ensure_held(self, need_ms: int = 0) -> None:
        """See Lease."""
        if self._released:
            raise LeaseLost(f"Key {self.key!r}: it was released.")
        if os.getpid() != self._pid:
            raise LeaseLost(f"Key {self.key!r}: it belongs to the process that forked this one.")
        left_ms = self.remaining_ms()
        if left_ms < need_ms and self._complete is not None:
            self._complete(self)
            left_ms = self.remaining_ms()
        if left_ms == 0 or self._loss.is_set():
            raise LeaseLost(f"Key {self.key!r}: {self._why}")
        doubt = self._doubt()
        if doubt:
            raise LeaseLost(f"Key {self.key!r}: {doubt}")
        if left_ms < need_ms:
            raise LeaseLost(f"Key {self.key!r}: {left_ms} ms remain, {need_ms} ms are needed.")

    def release(self) -> None:
        """See Lease. In a forked child it does nothing: the lease is the parent's."""
        if os.getpid() != self._pid:
            return
        with self._guard:
            if self._released:
                return
            self._released = True
        self._loss.stop_counting()
        self._give_back(self)

    def extend(self, sent_ns: int, ttl_ms: int | None = None) -> None:
        """A renewal sent at sent_ns was confirmed. A lease that is lost stays lost."""
        if ttl_ms is not None:
            self.ttl_ms = min(self.lease_ms, ttl_ms)
            self._complete = None
        self._loss.put_off(safe_end_ns(sent_ns, self.ttl_ms))
        self._plan_renewal(sent_ns)

    def mark_lost(self, why: str) -> bool:
        """Its loss is known. Gives whether that is news; a released lease cannot be lost."""
        with self._guard:  # so that a release comes before all of it, or after it
            if self._released or self._loss.is_set():
                return False
            self._why = why
            self._loss.set()
            return True

    def retry_renewal_soon(self) -> None:
        """The renewal failed, but the lease may still stand."""
        self.renew_at_ns = now_ns() + self.ttl_ms * NS_PER_MS // RETRIES_PER_LEASE

    def _plan_renewal(self, sent_ns: int) -> None:
        parts = RENEWALS_PER_LEASE if self._complete is None else WHOLE_AFTER_PARTS
        self.renew_at_ns = sent_ns + self.ttl_ms * NS_PER_MS // parts
