"""The folder in which all processes of one host add up what they count.

prometheus-client, told by PROMETHEUS_MULTIPROC_DIR, keeps each process's values in files of its
own, `<kind>_<pid>.db`, mapped into memory, and adds them all up when asked. The files of processes
that have ended must go on being counted, lest a sum fall, and would pile up: they are folded into
one, `<kind>_0.db` (no process has PID 0), whenever a process starts and whenever somebody asks.

The files are mapped into memory, and a process that writes to a mapped page for which the disk has
no room is killed (SIGBUS). So their room is taken when a process starts: its lack is an error then.

The processes must see each other's PIDs: one host, one container, or containers that share a PID
namespace.
"""

import fcntl
import os
import re
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from shop.metrics.instruments import REGISTRY

log = structlog.get_logger("payonce.metrics")

ENV = "PROMETHEUS_MULTIPROC_DIR"
FOLDED = 0
KINDS = ("counter", "histogram")
# How things stand with a process: over with it, and never folded.
OF_THE_LIVING = "gauge_livesum"
_FILE = re.compile(rf"({'|'.join([*KINDS, OF_THE_LIVING])})_(\d{{1,10}})\.db")
# More than all label values together take: about 4 kB for a route and status, twenty times that
# for all the rest.
ROOM_BYTES = 1_048_576
# What an entry takes beside its key, at most (prometheus_client.mmap_dict).
_ENTRY_BYTES = 32
# Folding takes milliseconds; whoever keeps the lock longer is stopped, and not waited for.
PATIENCE_S, POLL_S = 2.0, 0.01
# What a file that was cut off in the middle of being made gives when it is read.
_BROKEN = (struct.error, RuntimeError, ValueError)


def prepare(folder: Path) -> None:
    """Make the folder and fold what ended processes left. Raises OSError."""
    folder.mkdir(mode=0o770, parents=True, exist_ok=True)
    with _alone_in(folder, patience_s=0) as alone:
        if alone:
            _fold(folder)


def take_room(folder: Path) -> None:
    """Take the room of this process's files, before anything is counted. Raises OSError."""
    for kind in (*KINDS, OF_THE_LIVING):
        with (folder / f"{kind}_{os.getpid()}.db").open("ab") as file:
            file.write(bytes(max(0, ROOM_BYTES - file.tell())))


def exposition(folder: Path | None) -> bytes:
    """All metrics in Prometheus's text format; without a folder, of this process alone."""
    if folder is None:
        return generate_latest(REGISTRY)
    with _alone_in(folder, patience_s=PATIENCE_S) as alone:
        if alone:
            _fold(folder)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
        return generate_latest(registry)


@contextmanager
def _alone_in(folder: Path, *, patience_s: float) -> Iterator[bool]:
    """Keep others from folding or reading meanwhile; False where one of them would not end."""
    with (folder / "lock").open("a") as file:
        until = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    yield False
                    return
                time.sleep(POLL_S)
            else:
                yield True
                return


def _fold(folder: Path) -> None:
    """Add the files of processes that have ended to one file, and delete them."""
    ended: dict[str, list[Path]] = defaultdict(list)
    for path in folder.iterdir():
        named = _FILE.fullmatch(path.name)
        if named and int(named[2]) != FOLDED and not _runs(int(named[2])):
            ended[named[1]].append(path)
    for path in ended.pop(OF_THE_LIVING, []):
        path.unlink()
    for kind, paths in ended.items():
        target = folder / f"{kind}_{FOLDED}.db"
        sums: dict[str, float] = defaultdict(float)
        for path in [target, *paths]:
            for key, value in _values(path):
                sums[key] += value
        try:
            _write(target, sums)
        except OSError as error:  # no room: they are counted one by one until there is
            log.warning("metrics_not_folded", error=str(error))
            continue
        for path in paths:
            path.unlink()


def _values(path: Path) -> list[tuple[str, float]]:
    """What a file holds; nothing where it is missing or was cut off in the making."""
    try:
        found = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
        return [(key, value) for key, value, _, _ in found]
    except FileNotFoundError:
        return []
    except _BROKEN:
        log.warning("metrics_file_broken", file=path.name)
        return []


def _write(target: Path, sums: dict[str, float]) -> None:
    """Put these values in the place of the file's, whole or not at all."""
    draft = target.with_suffix(".draft")  # overwrites that of a process killed while it folded
    room = _ENTRY_BYTES + sum(len(key.encode()) + _ENTRY_BYTES for key in sums)
    draft.write_bytes(bytes(room))
    written = MmapedDict(str(draft))  # type: ignore[no-untyped-call]
    for key, value in sums.items():
        written.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]
    draft.replace(target)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True
