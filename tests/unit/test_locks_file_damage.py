"""A file of the file lock's folder that is not what it should be harms its own key at most."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from locks import LockUnavailable, from_url
from locks.clock import NS_PER_S, now_ns
from locks.names import host_name
from locks.on_files.key_file import OpenedKey, peek
from locks.on_files.record import (
    MAX_TICKET,
    RECORD_BYTES,
    SLOTS,
    WAITER_BYTES,
    my_record,
    my_waiter,
    read_record,
    read_waiter,
    write_record,
)
from tests.processes import wait_until

WRONG_IN_A_RECORD: list[dict[str, Any]] = [
    {"token": 7},
    {"token": None},
    {"fence": "1"},
    {"fence": 1.5},
    {"fence": -1},
    {"end_ns": "soon"},
    {"end_ns": True},
    {"end_ns": 10**30},
    {"boot": ["x"]},
    {"pid": "1"},
    {"pid": 0},
    {"pid": -1},
    {"pid": 2**31},
    {"pid_ns": 1},
    {"started": 1},
    {"host": {}},
    {"first": -1},
    {"first": 2, "after": 1},
    {"first": 0, "after": SLOTS + 1},
    {"first": 0, "after": 10**18},
    {"freed_ns": "then"},
    {"another": 1},
]
WRONG_IN_A_WAITER: list[dict[str, Any]] = [
    {"token": 7},
    {"bell": 7},
    {"bell": ""},
    {"bell": "../fence"},
    {"bell": "a\0b"},
    {"pid": "1"},
    {"pid": 2**31},
    {"pid_ns": None},
    {"started": 1},
    {"host": 1},
]


def _good_record() -> dict[str, Any]:
    return dict(my_record("token", 5, now_ns() + 60 * NS_PER_S).__dict__)


def _block(fields: dict[str, Any], size: int) -> str:
    return json.dumps(fields, separators=(",", ":")).ljust(size - 1) + "\n"


@pytest.mark.parametrize("wrong", WRONG_IN_A_RECORD, ids=str)
def test_a_record_of_wrong_types_or_ranges_says_nothing(
    wrong: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "key"
    path.write_text(_block(_good_record() | wrong, RECORD_BYTES))
    with path.open("rb") as file:
        assert read_record(file.fileno()) is None


def test_a_record_of_the_greatest_numbers_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    record = replace(
        my_record("token", 2**53, 2**63 - 1),
        first=MAX_TICKET - SLOTS,
        after=MAX_TICKET,
        freed_ns=2**62,
    )
    path.write_text(_block(record.__dict__, RECORD_BYTES))
    with path.open("rb") as file:
        assert read_record(file.fileno()) == record


def test_a_queue_at_the_last_ticket_takes_nobody_and_keeps_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "key"
    first = MAX_TICKET - 1
    record = replace(my_record("token", 1, 2**62), first=first, after=MAX_TICKET)
    path.write_text(_block(record.__dict__, RECORD_BYTES))
    with OpenedKey(path, tmp_path, create=False, patience_s=1) as key:
        assert key is not None
        assert key.enter(my_waiter("waiter", "bell")) is None
    with path.open("rb") as file:
        assert read_record(file.fileno()) == record


def test_a_record_that_would_not_fit_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch()
    whole = my_record("token", 1, 2**62)
    with path.open("r+b") as file:
        write_record(file.fileno(), whole)
        with pytest.raises(OSError, match="does not fit"):
            write_record(file.fileno(), replace(whole, host="h" * RECORD_BYTES))
        assert read_record(file.fileno()) == whole


@pytest.mark.parametrize("name", ["\udce4" * 63, "ü" * 63, "", "a b", "x" * 300])
def test_a_host_of_any_name_fits_its_block(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: name)
    host_name.cache_clear()
    try:
        told = host_name()
    finally:
        host_name.cache_clear()
    assert told.isascii()
    assert 0 < len(told) <= 63
    path = tmp_path / "key"
    path.touch()
    greatest = replace(my_record("t" * 64, 2**53, 2**63 - 1, 0, 1), host=told)
    with path.open("r+b") as file:
        write_record(file.fileno(), greatest)
        assert read_record(file.fileno()) == greatest


@pytest.mark.parametrize("text", ["[1]", "{", "\0" * 512, "[" * 512, "nonsense", "{}", "null"])
def test_a_block_that_is_no_record_says_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    with path.open("rb") as file:
        assert read_record(file.fileno()) is None


@pytest.mark.parametrize("wrong", WRONG_IN_A_WAITER, ids=str)
def test_a_waiter_of_wrong_types_or_ranges_counts_as_gone(
    wrong: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "key"
    fields = my_waiter("w0", "bell").__dict__ | wrong
    path.write_text(
        _block(_good_record() | {"after": 1}, RECORD_BYTES) + _block(fields, WAITER_BYTES)
    )
    with path.open("rb") as file:
        assert read_waiter(file.fileno(), 0) is None
    record, waiters = peek(path)
    assert record is not None
    assert waiters == []


def _string_for_a_number(path: Path) -> None:
    path.write_text(_block(_good_record() | {"end_ns": "soon"}, RECORD_BYTES))


def _endless_queue(path: Path) -> None:
    fields = _good_record() | {"started": "1", "after": 10**18}
    path.write_text(_block(fields, RECORD_BYTES))


def _pid_beyond_all(path: Path) -> None:
    path.write_text(_block(_good_record() | {"pid": 10**20}, RECORD_BYTES))


def _loop(path: Path) -> None:
    path.symlink_to(path)


DAMAGE: list[Callable[[Path], None]] = [
    _string_for_a_number,
    _endless_queue,
    _pid_beyond_all,
    _loop,
    Path.mkdir,
    os.mkfifo,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_one_damaged_file_stops_no_other_key(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "held").mkdir()
    damage(tmp_path / "held" / "BAD")
    lock = from_url(f"file://{tmp_path}")
    lease = lock.acquire("GOOD", lease_ms=60_000, wait_ms=0)
    shown = {held.key: held.fence for held in lock.held()}
    assert shown["GOOD"] == lease.fence
    lease.release()
    lock.close()


@pytest.mark.parametrize("damage", DAMAGE[:3], ids=lambda damage: damage.__name__)
def test_a_key_whose_record_is_damaged_can_be_taken(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    lock = from_url(f"file://{tmp_path}")
    lock.acquire("BAD", lease_ms=60_000, wait_ms=0).release()
    damage(tmp_path / "held" / "BAD")
    lease = lock.acquire("BAD", lease_ms=60_000, wait_ms=0)
    lease.ensure_held()
    lease.release()
    lock.close()


def test_what_stands_in_a_key_s_way_is_shown_to_an_operator(tmp_path: Path) -> None:
    lock = from_url(f"file://{tmp_path}")
    lock.ping()
    (tmp_path / "held" / "BAD").mkdir()
    (tmp_path / "held" / "not a key").mkdir()
    with pytest.raises(LockUnavailable):
        lock.acquire("BAD", lease_ms=1_000, wait_ms=0)
    (held,) = lock.held()
    assert held.key == "BAD"
    assert "directory" in held.holder
    with pytest.raises(LockUnavailable):
        lock.break_lease("BAD")
    lock.close()


def test_a_folder_that_cannot_be_listed_is_said_to_be_unavailable(tmp_path: Path) -> None:
    lock = from_url(f"file://{tmp_path}")
    lock.ping()
    (tmp_path / "held").rmdir()
    (tmp_path / "held").write_text("")
    with pytest.raises(LockUnavailable):
        lock.held()
    lock.close()


def test_one_lease_that_cannot_be_renewed_takes_no_other_along_and_is_tried_again(
    tmp_path: Path,
) -> None:
    lock = from_url(f"file://{tmp_path}")
    held = tmp_path / "held"
    # All due in one batch, the one that fails first.
    leases = [lock.acquire(key, lease_ms=6_000, wait_ms=0) for key in ("A", "B", "C")]
    ends = {key: _end_ns(held / key) for key in ("A", "B", "C")}
    (held / "A").rename(tmp_path / "aside")
    (held / "A").mkdir()
    wait_until(
        lambda: all(_end_ns(held / key) > ends[key] for key in ("B", "C")), "B and C are renewed"
    )
    (held / "A").rmdir()
    (tmp_path / "aside").rename(held / "A")
    wait_until(lambda: _end_ns(held / "A") > ends["A"], "A is renewed")
    for lease in leases:
        lease.ensure_held()
    lock.close()


def _end_ns(path: Path) -> int:
    record, _ = peek(path)
    assert record is not None
    return record.end_ns
