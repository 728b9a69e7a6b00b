"""Stretches of time, and what of another stretch they cover."""

import bisect
from collections.abc import Iterable


class Intervals:
    """A set of closed intervals, joined where they meet."""

    def __init__(self, parts: Iterable[tuple[int, int]]) -> None:
        self._from: list[int] = []
        self._to: list[int] = []
        for start, end in sorted(parts):
            if self._to and start <= self._to[-1]:
                self._to[-1] = max(self._to[-1], end)
            else:
                self._from.append(start)
                self._to.append(end)

    def touch(self, start: int, end: int) -> bool:
        """Whether any of them has a moment in common with [start, end]."""
        place = bisect.bisect_left(self._to, start)
        return place < len(self._to) and self._from[place] <= end

    def covered(self, start: int, end: int) -> int:
        """How much of [start, end] they cover."""
        place = bisect.bisect_left(self._to, start)
        total = 0
        while place < len(self._to) and self._from[place] < end:
            total += min(end, self._to[place]) - max(start, self._from[place])
            place += 1
        return total

    def between(self, start: int, end: int) -> int | None:
        """Which of the gaps between them holds [start, end] whole, counted from 0; None if none."""
        if self.touch(start, end):
            return None
        return bisect.bisect_left(self._to, start)
