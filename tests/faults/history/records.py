"""What a run writes down: JSON lines, a file for each process, all times by one clock.

A worker writes, for each `story` (one call of acquire and what came of it):

    ask          before acquire: key, wait_ms, floor
    granted      after it: fence              or: timeout, unavailable
    held         a look at the lease, which said that it stands; `at` is before the look
    writing      the same, right before a write to the resource is begun
    lost         a look at the lease, which said that it is lost: nothing is written
    released     after release

and at its end `end`: what it has left behind. The driver writes `fault`: see Fault.
Times are nanoseconds of CLOCK_MONOTONIC, which all processes of one boot share.
"""

import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

DRIVER = "driver"
SUFFIX = ".jsonl"
# What the driver does to one worker; every other kind concerns the service or the way to it.
KILL, KILL_HOLDER = "kill", "kill a holder"
FREEZE, FREEZE_HOLDER, FREEZE_WRITER = "freeze", "freeze a holder", "freeze a writer"
KILLS = frozenset({KILL, KILL_HOLDER})
FREEZES = frozenset({FREEZE, FREEZE_HOLDER, FREEZE_WRITER})
TAIL_BYTES = 512


def now_ns() -> int:
    """The time that all records carry."""
    return time.monotonic_ns()


class Journal:
    """One process's file. A line is one write, so that threads do not mix theirs."""

    def __init__(self, folder: Path, process: str) -> None:
        self._file = os.open(
            folder / f"{process}{SUFFIX}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        )

    def note(self, kind: str, at: int | None = None, **fields: Any) -> None:
        """Write one line, by default with the present time."""
        line = {"kind": kind, "at": now_ns() if at is None else at, **fields}
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n")

    def close(self) -> None:
        """No more lines."""
        os.close(self._file)


class FaultLog:
    """The driver's journal."""

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder, DRIVER)
        self.counts: Counter[str] = Counter()

    def note(
        self,
        kind: str,
        from_ns: int,
        *,
        process: str = "",
        key: str = "",
        forgets: bool = False,
        ends_leases: bool = False,
    ) -> None:
        """A fault is over now (see Fault)."""
        self._journal.note(
            "fault",
            fault=kind,
            from_ns=from_ns,
            to_ns=now_ns(),
            process=process,
            key=key,
            forgets=forgets,
            ends_leases=ends_leases,
        )
        self.counts[kind] += 1

    def close(self) -> None:
        """No more faults."""
        self._journal.close()


def last_kind(path: Path) -> str:
    """The kind of the last line, without reading the whole file; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return ""
    try:
        return str(json.loads(lines[-1])["kind"]) if lines else ""
    except ValueError:
        return ""


@dataclass
class Story:
    """One call of acquire and what came of it."""

    name: str
    process: str
    thread: str
    key: str
    asked_ns: int
    wait_ms: int
    floor: int = 0
    outcome: str = ""
    """granted, timeout or unavailable; empty if the process died or hung."""
    ended_ns: int = 0
    """When acquire returned or raised."""
    fence: int = 0
    believed_ns: int = 0
    """The last instant from which on it was told that the lease stands; 0: never."""
    writing_ns: int = 0
    """The same, right before its write; 0: it wrote nothing."""
    lost_ns: int = 0
    """When it was told that the lease is lost; 0: never."""


@dataclass(frozen=True)
class Attempt:
    """One write that reached the resource, in the resource's order."""

    key: str
    fence: int
    story: str
    at_ns: int
    accepted: bool
    highest: int
    """The highest fence that the resource had accepted before."""


@dataclass(frozen=True)
class Fault:
    """What the driver did, from before it began until after it was over."""

    kind: str
    from_ns: int
    to_ns: int
    process: str = ""
    """The worker that it struck; empty for the service and the way to it."""
    key: str = ""
    """The key that it struck; empty for all."""
    forgets: bool = False
    """The service came back empty and its clock shows a time that it has shown before."""
    ends_leases: bool = False
    """The service forgot its leases, or its clock jumped over their ends: holders learn late."""


@dataclass
class History:
    """All that was written down in a run."""

    stories: list[Story] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    ends: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """By process that came to its end: what it has left, by kind of thing."""

    @classmethod
    def read(cls, folder: Path, attempts: list[Attempt]) -> Self:
        """The journals of a folder, and what the resource has recorded."""
        history = cls(attempts=attempts)
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            history._read_process(path.stem, path)
        return history

    def granted(self) -> list[Story]:
        """The stories that came to hold the key."""
        return [story for story in self.stories if story.outcome == "granted"]

    def _read_process(self, process: str, path: Path) -> None:
        mine: dict[str, Story] = {}
        # What follows the last line's end was torn off by a kill.
        for text in path.read_text("ascii").split("\n")[:-1]:
            line = json.loads(text)
            kind = line["kind"]
            if kind == "fault":
                self.faults.append(_fault(line))
            elif kind == "end":
                self.ends[process] = line["left"]
            elif kind == "ask":
                mine[line["story"]] = _story(process, line)
            else:
                _carry_on(mine[line["story"]], kind, line)
        self.stories += mine.values()


def _fault(line: dict[str, Any]) -> Fault:
    names = ("from_ns", "to_ns", "process", "key", "forgets", "ends_leases")
    return Fault(kind=line["fault"], **{name: line[name] for name in names})


def _story(process: str, line: dict[str, Any]) -> Story:
    names = ("thread", "key", "wait_ms", "floor")
    told = {name: line[name] for name in names}
    return Story(name=line["story"], process=process, asked_ns=line["at"], **told)


def _carry_on(story: Story, kind: str, line: dict[str, Any]) -> None:
    at = line["at"]
    if kind in ("granted", "timeout", "unavailable"):
        story.outcome, story.ended_ns = kind, at
        story.fence = line.get("fence", 0)
    elif kind in ("held", "writing"):
        story.believed_ns = max(story.believed_ns, at)
        if kind == "writing":
            story.writing_ns = at
    elif kind == "lost":
        story.lost_ns = at
