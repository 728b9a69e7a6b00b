"""`make run`'s supervisor: what is started together ends together, whatever comes."""

import signal
import sys
from pathlib import Path

import pytest

from tests.processes import ManagedProcess, process_exists, wait_until

ROOT = Path(__file__).resolve().parents[2]

# A supervisor over children given as Python code, one per argument.
DRIVER = """
import os, signal, sys
from pathlib import Path
from scripts.supervise import Child, StopRequest, Supervisor

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
stop = StopRequest()
stop.install()
children = [
    Child(f"child{number}", [sys.executable, "-u", "-c", code], os.environ)
    for number, code in enumerate(sys.argv[1:])
]
sys.exit(Supervisor(children, stop, cwd=Path.cwd()).run())
"""
SAY_PID = "import os, signal, sys, time; print('pid', os.getpid());"
SLEEPER = f"{SAY_PID} time.sleep(600)"
STUBBORN = f"{SAY_PID} signal.signal(signal.SIGTERM, signal.SIG_IGN); print('set'); time.sleep(600)"


def supervise(tmp_path: Path, *codes: str) -> ManagedProcess:
    """Start a supervisor over these children."""
    command = [sys.executable, "-c", DRIVER, *codes]
    return ManagedProcess("supervisor", command, log=tmp_path / "log", cwd=ROOT).start()


def pids(process: ManagedProcess, count: int) -> list[int]:
    """Wait until so many children have said who they are."""
    said = f"{count} children have said who they are"
    wait_until(lambda: process.log_text().count("| pid ") == count, said)
    return [int(line.split()[-1]) for line in process.log_text().splitlines() if "| pid " in line]


def assert_gone(children: list[int]) -> None:
    """They all end, or have ended."""
    wait_until(lambda: not any(map(process_exists, children)), f"{children} are gone")


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_ends_all_children_and_is_a_success(
    which: signal.Signals, tmp_path: Path
) -> None:
    process = supervise(tmp_path, SLEEPER, SLEEPER, SLEEPER)
    children = pids(process, 3)
    process.send(which, group=False)
    assert process.wait() == 0
    assert not any(process_exists(pid) for pid in children)


def test_a_child_that_dies_ends_the_others_and_is_named(tmp_path: Path) -> None:
    process = supervise(tmp_path, SLEEPER, f"{SAY_PID} sys.exit(7)", SLEEPER)
    assert process.wait() == 1
    assert "child1 ended by itself with status 7" in process.log_text()
    assert_gone(pids(process, process.log_text().count("| pid ")))


def test_a_child_that_is_killed_is_reported_with_the_signal(tmp_path: Path) -> None:
    process = supervise(tmp_path, f"{SAY_PID} os.kill(os.getpid(), signal.SIGKILL)")
    assert process.wait() == 1
    assert "child0 was killed by SIGKILL" in process.log_text()


def test_a_second_stop_signal_kills_a_child_that_does_not_listen(tmp_path: Path) -> None:
    process = supervise(tmp_path, STUBBORN, SLEEPER)
    stubborn, sleeper = sorted(
        pids(process, 2), key=lambda pid: f"child0  | pid {pid}" not in process.log_text()
    )
    process.wait_ready(lambda: "| set" in process.log_text())
    process.send(signal.SIGINT, group=False)
    wait_until(lambda: not process_exists(sleeper), "the one that listens ends")
    assert process_exists(stubborn)
    process.send(signal.SIGINT, group=False)
    assert process.wait() == 0
    assert not process_exists(stubborn)
    assert "child0 did not end when asked: killed." in process.log_text()


def test_a_stop_signal_in_the_middle_of_the_start_leaves_no_child(tmp_path: Path) -> None:
    # The first child sends it, while the others may or may not have been started.
    early = f"{SAY_PID} os.kill(os.getppid(), signal.SIGINT); time.sleep(600)"
    process = supervise(tmp_path, early, *[SLEEPER] * 8)
    assert process.wait() == 0
    said = [int(word) for word in process.log_text().split() if word.isdigit()]
    assert said
    assert not any(process_exists(pid) for pid in said)


def test_children_do_not_outlive_a_supervisor_killed_with_sigkill(tmp_path: Path) -> None:
    process = supervise(tmp_path, SLEEPER, SLEEPER)
    children = pids(process, 2)
    process.kill9(group=False)
    assert_gone(children)


def test_what_the_children_say_stands_under_their_names_line_by_line(tmp_path: Path) -> None:
    process = supervise(tmp_path, "print('one'); print('two')", SLEEPER)
    process.wait()
    lines = process.log_text().splitlines()
    assert "child0  | one" in lines
    assert "child0  | two" in lines


def test_what_a_child_started_and_left_ends_too(tmp_path: Path) -> None:
    leaver = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('pid', child.pid)\n"
    )
    process = supervise(tmp_path, leaver)
    assert process.wait() == 1
    assert_gone(pids(process, 1))
