"""Whoever hands a key to a waiter sees to it that the waiter has woken, or the next is served.

A frozen waiter says nothing, and those behind it sleep. So when the claim must be over the process
that released the key asks once: the script serves the next waiter if nobody has the key. If this
process dies meanwhile, those who wait find out by themselves, somewhat later: when the time of the
holder that they know of is out, or when they ask again anyhow (after fifteen seconds at most).
So too if it was an acquire that came upon a free key, as after its deletion, and served the first.
"""

import threading
from collections.abc import Callable, Iterable

from locks.clock import NS_PER_MS, now_ns
from locks.errors import LockUnavailable
from locks.on_redis.scripts import CLAIM_MS
from locks.renewal import NEVER_NS, Chore

# After the end of a claim by Redis's clock, it is gone.
SLACK_MS = 5
# After so long without a hand-over of ours, others hand on and watch; a lease may also be as short
# as a claim, and looks like one for as long as it lasts.
FOLLOWED_MS = 5 * CLAIM_MS


class ClaimWatch:
    """One look at a time for each key that this process handed over lately.

    What is due is looked at in one round trip to each server: while hundreds of keys are handed
    over to far away, leases must be renewed by the same thread.
    """

    def __init__(
        self,
        look_at: Callable[[list[str]], Iterable[tuple[int, int | LockUnavailable]]],
        add_chore: Callable[[Chore], None],
    ) -> None:
        """`look_at` gives the number of each key, and what WATCH answers, or why it did not."""
        self._look_at = look_at
        self._add_chore = add_chore
        self._guard = threading.RLock()
        self._next_ns: dict[str, int] = {}
        """When a key is looked at next."""
        self._ends_ns: dict[str, int] = {}
        """Until when a key is followed."""
        self._fresh: set[str] = set()
        """Keys that were handed over again since they were last looked at."""
        self._has_chore = False
        self._is_closed = False

    def handed_over(self, key: str) -> None:
        """We released this key, and a waiter was served."""
        now = now_ns()
        wait_ns = (CLAIM_MS + SLACK_MS) * NS_PER_MS
        chore = Chore(lambda: True, wait_ns, NEVER_NS, now + wait_ns, is_owed=False)
        chore.run = lambda: self._follow(chore)
        with self._guard:
            self._fresh.add(key)
            self._ends_ns[key] = now + FOLLOWED_MS * NS_PER_MS
            self._next_ns.setdefault(key, now + wait_ns)
            if self._has_chore:
                return  # No key that is followed is looked at later than this one.
            self._add_chore(chore)
            self._has_chore = True

    def close(self) -> None:
        """Look no more."""
        self._is_closed = True

    def _follow(self, chore: Chore) -> bool:
        """Gives whether there is nothing left to look after."""
        if self._is_closed:
            return True
        now = now_ns()
        with self._guard:
            due = [key for key, next_ns in self._next_ns.items() if next_ns <= now]
            self._fresh.difference_update(due)
        failure: LockUnavailable | None = None
        for number, reply in self._look_at(due):
            if isinstance(reply, LockUnavailable):
                failure, reply = reply, CLAIM_MS
            self._plan(due[number], reply)
        with self._guard:
            if not self._next_ns:
                self._has_chore = False
                return True
            chore.every_ns = max(0, min(self._next_ns.values()) - now_ns())
        if failure is not None:
            raise failure
        return False

    def _plan(self, key: str, left_ms: int) -> None:
        """When to look again, if at all. `left_ms` of an open claim are left, 0 if none is open."""
        now = now_ns()
        with self._guard:
            if key in self._fresh or (left_ms and now < self._ends_ns[key]):
                self._next_ns[key] = now + ((left_ms or CLAIM_MS) + SLACK_MS) * NS_PER_MS
            else:
                del self._next_ns[key], self._ends_ns[key]
