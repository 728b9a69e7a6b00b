"""What is computed from what was measured. All times in nanoseconds by the host's one clock."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


class TwoHolders(RuntimeError):
    """Two held one key at once: whatever was measured, it was not a lock."""


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds of a run: the median, with the lowest and the highest."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError if there are no values."""
    if not values:
        raise ValueError("there is nothing to take a median of")
    return Spread(statistics.median(values), min(values), max(values), len(values))


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index (Jain, Chiu, Hawe 1984): (Σx)² ÷ (n Σx²).

    1 when all have the same, 1/n when one has everything. Raises ValueError if nobody has anything.
    """
    squares = sum(share * share for share in shares)
    if not squares:
        raise ValueError("nobody got anything, so nothing was shared")
    return sum(shares) ** 2 / (len(shares) * squares)


@dataclass(frozen=True)
class Turn:
    """One cycle of one thread: when it asked, held, began to give back, and had given back."""

    who: int
    """Names the thread."""
    asked_ns: int
    held_ns: int
    giving_ns: int
    given_ns: int

    @property
    def hold_ns(self) -> int:
        """How long the key was really held: a sleep of 1 ms takes a little more."""
        return self.giving_ns - self.held_ns


@dataclass(frozen=True)
class Crowd:
    """What many contenders for one key did."""

    drain: float
    """Time from the first request to the end of the last hold, ÷ the sum of the holds."""
    handover: float | None
    """Mean time from a holder's beginning to give back to another's holding, ÷ mean hold.

    Who takes the key again himself hands nothing over. None if nobody ever did."""
    longest_wait_ns: int
    turns: int


def crowd(turns: Sequence[Turn]) -> Crowd:
    """Raises TwoHolders where holds overlap, and ValueError for fewer than two turns."""
    if len(turns) < 2:
        raise ValueError("one turn has no hand-over")
    ordered = sorted(turns, key=lambda turn: turn.held_ns)
    handovers = []
    for before, after in pairwise(ordered):
        if after.held_ns < before.giving_ns:
            raise TwoHolders(f"{before} and {after} overlap")
        if after.who != before.who:
            handovers.append(after.held_ns - before.giving_ns)
    holds_ns = sum(turn.hold_ns for turn in turns)
    took_ns = ordered[-1].giving_ns - min(turn.asked_ns for turn in turns)
    return Crowd(
        drain=took_ns / holds_ns,
        handover=statistics.mean(handovers) * len(turns) / holds_ns if handovers else None,
        longest_wait_ns=max(turn.held_ns - turn.asked_ns for turn in turns),
        turns=len(turns),
    )
