"""A circuit breaker: whoever does not answer is not asked for a while.

The counting and the states are those of `circuitbreaker` (it goes by the monotonic clock and holds
no lock across the call that it guards). What it leaves open is added here: it is not safe for
threads, and while half open it would let everybody through, though one question shows enough.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from circuitbreaker import STATE_CLOSED, STATE_OPEN, CircuitBreaker


class _Failed(Exception):
    """What the library counts."""


@dataclass(frozen=True)
class Turn:
    """Leave for one call. It counts only in the era of the circuit in which it was given."""

    era: int


class Circuit:
    """Opens after `failures` calls in a row that failed, and rests for `rest_s` seconds.

    Then one call is let through: it ends the rest, or begins another one. Calls that began in an
    earlier era (before it opened, or before it closed again) tell nothing new and are not counted.
    Thread-safe; its lock is held for microseconds, and never across a call.
    """

    def __init__(
        self, *, failures: int, rest_s: float, changed: Callable[[bool], None] | None = None
    ) -> None:
        """`changed` is told True when the circuit opens and False when it closes."""
        self._breaker = CircuitBreaker(
            failure_threshold=failures, recovery_timeout=rest_s, expected_exception=_Failed
        )
        self._changed = changed or (lambda _opened: None)
        self._lock = threading.Lock()
        self._era = 0
        self._probing = False

    @property
    def resting(self) -> bool:
        """Whether a call would be turned away now. Takes no turn."""
        with self._lock:
            return self._turns_away()

    def enter(self) -> Turn | None:
        """Leave for one call, or None while it rests. Every turn must be given back by `leave`."""
        with self._lock:
            if self._turns_away():
                return None
            self._probing = self._breaker.state != STATE_CLOSED
            return Turn(self._era)

    def leave(self, turn: Turn, *, failed: bool | None) -> None:
        """Say how the call went. None: it was not made, or tells nothing."""
        with self._lock:
            if turn.era != self._era:
                return
            was_open, self._probing = self._probing, False
            if failed is None:
                return
            with suppress(_Failed), self._breaker:
                if failed:
                    raise _Failed
            is_open = self._breaker.state != STATE_CLOSED
            if was_open or is_open:
                self._era += 1
        if was_open != is_open:
            self._changed(is_open)

    def _turns_away(self) -> bool:
        state = self._breaker.state
        return bool(state == STATE_OPEN) or (self._probing and state != STATE_CLOSED)
