"""A file guarded for a moment by flock(2), which the kernel frees when its holder dies."""

import errno
import fcntl
import os
import random
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO

from locks.clock import NS_PER_S, now_ns
from locks.errors import LockUnavailable

# Where every microsecond counts, a path is a string: pathlib takes some to join and to convert.
StrPath = str | os.PathLike[str]

# A guard is mostly kept for some tens of microseconds: so long we only let others run (a sleep
# takes at least as long as it), then we sleep.
YIELDING_NS = 200_000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.000_1, 0.005
_MODE = 0o660

_let_others_run: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))

# What other threads had open at a fork: the child closes its copies, lest a lock outlive a parent
# that dies just then.
_open_files: "weakref.WeakSet[FileIO]" = weakref.WeakSet()
_open_folders: set[int] = set()


@contextmanager
def locked_file(path: StrPath, *, create: bool, patience_s: float) -> Iterator[FileIO | None]:
    """What lock_file gives, for a with-block; its errors of the file are LockUnavailable too."""
    file = lock_file(path, create=create, patience_s=patience_s)
    try:
        yield file
    except OSError as error:
        raise unusable(path, error) from error
    finally:
        if file is not None:
            unlock_file(file)


def lock_file(path: StrPath, *, create: bool, patience_s: float) -> FileIO | None:
    """The file, locked; None if others kept it for patience_s, or it is not there.

    It is unlocked with the end of the object at the latest, so that an exception of a signal's
    handler, wherever it strikes, leaves no key locked.

    Whoever deletes or replaces such a file does it while holding it. So a lock on a file that is
    no longer the one at `path` is worth nothing, and is tried again. Raises LockUnavailable for a
    folder that cannot be used.
    """
    try:
        return _lock(path, create, now_ns() + int(patience_s * NS_PER_S))
    except OSError as error:
        raise unusable(path, error) from error


def unlock_file(file: FileIO) -> None:
    """Unlock and close it; once more does nothing."""
    try:
        if not file.closed:
            # Unlocked by word, not only by closing: a child forked meanwhile holds a copy.
            fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        pass
    finally:
        file.close()


def unusable(path: StrPath, error: OSError) -> LockUnavailable:
    """The error for a file that cannot be used."""
    return LockUnavailable(f"{path}: {os.strerror(error.errno or errno.EIO)}.")


@contextmanager
def locked_folder(folder: StrPath, *, shared: bool, patience_s: float) -> Iterator[bool]:
    """Gives whether the folder is locked: with others who share it, or alone.

    Raises OSError for a folder that cannot be opened.
    """
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _open_folders.add(file)
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        yield _wait_for(file, now_ns() + int(patience_s * NS_PER_S), kind)
    finally:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
        _open_folders.discard(file)
        os.close(file)


def free_early(file: int) -> None:
    """End the lock of a `locked_file` before its block ends; nothing may be written after this."""
    fcntl.flock(file, fcntl.LOCK_UN)


def flush_folder(folder: StrPath) -> None:
    """Put the names in a folder on the disk (fsync(2): a file's own fsync does not)."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _lock(path: StrPath, create: bool, until_ns: int) -> FileIO | None:
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    while True:
        try:
            file = FileIO(os.open(path, flags, _MODE), "r+b")
        except FileNotFoundError:
            if create:
                raise
            return None
        try:
            _open_files.add(file)
            if not _wait_for(file, until_ns):
                unlock_file(file)
                return None
            if _is_at(file, path):
                return file
        except BaseException:  # an error, or raised by a signal's handler
            unlock_file(file)
            raise
        unlock_file(file)


def _wait_for(file: int | FileIO, until_ns: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Take the lock; False if others kept it."""
    pause_s = _FIRST_PAUSE_S
    sleep_ns = 0
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            now = now_ns()
            sleep_ns = sleep_ns or now + YIELDING_NS
            if now >= until_ns:
                return False
            if now < sleep_ns:
                _let_others_run()
                continue
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        else:
            return True


def _is_at(file: FileIO, path: StrPath) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _close_copies() -> None:
    for file in list(_open_files):
        file.close()
    for folder in _open_folders:
        with suppress(OSError):
            os.close(folder)
    _open_folders.clear()


os.register_at_fork(after_in_child=_close_copies)
