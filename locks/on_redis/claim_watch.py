"""Whoever hands a key to a waiter sees to it that the waiter has woken, or the next is served.

A frozen waiter says nothing, and those behind it sleep. So when the claim must be over the process
that released the key asks once: the script serves the next waiter if nobody has the key. If this
process dies meanwhile, those who wait find out by themselves, somewhat later.
"""

import threading
from collections.abc import Callable

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
    """One look at a time for each key that this process handed over lately."""

    def __init__(self, look: Callable[[str], int], add_chore: Callable[[Chore], None]) -> None:
        """`look` runs the script WATCH on a key; it may raise LockUnavailable."""
        self._look = look
        self._add_chore = add_chore
        self._guard = threading.Lock()
        self._ends_ns: dict[str, int] = {}
        """Until when a key is followed."""
        self._fresh: set[str] = set()
        """Keys that were handed over again since they were last looked at."""
        self._is_closed = False

    def handed_over(self, key: str) -> None:
        """We released this key, and a waiter was served."""
        now = now_ns()
        with self._guard:
            self._fresh.add(key)
            is_followed = key in self._ends_ns
            self._ends_ns[key] = now + FOLLOWED_MS * NS_PER_MS
        if not is_followed:
            wait_ns = (CLAIM_MS + SLACK_MS) * NS_PER_MS
            chore = Chore(lambda: True, wait_ns, NEVER_NS, now + wait_ns, is_owed=False)
            chore.run = lambda: self._follow(key, chore)
            self._add_chore(chore)

    def close(self) -> None:
        """Look no more."""
        self._is_closed = True

    def _follow(self, key: str, chore: Chore) -> bool:
        """Gives whether there is nothing left to look after."""
        if self._is_closed:
            return True
        with self._guard:
            self._fresh.discard(key)
        try:
            left_ms = self._look(key)
        except LockUnavailable:
            if not self._is_over(key, left_ms=CLAIM_MS):
                raise
            return True
        except Exception:
            with self._guard:
                del self._ends_ns[key]
            raise
        chore.every_ns = (left_ms or CLAIM_MS) * NS_PER_MS + SLACK_MS * NS_PER_MS
        return self._is_over(key, left_ms)

    def _is_over(self, key: str, left_ms: int) -> bool:
        with self._guard:
            if key in self._fresh or (left_ms and now_ns() < self._ends_ns[key]):
                return False
            del self._ends_ns[key]
            return True
