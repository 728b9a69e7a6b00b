"""Runs one history: workers under faults for a while, then peace, then the end.

Faults come from a shuffled bag that is filled again when it is empty, so that each kind comes up in
every run. A run goes on past its time, within bounds, until every kind has struck, a lease was
lost, and the resource refused a late writer: a history in which nothing went wrong proves nothing.
"""

import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.history.backends import make_backend
from tests.faults.history.checker import undisturbed
from tests.faults.history.crew import Crew, Lasting
from tests.faults.history.records import FREEZE_HOLDER, FREEZE_WRITER, FaultLog, History
from tests.faults.history.resource import all_attempts, make_resources
from tests.processes import ProcessFailed, wait_until

KEYS = ("a", "b", "c")
# The parts of a run in which workers alone are struck, and then also the way to the service. Only
# in the rest of it may a holder believe in a lease that the service has ended.
WORKERS_ALONE, NO_LOSSES = 0.3, 0.65
PAUSE_S = (0.1, 0.45)
POLL_S = 0.005
# How often a kind of fault is in the bag, if more than once.
COPIES = {FREEZE_HOLDER: 2, FREEZE_WRITER: 2}
# Beyond its time a run goes on so long at most, for what has not happened yet.
OVERTIME_S = 60.0
# Before the first fault and after the last, every thread is granted so many leases.
FIRST_GRANTS, LAST_GRANTS = 1, 3
TIDY_WITHIN_S = 60.0


@dataclass
class Run:
    """What is known of a run when it is over."""

    history: History
    left_behind: list[str]
    logs: str

    def counts(self) -> dict[str, int]:
        """What has happened, and how often."""
        outcomes = Counter(story.outcome or "cut short" for story in self.history.stories)
        return {
            **dict(sorted(outcomes.items())),
            "lost": sum(1 for story in self.history.stories if story.lost_ns),
            "written": sum(1 for attempt in self.history.attempts if attempt.accepted),
            "refused": sum(1 for attempt in self.history.attempts if not attempt.accepted),
            "raised": sum(1 for story in self.history.stories if story.floor),
            "undisturbed": sum(1 for _ in undisturbed(self.history)),
            **dict(sorted(Counter(fault.kind for fault in self.history.faults).items())),
        }


class Driver:
    """Harms the workers and the service, and sees what becomes of it."""

    def __init__(self, backend: str, folder: Path, seed: int) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._log = FaultLog(folder)
        made = make_backend(backend, self._log, self._random, KEYS, folder)
        self._backend = made
        self._crew = Crew(folder, self._log, seed, KEYS, made.lease_ms, made.freeze_s)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self, seconds: float) -> Run:
        """The whole of it. Raises ProcessFailed if a worker fails, hangs or is never served."""
        make_resources(self._folder, KEYS)
        with closing(self._log), self._backend:
            try:
                self._crew.start(self._backend.urls())
                self._crew.wait_for_grants(FIRST_GRANTS)
                self._storm(seconds)
                self._calm_down()
                self._crew.end()
            finally:
                self._crew.terminate()
            left_behind = self._left_behind()
        logs = "".join(path.read_text() for path in sorted(self._folder.glob("*.log")))
        return Run(self._history(), left_behind, logs)

    def _storm(self, seconds: float) -> None:
        start = time.monotonic()
        harm = self._crew.faults()
        self._strike(harm, lambda: time.monotonic() < start + seconds * WORKERS_ALONE)
        harm |= self._backend.hindrances()
        self._strike(harm, lambda: time.monotonic() < start + seconds * NO_LOSSES)
        harm |= self._backend.losses()
        end = start + seconds
        too_late = end + OVERTIME_S
        self._strike(
            harm,
            lambda: (
                time.monotonic() < end
                or (time.monotonic() < too_late and not self._log.counts.keys() >= harm.keys())
            ),
        )
        freezes = {kind: harm[kind] for kind in (FREEZE_HOLDER, FREEZE_WRITER)}
        self._strike(freezes, lambda: time.monotonic() < too_late and not self._has_teeth())

    def _strike(self, faults: dict[str, Callable[[], Lasting]], go_on: Callable[[], bool]) -> None:
        """Take one fault after the other, each kind once or more before any comes again."""
        kinds = [kind for kind in faults for _ in range(COPIES.get(kind, 1))]
        bag: list[str] = []
        while go_on():
            bag = bag or self._random.sample(kinds, len(kinds))
            lasting = faults[bag.pop()]()
            if lasting is not None:
                after_s, end = lasting
                heapq.heappush(self._due, (time.monotonic() + after_s, next(self._order), end))
            self._rest(self._random.uniform(*PAUSE_S))

    def _has_teeth(self) -> bool:
        """Whether a lease was lost and a late writer refused, without which a run proves little."""
        history = self._history()
        is_lost = any(story.lost_ns for story in history.stories)
        is_refused = any(not attempt.accepted for attempt in history.attempts)
        return is_refused and (is_lost or not self._backend.tells_losses)

    def _rest(self, seconds: float) -> None:
        """Let that much time go by, and end the faults whose time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()
            self._crew.check_alive()
            time.sleep(POLL_S)

    def _calm_down(self) -> None:
        """End every fault, and wait until all are served."""
        while self._due:
            heapq.heappop(self._due)[2]()
        # A dead holder is there when the clock is set back for the last time.
        self._crew.kill_holder()
        self._backend.heal()
        self._crew.wait_for_grants(LAST_GRANTS)

    def _left_behind(self) -> list[str]:
        """What is still there when every lease must have ended by itself."""
        self._backend.check_free()
        left: list[str] = []

        def is_tidy() -> bool:
            left[:] = self._backend.left_behind()
            return not left

        # Not asked once more afterwards: the last question's own connection may not be gone yet.
        with suppress(ProcessFailed):
            wait_until(is_tidy, "all is tidy", timeout_s=TIDY_WITHIN_S)
        return left

    def _history(self) -> History:
        return History.read(self._folder, all_attempts(self._folder, KEYS))
