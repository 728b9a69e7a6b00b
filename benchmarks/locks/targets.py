"""What was asked of our locks before they were built, and whether a run meets it."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.locks.book import Book
from benchmarks.locks.contenders import CROWD, CYCLE, IDLE, QUEUE


@dataclass(frozen=True)
class Target:
    """One figure and its bound."""

    text: str
    bound: float
    at_least: bool
    values: Callable[[Book], Sequence[float]]
    floor: Callable[[Book], Sequence[float]] | None = None
    """The same of the service's floor, where the bound is no ratio to it: it tells the machine's
    share."""

    def judge(self, book: Book) -> "Verdict":
        """By the median over the rounds."""
        return Verdict(
            self, _median(self.values(book)), _median(self.floor(book) if self.floor else ())
        )


@dataclass(frozen=True)
class Verdict:
    """A target and what came of it."""

    target: Target
    figure: float | None
    floor: float | None

    @property
    def word(self) -> str:
        """`met`, `NOT met` or `not measured`."""
        if self.figure is None:
            return "not measured"
        bound = self.target.bound
        is_met = self.figure >= bound if self.target.at_least else self.figure <= bound
        return "met" if is_met else "NOT met"


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _values(measure: str, contender: str, figure: str) -> Callable[[Book], Sequence[float]]:
    return lambda book: book.values(measure, contender, figure)


def _ratios(measure: str, figure: str, above: str, below: str) -> Callable[[Book], Sequence[float]]:
    return lambda book: book.ratios(measure, (above, figure), (below, figure))


_REDIS, _ZOOKEEPER = "ours-redis", "ours-zookeeper"
_REDIS_QUEUE = "floor-redis-queue"

TARGETS = (
    Target("Redis, alone: rate ÷ floor", 0.85, True, _values(CYCLE, _REDIS, "of_floor")),
    Target(
        "Redis, crowd: drain ÷ ideal",
        1.3,
        False,
        _values(CROWD, _REDIS, "drain"),
        _values(CROWD, _REDIS_QUEUE, "drain"),
    ),
    Target(
        "Redis, crowd: python-redis-lock's hand-over ÷ ours",
        1.3,
        True,
        _ratios(CROWD, "handover", "python-redis-lock", _REDIS),
    ),
    Target("Redis, crowd: Jain's fairness", 0.99, True, _values(CROWD, _REDIS, "jain")),
    Target(
        "Redis, 15 waiters: CPU, % of a core",
        0.05,
        False,
        _values(IDLE, _REDIS, "percent_of_core"),
        _values(IDLE, _REDIS_QUEUE, "percent_of_core"),
    ),
    Target("Redis, first waiter killed: ms", 5, False, _values(QUEUE, _REDIS, "killed")),
    Target("Redis, first waiter frozen: ms", 2_500, False, _values(QUEUE, _REDIS, "frozen")),
    Target("ZooKeeper, alone: rate ÷ floor", 0.85, True, _values(CYCLE, _ZOOKEEPER, "of_floor")),
    Target(
        "ZooKeeper, crowd: kazoo's drain ÷ ours",
        1.2,
        True,
        _ratios(CROWD, "drain", "kazoo", _ZOOKEEPER),
    ),
)


def verdicts(book: Book) -> list[Verdict]:
    """All targets."""
    return [target.judge(book) for target in TARGETS]
