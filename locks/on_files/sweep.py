"""What dead processes left in a file lock's folder, removed little by little."""

import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

from locks.clock import NS_PER_S, now_ns
from locks.errors import LockUnavailable
from locks.on_files.bell import sweep
from locks.on_files.key_file import OpenedKey, peek

# A process that runs for long looks through the folder this often, so many files per acquire: more
# than one acquire can leave behind, so that the folder does not grow.
EVERY_S = 60
STEP = 4


class Sweep:
    """The sweeping of one process. Any process may sweep for all, several at a time."""

    def __init__(self, held: Path, waiting: Path, every_s: float = EVERY_S) -> None:
        self._held = held
        self._waiting = waiting
        self._every_ns = int(every_s * NS_PER_S)
        self._guard = threading.RLock()
        self._due: deque[Path] = deque()
        self._next_ns = 0

    def whole(self) -> None:
        """Look through the whole folder. Raises OSError if it cannot be read."""
        self._list()
        self._work_off(len(self._due))

    def step(self) -> None:
        """Look at a few files, if it is time. Raises OSError if the folder cannot be read."""
        if not self._due:
            if now_ns() < self._next_ns:
                return
            self._list()
        self._work_off(STEP)

    def _list(self) -> None:
        with self._guard:
            self._next_ns = now_ns() + self._every_ns
            self._due = deque(
                folder / name
                for folder in (self._held, self._waiting)
                for name in sorted(os.listdir(folder))
            )

    def _work_off(self, number: int) -> None:
        for _ in range(number):
            try:
                path = self._due.popleft()
            except IndexError:
                return
            with suppress(LockUnavailable, OSError):
                if path.parent == self._waiting:
                    sweep(path)
                else:
                    self._judge(path)

    def _judge(self, path: Path) -> None:
        record, _ = peek(path)
        if record is not None and record.is_live(now_ns()):
            return
        with OpenedKey(path, self._waiting, create=False, patience_s=0) as key:
            if key is not None and not key.is_held():
                key.give_up()
