"""Who a process is, so that another process of the same host can tell that it is gone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

UNKNOWN = "-"
# The line has 52 fields; nothing after the 22nd is asked for.
_STAT_BYTES = 4_096
# Descriptors of death_watch that are open now.
_watches: set[int] = set()


@cache
def boot_id() -> str:
    """Names this run of the host's kernel (Linux random(4)); UNKNOWN where there is none.

    Raises OSError where that cannot be told for the moment, as without a descriptor: to go on with
    UNKNOWN would be to take all that others hold for the leavings of another boot.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return UNKNOWN


@cache
def pid_namespace() -> str:
    """Names the set of processes in which our PIDs mean something (pid_namespaces(7))."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return UNKNOWN


def start_ticks(pid: int) -> str | None:
    """When the process started, in ticks since boot; None if it has ended, UNKNOWN if unknowable.

    Fields 3 (state) and 22 (starttime) of /proc/pid/stat (proc(5)). A zombie has ended: its
    threads are gone, though its parent has not asked for its status yet.
    """
    try:
        # Not by pathlib: this stands in the way of whoever waits.
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(file, _STAT_BYTES)
        finally:
            os.close(file)
        state, *rest = text.rpartition(b")")[2].split()
        return None if state in (b"Z", b"X", b"x") else rest[18].decode("ascii")
    except (OSError, ValueError, IndexError):
        return UNKNOWN if _answers_signals(pid) else None


def _answers_signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_gone(pid: int, namespace: str, started: str) -> bool:
    """Whether the process certainly does not run any more. Unknown counts as running."""
    if namespace != pid_namespace():
        return False
    now = start_ticks(pid)
    return now is None or (UNKNOWN not in (now, started) and now != started)


@contextmanager
def death_watch(pid: int, namespace: str) -> Iterator[int | None]:
    """A descriptor that can be read once the process has ended (pidfd_open(2), Linux 5.3).

    None where there is no such thing. It may be another process that was given the PID, or none:
    ask is_gone when it is open.
    """
    file = None
    if namespace == pid_namespace() and hasattr(os, "pidfd_open"):
        with suppress(OSError):
            file = os.pidfd_open(pid)
    if file is None:
        yield None
        return
    _watches.add(file)
    try:
        yield file
    finally:
        _watches.discard(file)
        os.close(file)


def _start_afresh() -> None:
    """In a forked child: it may be in another namespace, and the parent's watches are not its."""
    pid_namespace.cache_clear()
    for file in _watches:
        with suppress(OSError):
            os.close(file)
    _watches.clear()


os.register_at_fork(after_in_child=_start_afresh)
