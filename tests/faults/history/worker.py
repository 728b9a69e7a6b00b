"""A process whose threads take leases on few keys and write under their fences, until SIGTERM.

`python -m tests.faults.history.worker '{"name": …}'`, the arguments of `Plan` as JSON. Whatever an
acquire raises but LockTimeout and LockUnavailable ends the process with a status of 1.
"""

import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from locks import Lease, LeaseLock, LeaseLost, LockTimeout, LockUnavailable, from_url
from tests.faults.history.records import Journal, now_ns
from tests.faults.history.resource import Resource
from tests.faults.history.weak_lock import SCHEME, WeakLock

# Most holds are short. A long one outlives its lease, so that it needs renewals.
HOLD_MS, LONG_HOLD_LEASES, LONG_HOLD_SHARE = (1, 25), 1.5, 0.02
LOOK_EVERY_S = 0.03
# Between the last look at the lease and the write: the outside call that takes its time.
LINGER_MS, LONG_LINGER_MS, LONG_LINGER_SHARE = (0, 2), (40, 150), 0.2
WAITS_MS, WAIT_SHARES = (0, 150, 1_000, 5_000), (0.05, 0.2, 0.35, 0.4)
WRITES_SHARE = 0.9
PAUSE_MS = (0, 25)
# A service that does not answer is asked again after this.
UNAVAILABLE_PAUSE_S = 0.05
JOIN_POLL_S = 0.1


@dataclass(frozen=True)
class Plan:
    """What one worker is to do."""

    name: str
    url: str
    folder: str
    keys: list[str]
    threads: int
    lease_ms: tuple[int, int]
    seed: int

    def command(self) -> list[str]:
        """How to start it."""
        return [sys.executable, "-m", __name__, json.dumps(asdict(self))]


class Worker:
    """The process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._folder = Path(plan.folder)
        self._journal = Journal(self._folder, plan.name)
        self._stopping = threading.Event()
        self._failed = threading.Event()

    def run(self) -> int:
        """Work until SIGTERM; gives the exit status."""
        signal.signal(signal.SIGTERM, self._stop)
        files = _open_files()
        lock = WeakLock(self._plan.url) if self._plan.url.startswith(SCHEME) else None
        with closing(lock or from_url(self._plan.url)) as service:
            threads = [
                threading.Thread(target=self._work, args=(service, f"t{number}"))
                for number in range(self._plan.threads)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(JOIN_POLL_S)
        left = {
            "threads": [each.name for each in threading.enumerate()][1:],
            "files": [name for file, name in _open_files().items() if file not in files],
        }
        self._journal.note("end", left=left)
        return int(self._failed.is_set())

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()

    def _work(self, lock: LeaseLock, thread: str) -> None:
        try:
            _Thread(self._plan, lock, thread, self._journal, self._stopping).work()
        except Exception:  # noqa: BLE001 - whatever it is, the run must hear of it
            traceback.print_exc()
            self._failed.set()
            self._stopping.set()


class _Thread:
    """One thread of it: one lease at a time."""

    def __init__(
        self, plan: Plan, lock: LeaseLock, name: str, journal: Journal, stopping: threading.Event
    ) -> None:
        self._plan = plan
        self._lock = lock
        self._name = name
        self._journal = journal
        self._stopping = stopping
        self._random = random.Random(f"{plan.seed} {plan.name} {name}")
        self._stories = 0

    def work(self) -> None:
        """Take one key after the other."""
        folder = Path(self._plan.folder)
        resources = [Resource(folder, key) for key in self._plan.keys]
        try:
            while not self._stopping.is_set():
                self._turn(self._random.choice(resources))
                self._pause(PAUSE_MS)
        finally:
            for resource in resources:
                resource.close()

    def _turn(self, resource: Resource) -> None:
        # Read before asking: whoever asks now must get a higher one.
        floor = resource.highest()
        story, lease = self._ask(resource.key, 0)
        if lease is not None and lease.fence <= floor:
            # The service has forgotten; as the shop does, tell it what the resource has seen.
            self._release(story, lease)
            story, lease = self._ask(resource.key, floor)
        if lease is None:
            return
        try:
            if self._hold(story, lease) and self._random.random() < WRITES_SHARE:
                self._write(story, lease, resource)
        finally:
            self._release(story, lease)

    def _ask(self, key: str, floor: int) -> tuple[str, Lease | None]:
        self._stories += 1
        story = f"{self._plan.name}.{self._name}.{self._stories}"
        lease_ms = self._random.randint(*self._plan.lease_ms)
        wait_ms = self._random.choices(WAITS_MS, WAIT_SHARES)[0]
        self._journal.note(
            "ask", story=story, thread=self._name, key=key, wait_ms=wait_ms, floor=floor
        )
        try:
            lease = self._lock.acquire(key, lease_ms=lease_ms, wait_ms=wait_ms, fence_floor=floor)
        except LockTimeout:
            self._journal.note("timeout", story=story)
            return story, None
        except LockUnavailable:
            self._journal.note("unavailable", story=story)
            time.sleep(UNAVAILABLE_PAUSE_S)
            return story, None
        self._journal.note("granted", story=story, fence=lease.fence)
        return story, lease

    def _hold(self, story: str, lease: Lease) -> bool:
        """Keep it for a while; gives whether it was there to the end."""
        hold_s = self._random.randint(*HOLD_MS) / 1_000
        if self._random.random() < LONG_HOLD_SHARE:
            hold_s = self._plan.lease_ms[1] / 1_000 * LONG_HOLD_LEASES
        until = time.monotonic() + hold_s
        while (left_s := until - time.monotonic()) > 0:
            if not self._look(story, lease, "held"):
                return False
            time.sleep(min(left_s, LOOK_EVERY_S))
        return True

    def _look(self, story: str, lease: Lease, kind: str) -> bool:
        """Whether the lease stands, by both ways to ask."""
        at = now_ns()
        try:
            lease.ensure_held()
            stands = not lease.lost.is_set()
        except LeaseLost:
            stands = False
        # A connection that is broken is a doubt, and may be mended; a loss is for good.
        if stands:
            self._journal.note(kind, at, story=story)
        elif lease.lost.is_set():
            self._journal.note("lost", at, story=story)
        return stands

    def _write(self, story: str, lease: Lease, resource: Resource) -> None:
        if self._look(story, lease, "writing"):
            is_long = self._random.random() < LONG_LINGER_SHARE
            self._pause(LONG_LINGER_MS if is_long else LINGER_MS)
            resource.write(lease.fence, story)

    def _release(self, story: str, lease: Lease) -> None:
        lease.release()
        self._journal.note("released", story=story)

    def _pause(self, milliseconds: tuple[int, int]) -> None:
        time.sleep(self._random.uniform(*milliseconds) / 1_000)


def _open_files() -> dict[str, str]:
    """The process's open files, by number."""
    found = {}
    for link in Path("/proc/self/fd").iterdir():
        try:
            found[link.name] = os.readlink(link)
        except FileNotFoundError:
            continue  # the listing's own
    return found


if __name__ == "__main__":
    sys.exit(Worker(Plan(**json.loads(sys.argv[1]))).run())
