"""What a stranger's notice may cost: at most one request at a time in a process, of all merchants.

Whose notice it is shows only once its signature is verified, and a serial that nobody knows may
have to be asked for first. The thread that asks may wait as long as any call; no other thread waits
for it: its notice is refused, and a true one comes again.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_turn = threading.Lock()


@contextmanager
def strangers_turn() -> Iterator[bool]:
    """Whether this thread may make a request now. Never waits."""
    turn = _turn
    ours = turn.acquire(blocking=False)
    try:
        yield ours
    finally:
        if ours:
            turn.release()


def _after_fork() -> None:
    """It might be held by a thread that is not here."""
    global _turn
    _turn = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
