"""The queue in a key's file: first come, first served, within a bounded file; and the sweeping."""

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from locks import from_url, hold
from locks.clock import NS_PER_S, now_ns
from locks.on_files.bell import Bell, Bells, reach
from locks.on_files.key_file import KeyFile, OpenedKey, peek
from locks.on_files.record import (
    RECORD_BYTES,
    SLOTS,
    WAITER_BYTES,
    Waiter,
    my_record,
    my_waiter,
    read_waiter,
    write_record,
    write_waiter,
)
from locks.on_files.sweep import STEP, Sweep

END_NS = 2**62


@pytest.fixture
def bells(tmp_path: Path) -> Path:
    """Where the pipes lie."""
    (tmp_path / "waiting").mkdir()
    return tmp_path / "waiting"


@pytest.fixture
def bell(bells: Path) -> Iterator[Bell]:
    """The pipe of a living waiter."""
    made = Bell(bells)
    yield made
    made.drop()


@pytest.fixture
def key(tmp_path: Path, bells: Path) -> Iterator[KeyFile]:
    """The file of a key that is held by `holder`."""
    with OpenedKey(tmp_path / "key", bells, create=True, patience_s=1) as opened:
        assert opened is not None
        opened.take(my_record("holder", 1, END_NS))
        yield opened


def _holder(key: KeyFile) -> str:
    assert key.record is not None
    return key.record.token


def test_the_key_goes_from_one_to_the_next_and_the_last_one_deletes_the_file(
    key: KeyFile, bell: Bell, tmp_path: Path
) -> None:
    tickets = [key.enter(my_waiter(f"w{number}", bell.name)) for number in range(3)]
    assert tickets == [0, 1, 2]
    assert [waiter.token for waiter in key.waiters()] == ["w0", "w1", "w2"]
    for number in range(3):
        key.give_up()
        assert _holder(key) == f"w{number}"
    assert (tmp_path / "key").exists()
    key.give_up()
    assert not (tmp_path / "key").exists()


def test_a_turn_of_many_laps_keeps_the_order_and_the_file_small(
    key: KeyFile, bell: Bell, tmp_path: Path
) -> None:
    waiting = [f"w{number}" for number in range(5)]
    for token in waiting:
        key.enter(my_waiter(token, bell.name))
    for number in range(5, 2 * SLOTS + 100):
        key.give_up()
        assert _holder(key) == waiting.pop(0)
        waiting.append(f"w{number}")
        assert key.enter(my_waiter(waiting[-1], bell.name)) == number
    assert [waiter.token for waiter in key.waiters()] == waiting
    assert (tmp_path / "key").stat().st_size <= RECORD_BYTES + SLOTS * WAITER_BYTES


def test_while_nobody_waits_the_same_place_is_used_again(
    key: KeyFile, bell: Bell, tmp_path: Path
) -> None:
    for number in range(50):
        assert key.enter(my_waiter(f"w{number}", bell.name)) == 0
        key.give_up()
        assert _holder(key) == f"w{number}"
    assert (tmp_path / "key").stat().st_size == RECORD_BYTES + WAITER_BYTES


def test_when_the_queue_is_full_the_next_one_gets_no_place_until_another_leaves(
    key: KeyFile, bell: Bell
) -> None:
    for number in range(SLOTS):
        assert key.enter(my_waiter(f"w{number}", bell.name)) == number
    assert key.enter(my_waiter("late", bell.name)) is None
    key.leave(SLOTS - 1, f"w{SLOTS - 1}")
    assert key.enter(my_waiter("late", bell.name)) == SLOTS - 1
    key.give_up()
    assert key.enter(my_waiter("later", bell.name)) == SLOTS
    assert [waiter.token for waiter in key.waiters()][-2:] == ["late", "later"]


def test_those_who_left_hold_no_place_before_or_behind_the_others(key: KeyFile, bell: Bell) -> None:
    for number in range(6):
        key.enter(my_waiter(f"w{number}", bell.name))
    for number in (1, 0, 4, 5, 3):
        key.leave(number, f"w{number}")
        assert not key.has(number, f"w{number}")
    assert [waiter.token for waiter in key.waiters()] == ["w2"]
    assert key.length() == 1
    assert key.before(2) is None


def test_nobody_leaves_or_stands_in_another_s_place(key: KeyFile, bell: Bell) -> None:
    key.enter(my_waiter("w0", bell.name))
    assert not key.has(0, "other")
    assert not key.has(1, "w0")
    key.leave(0, "other")
    key.leave(7, "w0")
    assert [waiter.token for waiter in key.waiters()] == ["w0"]


def test_each_watches_the_nearest_one_that_still_waits(key: KeyFile, bell: Bell) -> None:
    for number in range(4):
        key.enter(my_waiter(f"w{number}", bell.name))
    key.leave(2, "w2")
    before = key.before(3)
    assert before is not None
    assert (before[0], before[1].token) == (1, "w1")
    assert key.before(0) is None


def test_a_waiter_that_no_pipe_leads_to_is_passed_over(
    key: KeyFile, bell: Bell, bells: Path
) -> None:
    gone = Bell(bells)
    gone.close()
    key.enter(my_waiter("dead", gone.name))
    key.enter(my_waiter("deleted", "no-such-bell"))
    key.enter(my_waiter("alive", bell.name))
    key.give_up()
    assert _holder(key) == "alive"
    assert [path.name for path in bells.iterdir()] == [bell.name]


def test_a_hand_over_rings_the_next_holder_and_the_one_behind_it_and_no_more(
    key: KeyFile, bells: Path
) -> None:
    made = [Bell(bells) for _ in range(3)]
    for number, each in enumerate(made):
        key.enter(my_waiter(f"w{number}", each.name))
    key.give_up()
    assert [each.wait(0) for each in made] == [True, True, False]
    key.leave(1, "w1")
    assert [each.wait(0) for each in made] == [False, False, True]
    for each in made:
        each.drop()


def test_after_a_boot_neither_holder_nor_waiters_count(
    key: KeyFile, bell: Bell, bells: Path, tmp_path: Path
) -> None:
    key.enter(my_waiter("w0", bell.name))
    record = key.record
    assert record is not None
    file = os.open(tmp_path / "key", os.O_RDWR)
    write_record(file, replace(record, boot="another"))
    again = KeyFile(file, tmp_path / "key", bells)
    os.close(file)
    assert (again.record, again.waiters(), again.is_held()) == (None, [], False)


def test_every_block_holds_the_longest_names_there_can_be(tmp_path: Path) -> None:
    file = os.open(tmp_path / "key", os.O_RDWR | os.O_CREAT)
    waiter = Waiter("f" * 32, "f" * 24, 2**22, f"pid:[{2**32}]", str(2**63), "h" * 63)
    record = replace(
        waiter.claim(2**63, 2**63), fence=2**53, boot="f" * 36, first=2**53, after=2**53
    )
    write_record(file, record)
    write_waiter(file, 0, waiter)
    write_waiter(file, 1, None)
    assert os.fstat(file).st_size == RECORD_BYTES + 2 * WAITER_BYTES
    assert read_waiter(file, 0) == waiter
    assert read_waiter(file, 1) is None
    os.close(file)
    lines = (tmp_path / "key").read_text().splitlines()
    assert [len(line) + 1 for line in lines] == [RECORD_BYTES, WAITER_BYTES, WAITER_BYTES]


# The folder


def test_ten_thousand_keys_leave_nothing(tmp_path: Path) -> None:
    lock = from_url(f"file://{tmp_path}")
    for number in range(10_000):
        lock.acquire(f"key-{number}", lease_ms=1_000, wait_ms=0).release()
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["fence", "held", "waiting"]
    lock.close()


def test_a_process_that_runs_for_long_sweeps_little_by_little(tmp_path: Path) -> None:
    held, waiting = tmp_path / "held", tmp_path / "waiting"
    held.mkdir()
    waiting.mkdir()
    record = my_record("token", 5, now_ns() + 60 * NS_PER_S)
    alive = Bell(waiting)
    for number in range(10):
        file = os.open(held / f"dead-{number}", os.O_RDWR | os.O_CREAT)
        write_record(file, replace(record, started="1"))
        os.close(file)
        Bell(waiting).close()
    for name, written in (("alive", record), ("waited-for", replace(record, started="1", after=1))):
        file = os.open(held / name, os.O_RDWR | os.O_CREAT)
        write_record(file, written)
        write_waiter(file, 0, my_waiter("w0", alive.name))
        os.close(file)
    sweep = Sweep(held, waiting)
    counts = []
    for _ in range(10):
        sweep.step()
        counts.append(len(list(held.iterdir())) + len(list(waiting.iterdir())))
    assert all(0 <= earlier - later <= STEP for earlier, later in pairwise(counts))
    assert sorted(path.name for path in held.iterdir()) == ["alive", "waited-for"]
    assert [path.name for path in waiting.iterdir()] == [alive.name]
    # The key of the dead holder was handed to the one that waits for it.
    claim, _ = peek(held / "waited-for")
    assert claim is not None
    assert claim.token == "w0"
    alive.drop()


def test_a_lock_in_use_keeps_on_sweeping(tmp_path: Path) -> None:
    lock = from_url(f"file://{tmp_path}")
    sweep = Sweep(tmp_path / "held", tmp_path / "waiting", every_s=0)
    with hold(lock, "key", lease_ms=60_000, wait_ms=0):
        for number in range(30):
            (tmp_path / "held" / f"left-{number}").touch()
            sweep.step()
        for _ in range(30):
            sweep.step()
        assert [path.name for path in (tmp_path / "held").iterdir()] == ["key"]
    lock.close()


def test_a_pipe_that_is_just_being_made_is_not_swept(tmp_path: Path) -> None:
    held, waiting = tmp_path / "held", tmp_path / "waiting"
    held.mkdir()
    waiting.mkdir()
    done = threading.Event()

    def sweep() -> None:
        while not done.is_set():
            Sweep(held, waiting).whole()

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        for _ in range(500):
            bell = Bell(waiting)
            assert bell.is_hung()
            bell.drop()
    finally:
        done.set()
        thread.join()


def test_pipes_are_kept_for_the_next_wait_and_a_deleted_one_is_replaced(tmp_path: Path) -> None:
    bells = Bells(tmp_path)
    assert bells.idle() is None
    first, second = bells.fresh(), bells.fresh()
    bells.put_back(first)
    assert bells.idle() is first
    bells.put_back(first)
    (tmp_path / first.name).unlink()
    assert bells.idle() is None
    bells.put_back(second)
    bells.close()
    assert list(tmp_path.iterdir()) == []


def test_a_child_s_copies_of_pipes_are_closed_and_the_parent_s_stay(tmp_path: Path) -> None:
    bells = Bells(tmp_path)
    bell = bells.fresh()
    bells.forget()
    assert reach(tmp_path / bell.name) is None
    assert bells.idle() is None
