"""How often a password may be guessed: per login, and how many guesses are hashed at once.

Kept in the memory of each process, so that a guess costs no row: with n processes a login has n
times the tries, still far too few to guess a password by. Checking a password is slow on purpose;
without a bound on how many are checked at once, guesses would take the processor from the shop.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager

from shop.members.errors import TooManySignIns

WRONG_MAX = 10
WRONG_WITHIN_S = 300
# Of so many logins the wrong guesses are remembered; the longest untouched is forgotten first.
LOGINS_MAX = 10_000
CHECKS_AT_ONCE = 2
CHECK_WAIT_S = 1.0


class SignInThrottle:
    """Counts wrong passwords. Thread-safe."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()
        self._guard = threading.Lock()
        self._checks = threading.BoundedSemaphore(CHECKS_AT_ONCE)

    @contextmanager
    def one_check(self, login: str) -> Iterator[None]:
        """For the length of one check of a password. Raises TooManySignIns where this login had
        too many wrong ones, or where too many are being checked."""
        if self._count(login) >= WRONG_MAX or not self._checks.acquire(timeout=CHECK_WAIT_S):
            raise TooManySignIns()
        try:
            yield
        finally:
            self._checks.release()

    def wrong(self, login: str) -> None:
        """The password was wrong."""
        with self._guard:
            self._wrong.setdefault(login, deque(maxlen=WRONG_MAX)).append(time.monotonic())
            self._wrong.move_to_end(login)
            while len(self._wrong) > LOGINS_MAX:
                self._wrong.popitem(last=False)

    def right(self, login: str) -> None:
        """The password was right: what was wrong before is forgotten."""
        with self._guard:
            self._wrong.pop(login, None)

    def _count(self, login: str) -> int:
        since = time.monotonic() - WRONG_WITHIN_S
        with self._guard:
            return sum(at >= since for at in self._wrong.get(login, ()))
