"""The parts of the file lock: who is alive, what a record says, how tokens grow."""

import fcntl
import json
import os
import select
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from locks import LockTimeout, LockUnavailable, from_url, hold
from locks.clock import NS_PER_S, now_ns
from locks.on_files.flock import locked_file
from locks.on_files.host import UNKNOWN, death_watch, is_gone, pid_namespace, start_ticks
from locks.on_files.record import my_record, read_record, write_record


def test_a_lock_on_a_file_that_was_deleted_meanwhile_is_worth_nothing(tmp_path: Path) -> None:
    path, inside = tmp_path / "file", tmp_path / "inside"
    collisions: list[int] = []

    def work(number: int) -> None:
        for _ in range(400):
            with locked_file(path, create=True, patience_s=30) as file:
                assert file is not None
                try:
                    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                    inside.unlink()
                    path.unlink()
                except (FileNotFoundError, FileExistsError):
                    collisions.append(number)
                    return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert collisions == []


def test_this_process_is_alive_and_a_zombie_or_a_reused_pid_is_not() -> None:
    me, mine = os.getpid(), start_ticks(os.getpid())
    assert mine is not None
    assert not is_gone(me, pid_namespace(), mine)
    assert is_gone(me, pid_namespace(), "1")
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(child.pid, pid_namespace(), "1")
    assert start_ticks(child.pid) is None
    child.wait()
    assert start_ticks(child.pid) is None


def test_the_end_of_a_process_is_heard_of_before_its_parent_asks() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child,
        death_watch(child.pid, pid_namespace()) as ended,
    ):
        assert ended is not None
        assert select.select([ended], [], [], 0)[0] == []
        child.kill()
        assert select.select([ended], [], [], 30)[0] == [ended]
        assert start_ticks(child.pid) is None


def test_a_process_of_another_container_cannot_be_watched() -> None:
    with death_watch(os.getpid(), "pid:[another container]") as ended:
        assert ended is None


def test_a_forked_child_keeps_no_watch_of_its_parent() -> None:
    with death_watch(os.getpid(), pid_namespace()) as ended:
        assert ended is not None
        pid = os.fork()
        if pid == 0:
            os._exit(int(Path(f"/proc/self/fd/{ended}").exists()))
        assert os.waitpid(pid, 0)[1] == 0
        assert Path(f"/proc/self/fd/{ended}").exists()


def test_a_process_that_cannot_be_judged_counts_as_alive() -> None:
    assert not is_gone(2**22, "pid:[another container]", "1")
    assert not is_gone(os.getpid(), pid_namespace(), UNKNOWN)


def test_a_record_is_void_after_its_end_after_a_boot_and_after_its_holder(tmp_path: Path) -> None:
    record = my_record("token", 5, now_ns() + 60 * NS_PER_S)
    assert record.is_live(now_ns())
    assert not record.is_live(record.end_ns)
    assert not replace(record, boot="another").is_live(now_ns())
    assert not replace(record, started="1").is_live(now_ns())
    file = os.open(tmp_path / "record", os.O_RDWR | os.O_CREAT)
    write_record(file, record)
    write_record(file, replace(record, token="t"))
    assert read_record(file) == replace(record, token="t")
    os.close(file)


def test_a_dead_holder_s_key_is_free_at_once_though_its_lease_is_long(tmp_path: Path) -> None:
    program = (
        "import sys; from locks import from_url; "
        "from_url(sys.argv[1]).acquire('key', lease_ms=3_600_000, wait_ms=0); "
        "print('held', flush=True); sys.stdin.read()"
    )
    url = f"file://{tmp_path}"
    child = subprocess.Popen(
        [sys.executable, "-c", program, url],
        cwd=Path(__file__).resolve().parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        lock = from_url(url)
        with pytest.raises(LockTimeout):
            lock.acquire("key", lease_ms=1_000, wait_ms=0)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        lock.acquire("key", lease_ms=1_000, wait_ms=0).release()
        lock.close()


def test_a_process_that_has_run_out_of_descriptors_takes_nobody_s_key(tmp_path: Path) -> None:
    program = """
import os, resource, sys
from contextlib import suppress
from locks import LockTimeout, LockUnavailable, from_url

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for free in range(4):
    if os.fork():
        _, status = os.wait()
        assert status == 0, free
        continue
    lock = from_url(sys.argv[1])
    used = []
    with suppress(OSError):
        while True:
            used.append(os.open(os.devnull, os.O_RDONLY))
    for file in used[:free]:
        os.close(file)
    refused = 0
    for _ in range(2):
        try:
            lock.acquire("key", lease_ms=1_000, wait_ms=0)
        except (LockTimeout, LockUnavailable):
            refused += 1
        for file in used[free:]:
            os.close(file)
        used = []
    os._exit(refused != 2)
"""
    url = f"file://{tmp_path}"
    lock = from_url(url)
    with hold(lock, "key", lease_ms=60_000, wait_ms=0):
        here = Path(__file__).resolve().parents[2]
        subprocess.run([sys.executable, "-c", program, url], cwd=here, check=True)
        assert (tmp_path / "held" / "key").exists()
    lock.close()


def test_nothing_stays_behind_for_a_key_and_dead_ones_are_swept(tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.mkdir()
    record = my_record("token", 5, now_ns() + 60 * NS_PER_S)
    for name, written in (("dead", replace(record, started="1")), ("alive", record)):
        file = os.open(held / name, os.O_RDWR | os.O_CREAT)
        write_record(file, written)
        os.close(file)
    (held / "empty").touch()
    lock = from_url(f"file://{tmp_path}")
    for number in range(50):
        with hold(lock, f"key-{number}", lease_ms=1_000, wait_ms=0):
            assert (held / f"key-{number}").exists()
    lock.close()
    assert sorted(path.name for path in held.iterdir()) == ["alive"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fence", "held", "waiting"]
    assert list((tmp_path / "waiting").iterdir()) == []


def test_a_record_kept_by_a_stopped_process_ends_in_a_time_out_and_not_in_a_hang(
    tmp_path: Path,
) -> None:
    lock = from_url(f"file://{tmp_path}")
    lock.ping()
    with (tmp_path / "held" / "key").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for wait_ms in (0, 100):
            with pytest.raises(LockTimeout):
                lock.acquire("key", lease_ms=1_000, wait_ms=wait_ms)
        with pytest.raises(LockUnavailable, match="stopped"):
            lock.break_lease("key")
        lock.acquire("another", lease_ms=1_000, wait_ms=0).release()
    lock.acquire("key", lease_ms=1_000, wait_ms=0).release()
    lock.close()


def test_what_is_in_a_record_can_be_read_by_a_person(tmp_path: Path) -> None:
    lock = from_url(f"file://{tmp_path}")
    with hold(lock, "key", lease_ms=5_000, wait_ms=0) as lease:
        shown = json.loads((tmp_path / "held" / "key").read_text())
    assert (shown["pid"], shown["fence"]) == (os.getpid(), lease.fence)
    lock.close()


def test_a_key_whose_token_cannot_be_minted_leaves_no_file(tmp_path: Path) -> None:
    lock = from_url(f"file://{tmp_path / 'locks'}")
    lock.ping()
    (tmp_path / "locks" / "fence").write_text("nonsense")
    for number in range(3):
        with pytest.raises(LockUnavailable):
            lock.acquire(f"key-{number}", lease_ms=1_000, wait_ms=0)
    assert list((tmp_path / "locks" / "held").iterdir()) == []
    lock.close()


def test_held_keys_are_listed_with_their_holder_and_a_dead_one_s_are_not(tmp_path: Path) -> None:
    lock = from_url(f"file://{tmp_path}")
    assert lock.held() == []
    leases = [lock.acquire(key, lease_ms=60_000, wait_ms=0) for key in ("b", "a", "c")]
    record = my_record("token", 5, now_ns() + 60 * NS_PER_S)
    file = os.open(tmp_path / "held" / "dead", os.O_RDWR | os.O_CREAT)
    write_record(file, replace(record, started="1"))
    os.close(file)
    shown = lock.held()
    assert [held.key for held in shown] == ["a", "b", "c"]
    assert [held.fence for held in shown] == [leases[1].fence, leases[0].fence, leases[2].fence]
    assert {held.holder for held in shown} == {f"{os.uname().nodename} {os.getpid()}"}
    assert all(held.remaining_ms and held.remaining_ms <= 60_000 for held in shown)
    assert [held.key for held in lock.held(limit=2)] == ["a", "b"]
    lock.close()


def test_a_broken_lease_frees_its_key_and_its_holder_learns_of_it(tmp_path: Path) -> None:
    lock, operator = from_url(f"file://{tmp_path}"), from_url(f"file://{tmp_path}")
    assert operator.break_lease("key") is None
    ousted = lock.acquire("key", lease_ms=300, wait_ms=0)
    broken = operator.break_lease("key")
    assert broken is not None
    assert (broken.key, broken.fence) == ("key", ousted.fence)
    later = operator.acquire("key", lease_ms=60_000, wait_ms=0)
    assert later.fence > ousted.fence
    assert ousted.lost.wait(10)
    ousted.release()
    assert [held.fence for held in operator.held()] == [later.fence]
    lock.close()
    operator.close()
