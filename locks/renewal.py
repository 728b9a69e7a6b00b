"""One thread per process and lock object: renews what is held, and finishes what was left over."""

import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from locks.clock import NS_PER_MS, NS_PER_S, now_ns
from locks.errors import LockUnavailable
from locks.held import Grant, HeldLease
from locks.observe import GuardedObserver

log = logging.getLogger(__name__)

NEVER_NS = 2**63
# Leases due within this time are renewed in one batch.
BATCH_NS = 20 * NS_PER_MS
STOP_TIMEOUT_S = 5.0


@dataclass(eq=False)
class Chore:
    """Work to be tried again and again until done or pointless, such as a release that failed."""

    run: Callable[[], bool]
    """Gives True when nothing is left to do; may raise LockUnavailable."""
    every_ns: int
    until_ns: int
    next_ns: int = 0
    is_owed: bool = True
    """Whether something stands at the service that should not, until this is done."""

    def postpone(self) -> None:
        """Not now."""
        self.next_ns = now_ns() + self.every_ns


class Renewer:
    """Keeps a table of held leases. The thread starts with the first one and ends with `stop`.

    The table does not keep a lease alive. One that its holder dropped without a release (an
    exception came before the holder could name it, say) is not renewed, but given back.
    """

    def __init__(
        self,
        name: str,
        renew: Callable[[list[HeldLease]], None],
        tell: GuardedObserver | None = None,
        free_later: Callable[[str, str, str, int], None] = lambda *_: None,
    ) -> None:
        """`free_later` gives back by key, token, place and lease_ms, by a chore."""
        self._name = name
        self._renew = renew
        self._tell = tell
        self._free_later = free_later
        # Taken by itself and not through the Condition, whose own `with` is written in Python: an
        # exception from a signal's handler could come within it, and leave it taken for ever.
        self._guard = threading.RLock()
        self._changed = threading.Condition(self._guard)
        self._held: dict[str, tuple[weakref.ref[HeldLease], Grant]] = {}
        self._chores: list[Chore] = []
        self._thread: threading.Thread | None = None
        self._wakes_at_ns = NEVER_NS
        self._asked_for_ns = 0
        self._stopping = False

    def add(self, lease: HeldLease) -> None:
        """Renew this lease from now on. Raises RuntimeError if there can be no thread for it."""
        with self._guard:
            self._held[lease.token] = (weakref.ref(lease), lease.grant)
            self._wake_by(lease.renew_at_ns)

    def discard(self, lease: HeldLease) -> None:
        """Renew it no longer. A loss that nobody has told of is told by whoever takes it out."""
        with self._guard:
            was_held = self._held.pop(lease.token, None) is not None
        if self._tell is not None and was_held and lease.lost.is_set():
            self._tell.lost()

    def add_chore(self, chore: Chore) -> None:
        """Try this from now on, until it is over."""
        with self._guard:
            self._chores.append(chore)
            try:
                self._wake_by(chore.next_ns)
            except RuntimeError as error:
                log.warning("A lock's clean-up must wait for the next lease: %s", error)

    def owes(self) -> bool:
        """Whether something could not be given back yet."""
        with self._guard:
            return any(chore.is_owed for chore in self._chores)

    def leases(self) -> list[HeldLease]:
        """What is held now."""
        with self._guard:
            return [lease for made, _ in self._held.values() if (lease := made()) is not None]

    def lose_all(self, why: str) -> None:
        """Everything held is known to be lost."""
        for lease in self.leases():
            self.lose(lease, why)

    def lose(self, lease: HeldLease, why: str) -> None:
        """This lease is known to be lost."""
        is_news = lease.mark_lost(why)
        self.discard(lease)
        if is_news:
            log.warning("The lease on %s (fence %d) is lost. %s", lease.key, lease.fence, why)

    def stop(self) -> None:
        """End the thread, after one last try at each chore."""
        with self._guard:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_TIMEOUT_S)
        with self._guard:
            self._drop_orphans()
        self._work_off(self._chores)

    def _wake_by(self, at_ns: int) -> None:
        if self._stopping:
            return
        if self._thread is None:
            self._asked_for_ns = at_ns
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            # It makes itself known when it runs (see _run): whether one runs that a signal's
            # exception kept from coming back from start() cannot be told here.
            thread.start()
            self._thread = thread
        elif at_ns < self._wakes_at_ns:
            # First the call: an exception from a signal's handler may come between any two steps,
            # and to be woken once too often does no harm.
            self._changed.notify()
            self._asked_for_ns = self._wakes_at_ns = at_ns

    def _run(self) -> None:
        with self._guard:
            if self._thread is None:
                self._thread = threading.current_thread()
            elif self._thread is not threading.current_thread():
                return  # another was started in the meantime
        while True:
            with self._guard:
                if self._stopping:
                    return
                self._drop_lost()
                self._drop_orphans()
                due = self._due_leases()
                chores = [chore for chore in self._chores if chore.next_ns <= now_ns()]
                if not due and not chores:
                    self._sleep()
                    continue
            if due:
                self._renew_all(due)
            self._work_off(chores)
            due = []  # no lease is kept alive from here

    def _sleep(self) -> None:
        times = [lease.renew_at_ns for lease in self.leases()]
        if len(times) < len(self._held):
            return  # one was dropped just now
        times += [chore.next_ns for chore in self._chores]
        if self._asked_for_ns > now_ns():
            # What it was woken for may be over already. It sleeps no longer than was asked for all
            # the same: of a thousand short leases the first alone wakes this thread.
            times.append(self._asked_for_ns)
        self._wakes_at_ns = min(times, default=NEVER_NS)
        wait_s = max(0, self._wakes_at_ns - now_ns()) / NS_PER_S if times else None
        self._changed.wait(wait_s)
        self._wakes_at_ns = 0

    def _drop_lost(self) -> None:
        for lease in self.leases():
            if lease.lost.is_set():
                del self._held[lease.token]
                self._tell_lost()
                log.warning("The lease on %s (fence %d) ran out unrenewed.", lease.key, lease.fence)

    def _drop_orphans(self) -> None:
        """Give back what nobody can release any more, or whose release a signal interrupted."""
        for made, grant in list(self._held.values()):
            lease = made()
            if lease is None:
                log.warning(
                    "The lease on %s (fence %d) was dropped without a release: it is given back.",
                    grant.key,
                    grant.fence,
                )
            # A release that is at it just now is done a second time, which does no harm.
            if lease is None or lease.is_released:
                del self._held[grant.token]
                self._free_later(grant.key, grant.token, grant.place, grant.lease_ms)

    def _has_due_leases(self) -> bool:
        with self._guard:
            return not self._stopping and bool(self._due_leases())

    def _due_leases(self) -> list[HeldLease]:
        horizon_ns = now_ns() + BATCH_NS
        return [lease for lease in self.leases() if lease.renew_at_ns <= horizon_ns]

    def _renew_all(self, due: list[HeldLease]) -> None:
        try:
            self._renew(due)
        except LockUnavailable as error:
            log.warning("Leases could not be renewed, trying again: %s", error)
        except Exception:
            # Whatever it is, the thread must live: the other leases still need it.
            log.exception("Renewing leases failed")
        horizon_ns = now_ns() + BATCH_NS
        failed = [lease for lease in due if lease.renew_at_ns <= horizon_ns]
        for lease in failed:
            lease.retry_renewal_soon()
        if self._tell is not None:
            lost = sum(1 for lease in failed if lease.lost.is_set())
            self._tell_renewals(len(due) - len(failed), len(failed) - lost)

    def _tell_lost(self) -> None:
        if self._tell is not None:
            self._tell.lost()

    def _tell_renewals(self, renewed: int, failed: int) -> None:
        if self._tell is not None and renewed:
            self._tell.renewed(renewed)
        if self._tell is not None and failed:
            self._tell.renewal_failed(failed)

    def _work_off(self, chores: list[Chore]) -> None:
        over = []
        answers = True
        for number, chore in enumerate(chores):
            if number and self._has_due_leases():
                break  # the rest comes after them
            try:
                # One time-out is enough: renewals must not queue behind a hundred of them.
                done = answers and chore.run()
            except LockUnavailable as error:
                log.info("A lock's clean-up must wait: %s", error)
                answers = done = False
            except Exception:
                log.exception("A lock's clean-up failed")
                done = True
            chore.postpone()
            if done or chore.next_ns > chore.until_ns:
                over.append(chore)
        with self._guard:
            self._chores = [chore for chore in self._chores if chore not in over]
