"""Fencing tokens of the file lock: a clock for all keys of a folder that never goes back.

A token is `base` plus the microseconds since the host started, by a clock that never steps
(locks.clock). The file keeps the base, which only grows: it is raised when the wall clock or the
resource's floor is ahead of it. So tokens are about the microseconds since 1970, as Redis's are,
and grow though the wall clock steps back. Two keys may get the same token at the same time; for
one key they differ, as its holders mint one after the other, under the key's guard.

To read the base takes no lock and no write, so a process that is frozen here stops nobody. It is
changed by putting a new file in place of the old one. The file also names a reserve that no token
of this boot passes before a higher one is on the disk: after a crash of the host, or when the
clock starts from nought with the next boot, tokens go on beyond it.
"""

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from locks.clock import now_ns
from locks.errors import LockUnavailable
from locks.on_files.flock import StrPath, flush_folder, locked_file
from locks.on_files.host import boot_id
from locks.protocol import MAX_FENCE

NS_PER_US = 1_000
# In tokens, which are microseconds. Half of it is used up before a new one is asked for, so this
# makes two flushes a minute while the lock is in use.
RESERVE_US = 60_000_000
# The wall clock may be ahead by this much before the base follows it.
SLACK_US = 1_000_000
# Tokens leap by up to this much beyond the floor when the file is found missing.
FORGOTTEN_US = 2**24
PATIENCE_S = 1.0
_LINE_BYTES = 96


@dataclass(frozen=True)
class FenceClock:
    """What the file says."""

    boot: str
    base: int
    reserved: int


def mint(path: StrPath, floor: int) -> int:
    """A token greater than every earlier one of the key, and than `floor`.

    Raises LockUnavailable for a file that cannot be used.
    """
    clock = _read(path)
    tick = _tick_us()
    if clock is None or not _serves(clock, tick, floor):
        clock = _advance(path, floor, PATIENCE_S)
        tick = _tick_us()
    elif _is_low(clock, tick):
        # There is time: a process that is stopped just there must not stop us.
        _advance(path, floor, 0)
    while _tick_us() == tick:
        pass  # The key's next token is minted later than this one: by a microsecond at least.
    return clock.base + tick


def _serves(clock: FenceClock, tick: int, floor: int) -> bool:
    fence = clock.base + tick
    return (
        clock.boot == boot_id()
        and floor < fence <= clock.reserved
        and _wall_us() - fence <= SLACK_US
    )


def _is_low(clock: FenceClock, tick: int) -> bool:
    return clock.base + tick + RESERVE_US // 2 > clock.reserved


def _advance(path: StrPath, floor: int, patience_s: float) -> FenceClock:
    """Raise base and reserve as needed, on the disk before anywhere else."""
    with locked_file(path, create=True, patience_s=patience_s) as file:
        if file is None:
            if patience_s:
                raise LockUnavailable(
                    f"The fence clock {path} is kept by a process that is stopped."
                )
            return FenceClock(boot_id(), 0, 0)  # nobody asks for it
        old = _parse(path, os.pread(file.fileno(), _LINE_BYTES, 0))
        tick = _tick_us()
        if old is not None and _serves(old, tick, floor) and not _is_low(old, tick):
            return old  # Another has done it meanwhile.
        if old is None:
            # Deleted, perhaps, under a wall clock that was set back: then the floor alone is known,
            # and another may have been given the token next to it.
            used = floor + 1 + secrets.randbelow(FORGOTTEN_US)
        else:
            used = old.base + tick if old.boot == boot_id() else old.reserved + 1
        lowest = max(_wall_us(), floor + 1, used)
        if lowest > MAX_FENCE:
            raise LockUnavailable(f"{path}: no greater token than {MAX_FENCE} can be given.")
        new = FenceClock(boot_id(), lowest - tick, min(lowest + RESERVE_US, MAX_FENCE))
        _replace(Path(path), new)
        return new


def _replace(path: Path, clock: FenceClock) -> None:
    """Whoever reads sees the old line or the new one, after a power failure too."""
    text = f"{clock.boot} {clock.base} {clock.reserved}\n"
    fresh = path.with_suffix(".new")
    file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o660)
    try:
        os.write(file, text.encode("ascii"))
        os.fsync(file)
    finally:
        os.close(file)
    fresh.rename(path)
    flush_folder(path.parent)


def _read(path: StrPath) -> FenceClock | None:
    try:
        # Without O_NONBLOCK a pipe in its place would keep us until somebody writes to it.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _parse(path, os.pread(file, _LINE_BYTES, 0))
        finally:
            os.close(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LockUnavailable(f"{path}: {error.strerror}.") from error


def _parse(path: StrPath, line: bytes) -> FenceClock | None:
    if not line:
        return None  # just made, and not yet written
    try:
        boot, base, reserved = line.decode("ascii").split()
        clock = FenceClock(boot, int(base), int(reserved))
        # The base lies below the tokens, as little as the host has been running above nought.
        if not (abs(clock.base) <= MAX_FENCE and 0 < clock.reserved <= MAX_FENCE):
            raise ValueError("no token is so great")
        return clock
    except ValueError:
        raise LockUnavailable(
            f"The fence clock {path} is damaged. Delete it while no process uses the folder: "
            "tokens then go on from the wall clock."
        ) from None


def _tick_us() -> int:
    return now_ns() // NS_PER_US


def _wall_us() -> int:
    return time.time_ns() // NS_PER_US
