"""The file lock's tokens: for one key they grow, whatever the clocks, boots and crashes."""

import fcntl
import os
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from locks import LockUnavailable, from_url
from locks.clock import now_ns
from locks.on_files.fence import FORGOTTEN_US, RESERVE_US, SLACK_US, mint
from locks.on_files.flock import locked_file
from locks.on_files.host import boot_id
from locks.protocol import MAX_FENCE

YEAR_US = 365 * 86_400 * 10**6


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """A fence clock that does not exist yet."""
    return tmp_path / "fence"


def _now_us() -> int:
    return time.time_ns() // 1_000


def _tick_us() -> int:
    return now_ns() // 1_000


def _read(clock: Path) -> tuple[str, int, int]:
    boot, base, reserved = clock.read_text().split()
    return boot, int(base), int(reserved)


def test_tokens_begin_at_the_wall_clock_and_rise_beyond_any_floor(clock: Path) -> None:
    before = _now_us()
    first = mint(clock, 0)
    assert before <= first <= _now_us() + FORGOTTEN_US
    floor = first + YEAR_US
    raised = mint(clock, floor)
    assert floor < raised
    assert raised < mint(clock, 0) < floor + RESERVE_US


def test_tokens_of_a_key_rise_one_by_one_in_whatever_thread(clock: Path) -> None:
    tokens: list[int] = []
    guard = threading.Lock()

    def work() -> None:
        for _ in range(100):
            with guard:
                tokens.append(mint(clock, 0))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 400
    assert all(earlier < later for earlier, later in pairwise(tokens))


def test_tokens_rise_though_the_wall_clock_steps_back(clock: Path) -> None:
    ahead = _now_us() + YEAR_US
    clock.write_text(f"{boot_id()} {ahead - _tick_us()} {ahead + RESERVE_US}")
    tokens = [mint(clock, 0) for _ in range(3)]
    assert ahead < tokens[0] < tokens[1] < tokens[2] < ahead + RESERVE_US


def test_tokens_follow_the_wall_clock_when_it_steps_forward(clock: Path) -> None:
    behind = _now_us() - YEAR_US
    clock.write_text(f"{boot_id()} {behind - _tick_us()} {behind + RESERVE_US}")
    before = _now_us()
    assert mint(clock, 0) >= before - SLACK_US


def test_after_a_new_boot_tokens_go_on_beyond_all_that_may_have_been_given(clock: Path) -> None:
    ahead = _now_us() + YEAR_US
    # The new boot's clock of ticks begins at nought, so the old base says nothing any more.
    clock.write_text(f"another-boot {ahead} {ahead + RESERVE_US}")
    first = mint(clock, 0)
    assert first > ahead + RESERVE_US
    assert mint(clock, 0) > first
    assert _read(clock)[0] == boot_id()


def test_every_token_given_is_below_the_reserve_that_was_flushed(clock: Path) -> None:
    for floor in (0, _now_us() + YEAR_US, 0):
        fence = mint(clock, floor)
        assert fence <= _read(clock)[2]


def test_the_reserve_is_on_the_disk_and_its_name_too_before_the_token_is_given(
    clock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def seen(file: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    monkeypatch.setattr(os, "fsync", seen)
    mint(clock, 0)
    assert flushed == [f"{clock}.new", str(clock.parent)]
    mint(clock, 0)
    assert len(flushed) == 2
    # Half of the reserve is used up: it is renewed before it is needed.
    boot, base, _ = _read(clock)
    clock.write_text(f"{boot} {base} {base + _tick_us() + RESERVE_US // 3}")
    mint(clock, 0)
    assert len(flushed) == 4
    assert _read(clock)[2] > base + _tick_us() + RESERVE_US // 2


def test_when_the_file_was_deleted_two_tokens_over_one_floor_still_differ(clock: Path) -> None:
    floor = _now_us() + YEAR_US
    tokens = set()
    for _ in range(20):
        tokens.add(mint(clock, floor))
        clock.unlink()
    # 20 draws from 2**24: by chance two are alike once in 90,000 runs.
    assert len(tokens) == 20


def test_a_process_that_is_stopped_with_the_clock_in_its_hand_stops_nobody(clock: Path) -> None:
    first = mint(clock, 0)
    boot, base, _ = _read(clock)
    clock.write_text(f"{boot} {base} {base + _tick_us() + RESERVE_US // 3}")
    with clock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        second = mint(clock, 0)
        assert second > first
        with pytest.raises(LockUnavailable, match="stopped"):
            mint(clock, second + YEAR_US)


@pytest.mark.parametrize("text", ["nonsense", "one two three", "1 2", "\xff"])
def test_a_damaged_clock_is_refused_with_what_to_do(clock: Path, text: str) -> None:
    clock.write_text(text)
    with pytest.raises(LockUnavailable, match="Delete it"):
        mint(clock, 0)


def test_two_who_find_no_file_agree_on_one_clock(clock: Path) -> None:
    """The second waits for the first, and reads what it wrote."""
    with locked_file(clock, create=True, patience_s=1) as file:
        assert file is not None
        tokens: list[int] = []
        thread = threading.Thread(target=lambda: tokens.append(mint(clock, 0)))
        thread.start()
        thread.join(0.1)
        assert tokens == []
    thread.join()
    assert mint(clock, 0) > tokens[0]


def test_a_lock_s_ping_needs_a_clock_that_can_be_read(tmp_path: Path) -> None:
    lock = from_url(f"file://{tmp_path}")
    lock.ping()
    (tmp_path / "fence").write_text("nonsense")
    with pytest.raises(LockUnavailable, match="Delete it"):
        lock.ping()
    lock.close()


def test_a_pipe_in_the_clock_s_place_is_refused_and_keeps_nobody_waiting(clock: Path) -> None:
    os.mkfifo(clock)
    with pytest.raises(LockUnavailable):
        mint(clock, 0)


@pytest.mark.parametrize("line", ["boot 0 {}", "boot {} 1", "boot -{} 1"])
def test_a_clock_that_leads_beyond_the_greatest_token_is_damage(clock: Path, line: str) -> None:
    clock.write_text(line.format(MAX_FENCE + 1) + "\n")
    with pytest.raises(LockUnavailable, match="damaged"):
        mint(clock, 0)
