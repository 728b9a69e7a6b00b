"""What an operator sees of the file lock: who holds and who waits, read without any guard."""

import os
from pathlib import Path

from locks.clock import NS_PER_MS, now_ns
from locks.errors import LockUnavailable
from locks.inspection import HeldKey
from locks.on_files.flock import unusable
from locks.on_files.key_file import peek
from locks.on_files.record import LeaseRecord, Waiter
from locks.protocol import KEY_PATTERN


def list_held(folder: Path, limit: int) -> list[HeldKey]:
    """The keys of the folder `held`, in the order of their names. Raises LockUnavailable."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise unusable(folder, error) from error
    found: list[HeldKey] = []
    for name in names:
        if len(found) >= limit:
            break
        held = _look_at(folder / name) if KEY_PATTERN.fullmatch(name) else None
        if held is not None:
            found.append(held)
    return found


def shown(key: str, record: LeaseRecord | None, waiters: list[Waiter]) -> HeldKey | None:
    """A key's holder and waiters in words; None if it is free."""
    now = now_ns()
    if record is None or not record.is_live(now):
        return None
    left_ms = (record.end_ns - now) // NS_PER_MS
    names = tuple(f"{waiter.host} {waiter.pid}" for waiter in waiters)
    return HeldKey(key, f"{record.host} {record.pid}", record.fence, left_ms, names)


def _look_at(path: Path) -> HeldKey | None:
    try:
        return shown(path.name, *peek(path))
    except LockUnavailable as error:
        # It stands in this key's way, so it is shown; and the other keys are shown too.
        return HeldKey(path.name, error.detail, 0, None)
