"""A file held for a moment by flock(2), which the kernel frees when its holder dies."""

import errno
import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from locks.clock import NS_PER_S, now_ns
from locks.errors import LockUnavailable

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.000_2, 0.005
_MODE = 0o660

# Descriptors that other threads had open at a fork: the child closes its copies, lest a lock
# outlive a parent that dies just then.
_open_files: set[int] = set()


@contextmanager
def locked_file(path: Path, *, create: bool, patience_s: float) -> Iterator[int | None]:
    """The file's descriptor, locked; None if others kept it for patience_s, or it is not there.

    Whoever deletes such a file does it while holding it. So a lock on a file that is no longer
    the one at `path` is worth nothing, and is tried again. Raises LockUnavailable for a folder
    that cannot be used.
    """
    try:
        file = _lock(path, create, now_ns() + int(patience_s * NS_PER_S))
    except OSError as error:
        raise LockUnavailable(f"{path}: {os.strerror(error.errno or errno.EIO)}.") from error
    if file is None:
        yield None
        return
    try:
        yield file
    except OSError as error:
        raise LockUnavailable(f"{path}: {os.strerror(error.errno or errno.EIO)}.") from error
    finally:
        _unlock(file)


def _lock(path: Path, create: bool, until_ns: int) -> int | None:
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            file = os.open(path, flags, _MODE)
        except FileNotFoundError:
            if create:
                raise
            return None
        _open_files.add(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _unlock(file)
            if now_ns() >= until_ns:
                return None
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            continue
        except OSError:
            _unlock(file)
            raise
        if _is_at(file, path):
            return file
        _unlock(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _unlock(file: int) -> None:
    # Unlocked by word, not only by closing: a child forked meanwhile holds a copy.
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)
    _open_files.discard(file)
    os.close(file)


def _close_copies() -> None:
    for file in list(_open_files):
        with suppress(OSError):
            os.close(file)
    _open_files.clear()


os.register_at_fork(after_in_child=_close_copies)
