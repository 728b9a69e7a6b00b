"""The workers of a run: started, killed, frozen, and seen to be served again."""

import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from tests.faults.history.records import (
    FREEZE,
    FREEZE_HOLDER,
    FREEZE_WRITER,
    KILL,
    KILL_HOLDER,
    SUFFIX,
    FaultLog,
    last_kind,
    now_ns,
)
from tests.faults.history.worker import Plan
from tests.processes import ManagedProcess, wait_until

ROOT = Path(__file__).resolve().parents[3]
WORKERS, THREADS = 6, 2
FROZEN_AT_ONCE = 3
# For a worker to be seen where it is to be struck.
SEEN_WITHIN_S = 0.5
# The last line of one that holds a key, and of one between its look at the lease and its write.
HOLDING, WRITING = frozenset({"granted", "held"}), frozenset({"writing"})
PATIENCE_S = 60.0

# What ends a fault that lasts: after so many seconds, call this.
Lasting = tuple[float, Callable[[], None]] | None


class Crew:
    """So many workers; one that is killed is replaced."""

    def __init__(
        self,
        folder: Path,
        log: FaultLog,
        seed: int,
        keys: Sequence[str],
        lease_ms: tuple[int, int],
        freeze_s: tuple[float, float],
    ) -> None:
        self._folder = folder
        self._log = log
        self._seed = seed
        self._random = random.Random(seed)
        self._keys = keys
        self._lease_ms = lease_ms
        self._freeze_s = freeze_s
        self._urls: Sequence[str] = ()
        self._numbers = itertools.count(1)
        self._workers: dict[str, ManagedProcess] = {}
        self._frozen: dict[str, tuple[str, int]] = {}

    def start(self, urls: Sequence[str]) -> None:
        """Start all; they are spread over these ways to the service."""
        self._urls = urls
        for _ in range(WORKERS):
            self._start_one()

    def end(self) -> None:
        """Ask all to end and wait for it. Raises ProcessFailed if one hangs or has failed."""
        for worker in self._workers.values():
            worker.send(worker.stop_signal)
        for worker in self._workers.values():
            status = worker.wait(timeout_s=PATIENCE_S)
            assert status == 0, f"{worker.name} ended with {status}.\n{worker.log_tail()}"

    def terminate(self) -> None:
        """Make all end, however they are."""
        for worker in self._workers.values():
            worker.terminate()

    def check_alive(self) -> None:
        """Raise ProcessFailed if one has ended by itself."""
        for worker in self._workers.values():
            worker.check_alive()

    def faults(self) -> dict[str, Callable[[], Lasting]]:
        """What can be done to workers."""
        return {
            KILL: lambda: self._kill(KILL, self._random.choice(sorted(self._workers))),
            KILL_HOLDER: self.kill_holder,
            FREEZE: lambda: self._freeze(FREEZE, self._random.choice(self._awake())),
            FREEZE_HOLDER: lambda: self._freeze(FREEZE_HOLDER, self._seen(HOLDING)),
            FREEZE_WRITER: lambda: self._freeze(FREEZE_WRITER, self._seen(WRITING)),
        }

    def kill_holder(self) -> Lasting:
        """Kill one that holds a key, if one can be seen."""
        return self._kill(KILL_HOLDER, self._seen(HOLDING))

    def wait_for_grants(self, count: int) -> None:
        """Wait until every thread of every worker has been granted so many leases from now on."""
        began = {name: self._length(name) for name in self._workers}
        threads = {f"{name}.t{number}" for name in began for number in range(THREADS)}

        def all_served() -> bool:
            self.check_alive()
            served = Counter(thread for name in began for thread in self._served(name, began[name]))
            return all(served[thread] >= count for thread in threads)

        wait_until(all_served, f"each thread is granted {count} leases", timeout_s=PATIENCE_S)

    def _start_one(self) -> None:
        number = next(self._numbers)
        plan = Plan(
            name=f"w{number}",
            url=self._urls[number % len(self._urls)],
            folder=str(self._folder),
            keys=list(self._keys),
            threads=THREADS,
            lease_ms=self._lease_ms,
            seed=self._seed,
        )
        log = self._folder / f"{plan.name}.log"
        self._workers[plan.name] = ManagedProcess(
            plan.name, plan.command(), log=log, cwd=ROOT
        ).start()

    def _kill(self, kind: str, name: str | None) -> Lasting:
        if name is not None:
            began = now_ns()
            self._workers.pop(name).kill9()
            self._thaw(name)
            self._log.note(kind, began, process=name)
            self._start_one()
        return None

    def _freeze(self, kind: str, name: str | None) -> Lasting:
        if name is None or len(self._frozen) >= FROZEN_AT_ONCE:
            return None
        self._frozen[name] = kind, now_ns()
        self._workers[name].sigstop()
        return self._random.uniform(*self._freeze_s), lambda: self._thaw(name)

    def _thaw(self, name: str) -> None:
        """Let it go on; one that was killed meanwhile is written down as frozen till then."""
        if name in self._frozen:
            kind, since_ns = self._frozen.pop(name)
            if name in self._workers:
                self._workers[name].sigcont()
            self._log.note(kind, since_ns, process=name)

    def _awake(self) -> list[str]:
        return sorted(self._workers.keys() - self._frozen.keys())

    def _seen(self, kinds: Collection[str]) -> str | None:
        """One that has just written a line of these kinds, if that can be seen in time."""
        until = time.monotonic() + SEEN_WITHIN_S
        while time.monotonic() < until:
            for name in self._random.sample(awake := self._awake(), len(awake)):
                if last_kind(self._journal_of(name)) in kinds:
                    return name
        return None

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
            for text in file.read().split(b"\n")[:-1]:
                line = json.loads(text)
                if line["kind"] == "granted":
                    yield line["story"].rpartition(".")[0]

    def _journal_of(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"
