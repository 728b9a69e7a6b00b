"""What the locks protect: a number for each key that takes a write only under a higher fence.

A SQLite file for each key, so that a writer that freezes within its write keeps up that key alone.
Every attempt is recorded in the same transaction, in the order in which the resource took them.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.faults.history.records import Attempt, now_ns

# Longer than any freeze: a writer waits for one that is frozen within its write.
BUSY_TIMEOUT_S = 60.0

_TABLES = """
CREATE TABLE IF NOT EXISTS highest (fence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    fence INTEGER NOT NULL,
    story TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    highest INTEGER NOT NULL
);
INSERT INTO highest SELECT 0 WHERE NOT EXISTS (SELECT * FROM highest);
"""


class Resource:
    """The resource of one key, as one thread sees it."""

    def __init__(self, folder: Path, key: str) -> None:
        self.key = key
        # A kill -9 loses nothing that the kernel was given; only a power failure would.
        self._base = sqlite3.connect(
            folder / f"{key}.db", timeout=BUSY_TIMEOUT_S, isolation_level=None
        )
        self._base.execute("PRAGMA synchronous = OFF")

    def highest(self) -> int:
        """The highest fence that was accepted; 0: none yet."""
        return int(self._base.execute("SELECT fence FROM highest").fetchone()[0])

    def write(self, fence: int, story: str) -> bool:
        """Try to write; gives whether it was accepted."""
        self._base.execute("BEGIN IMMEDIATE")
        highest = self.highest()
        accepted = fence > highest
        if accepted:
            self._base.execute("UPDATE highest SET fence = ?", (fence,))
        self._base.execute(
            "INSERT INTO attempts (fence, story, at_ns, accepted, highest) VALUES (?, ?, ?, ?, ?)",
            (fence, story, now_ns(), accepted, highest),
        )
        self._base.execute("COMMIT")
        return accepted

    def attempts(self) -> list[Attempt]:
        """All attempts, in order."""
        rows = self._base.execute(
            "SELECT fence, story, at_ns, accepted, highest FROM attempts ORDER BY place"
        )
        return [
            Attempt(self.key, fence, story, at_ns, bool(accepted), highest)
            for fence, story, at_ns, accepted, highest in rows
        ]

    def close(self) -> None:
        """Close the file."""
        self._base.close()


def make_resources(folder: Path, keys: Sequence[str]) -> None:
    """Make the files, before anybody uses them."""
    for key in keys:
        with closing(sqlite3.connect(folder / f"{key}.db", isolation_level=None)) as base:
            # Readers are never kept up by a writer.
            base.execute("PRAGMA journal_mode = WAL")
            base.executescript(_TABLES)


def all_attempts(folder: Path, keys: Sequence[str]) -> list[Attempt]:
    """What all keys' resources have recorded."""
    found: list[Attempt] = []
    for key in keys:
        with closing(Resource(folder, key)) as resource:
            found += resource.attempts()
    return found
