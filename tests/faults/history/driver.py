"""Runs one history: workers under faults for a while, then peace, then the end.

Faults come from a shuffled bag that is filled again when it is empty, so that each kind comes up in
every run. A run goes on past its time, within bounds, until every kind has struck, a lease was
lost, and the resource refused a late writer: a history in which nothing went wrong proves nothing.
"""

import heapq
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.history.backends import Lasting, make_backend
from tests.faults.history.checker import undisturbed
from tests.faults.history.records import (
    FREEZE,
    FREEZE_HOLDER,
    FREEZE_WRITER,
    KILL,
    SUFFIX,
    FaultLog,
    History,
    last_kind,
    now_ns,
)
from tests.faults.history.resource import all_attempts, make_resources
from tests.faults.history.worker import Plan
from tests.processes import ManagedProcess, ProcessFailed, wait_until

ROOT = Path(__file__).resolve().parents[3]
KEYS = ("a", "b", "c")
WORKERS, THREADS = 6, 2
PAUSE_S = (0.1, 0.5)
WORKERS_ALONE_SHARE = 0.3
POLL_S = 0.005
# How often a kind of fault is in the bag, if more than once.
COPIES = {KILL: 2, FREEZE_HOLDER: 2, FREEZE_WRITER: 2}
FROZEN_AT_ONCE = 3
# For a worker to be seen where it is to be struck.
SEEN_WITHIN_S = 0.5
# Beyond its time a run goes on so long at most, for what has not happened yet.
OVERTIME_S = 60.0
# Before the first fault and after the last, every thread is granted so many leases.
FIRST_GRANTS, LAST_GRANTS = 1, 3
PATIENCE_S = 60.0


@dataclass
class Run:
    """What is known of a run when it is over."""

    seed: int
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
    """Starts the workers, harms them and the service, and ends them."""

    def __init__(self, backend: str, folder: Path, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._random = random.Random(seed)
        self._log = FaultLog(folder)
        self._backend = make_backend(backend, self._log, self._random, KEYS, folder)
        self._workers: dict[str, ManagedProcess] = {}
        self._frozen: dict[str, tuple[str, int]] = {}
        self._numbers = itertools.count(1)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self, seconds: float) -> Run:
        """The whole of it. Raises ProcessFailed if a worker fails, hangs or is never served."""
        make_resources(self._folder, KEYS)
        with closing(self._log), self._backend:
            try:
                for _ in range(WORKERS):
                    self._start_worker()
                self._wait_for_grants(FIRST_GRANTS)
                self._storm(seconds)
                self._calm_down()
                self._end_workers()
            finally:
                for worker in self._workers.values():
                    worker.terminate()
            left_behind = self._left_behind()
        logs = "".join(path.read_text() for path in sorted(self._folder.glob("*.log")))
        return Run(self._seed, self._history(), left_behind, logs)

    # Workers

    def _start_worker(self) -> None:
        number, urls = next(self._numbers), self._backend.urls()
        name = f"w{number}"
        plan = Plan(
            name=name,
            url=urls[number % len(urls)],
            folder=str(self._folder),
            keys=list(KEYS),
            threads=THREADS,
            lease_ms=self._backend.lease_ms,
            seed=self._seed,
        )
        log = self._folder / f"{name}.log"
        worker = ManagedProcess(name, plan.command(), log=log, cwd=ROOT)
        self._workers[name] = worker.start()

    def _end_workers(self) -> None:
        for worker in self._workers.values():
            worker.send(worker.stop_signal)
        for worker in self._workers.values():
            status = worker.wait(timeout_s=PATIENCE_S)
            assert status == 0, f"{worker.name} ended with {status}.\n{worker.log_tail()}"

    # Faults

    def _storm(self, seconds: float) -> None:
        """First strike workers alone, then all; the waiters of the first part must not starve."""
        harm: dict[str, Callable[[], Lasting]] = {
            KILL: self._kill,
            FREEZE: lambda: self._freeze(FREEZE, self._random.choice(self._awake())),
            FREEZE_HOLDER: lambda: self._freeze_at(FREEZE_HOLDER, {"granted", "held"}),
            # Between its look at the lease and its write.
            FREEZE_WRITER: lambda: self._freeze_at(FREEZE_WRITER, {"writing"}),
        }
        start = time.monotonic()
        self._strike(harm, lambda: time.monotonic() < start + seconds * WORKERS_ALONE_SHARE)
        harm |= self._backend.faults()
        end = start + seconds
        self._strike(harm, lambda: time.monotonic() < end or self._is_missing(harm, end))

    def _strike(self, faults: dict[str, Callable[[], Lasting]], go_on: Callable[[], bool]) -> None:
        kinds = [kind for kind in faults for _ in range(COPIES.get(kind, 1))]
        bag: list[str] = []
        while go_on():
            bag = bag or self._random.sample(kinds, len(kinds))
            self._remember(faults[bag.pop()]())
            self._rest(self._random.uniform(*PAUSE_S))

    def _is_missing(self, kinds: Collection[str], end: float) -> bool:
        """Whether something has not happened yet without which the run would prove little."""
        if time.monotonic() > end + OVERTIME_S:
            return False
        if any(not self._log.counts[kind] for kind in kinds):
            return True
        history = self._history()
        is_lost = any(story.lost_ns for story in history.stories)
        is_refused = any(not attempt.accepted for attempt in history.attempts)
        return not (is_refused and (is_lost or not self._backend.tells_losses))

    def _kill(self) -> Lasting:
        name = self._random.choice(sorted(self._workers))
        began = now_ns()
        self._workers.pop(name).kill9()
        self._thaw(name)
        self._log.note(KILL, began, process=name)
        self._start_worker()
        return None

    def _freeze_at(self, fault: str, kinds: Collection[str]) -> Lasting:
        """Freeze one that has just noted one of these, if it can be seen."""
        until = time.monotonic() + SEEN_WITHIN_S
        while time.monotonic() < until:
            for name in self._random.sample(awake := self._awake(), len(awake)):
                if last_kind(self._journal_of(name)) in kinds:
                    return self._freeze(fault, name)
        return None

    def _freeze(self, kind: str, name: str) -> Lasting:
        if len(self._frozen) >= FROZEN_AT_ONCE:
            return None
        self._frozen[name] = kind, now_ns()
        self._workers[name].sigstop()
        return self._random.uniform(*self._backend.freeze_s), lambda: self._thaw(name)

    def _thaw(self, name: str) -> None:
        """Let it go on; one that was killed meanwhile is written down as frozen till then."""
        if name in self._frozen:
            kind, since_ns = self._frozen.pop(name)
            if name in self._workers:
                self._workers[name].sigcont()
            self._log.note(kind, since_ns, process=name)

    def _awake(self) -> list[str]:
        return sorted(self._workers.keys() - self._frozen.keys())

    def _rest(self, seconds: float) -> None:
        """Let that much time go by, and end the faults whose time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()
            self._check_alive()
            time.sleep(POLL_S)

    def _check_alive(self) -> None:
        for worker in self._workers.values():
            worker.check_alive()

    def _remember(self, lasting: Lasting) -> None:
        if lasting is not None:
            after_s, end = lasting
            heapq.heappush(self._due, (time.monotonic() + after_s, next(self._order), end))

    # The end

    def _calm_down(self) -> None:
        """End every fault, and wait until all are served."""
        while self._due:
            heapq.heappop(self._due)[2]()
        self._backend.heal()
        self._wait_for_grants(LAST_GRANTS)

    def _wait_for_grants(self, count: int) -> None:
        """Wait until every thread of every worker has been granted so many leases from now on."""
        began = {name: self._length(name) for name in self._workers}
        threads = {f"{name}.t{number}" for name in began for number in range(THREADS)}

        def all_served() -> bool:
            self._check_alive()
            served = Counter(thread for name in began for thread in self._served(name, began[name]))
            return all(served[thread] >= count for thread in threads)

        wait_until(all_served, f"each thread is granted {count} leases", timeout_s=PATIENCE_S)

    def _length(self, name: str) -> int:
        """How much this worker has written so far."""
        path = self._journal_of(name)
        return path.stat().st_size if path.exists() else 0

    def _served(self, name: str, since: int) -> Iterator[str]:
        """The thread of each grant that this worker has noted after so many bytes."""
        if self._length(name) == since:
            return
        with self._journal_of(name).open("rb") as file:
            file.seek(since)
            for text in file.read().splitlines():
                line = json.loads(text)
                if line["kind"] == "granted":
                    yield line["story"].rpartition(".")[0]

    def _left_behind(self) -> list[str]:
        """What is still there when every lease must have ended by itself."""
        self._backend.check_free()
        with suppress(ProcessFailed):
            wait_until(lambda: not self._backend.left_behind(), "all is tidy", timeout_s=PATIENCE_S)
        return self._backend.left_behind()

    def _history(self) -> History:
        return History.read(self._folder, all_attempts(self._folder, KEYS))

    def _journal_of(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"
