"""`make run` from outside: it starts, says where to go, keeps its data, ends without a trace."""

import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from scripts.run import SIGN_IN
from shop.commands.seed_data import DEMO_MEMBERS, DEMO_PASSWORD
from tests.processes import (
    ManagedProcess,
    free_port,
    http_status,
    port_answers,
    process_exists,
    wait_http,
    wait_until,
)

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, str(ROOT / "scripts" / "run.py")]
# As a user does it, but never rebuilding the environment that this test itself runs in.
MAKE_RUN = ["make", "--no-print-directory", "-o", ".venv/runtime.stamp", "run"]

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


class Shop:
    """One `make run` on ports and a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port(span=2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.sandbox_url = f"http://127.0.0.1:{self.port + 1}"
        self.process: ManagedProcess | None = None

    def start(self, command: list[str] = RUN, **extra: str) -> ManagedProcess:
        """Start it, without the tester's own settings (an empty one counts as none)."""
        text = (ROOT / ".env.example").read_text(encoding="utf-8")
        blank = dict.fromkeys(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE), "")
        place = {"PORT": str(self.port), "DATA_DIR": str(self.data)}
        self.process = ManagedProcess(
            "make-run",
            command,
            log=self.folder / "log",
            cwd=ROOT,
            env={**os.environ, **blank, **place, **extra},
        ).start()
        return self.process

    def start_ready(self, command: list[str] = RUN, **extra: str) -> ManagedProcess:
        """Start it and wait until it says that it is open."""
        process = self.start(command, **extra)
        process.wait_ready(lambda: "The shop is open" in process.log_text())
        return process

    def members(self) -> list[tuple[str, str]]:
        """Login and display name of everyone, from the file."""
        with closing(sqlite3.connect(self.data / "payonce.db")) as connection:
            return connection.execute("SELECT login, display_name FROM members").fetchall()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A shop that is gone after the test."""
    shop = Shop(tmp_path)
    yield shop
    if shop.process is not None:
        shop.process.terminate(timeout_s=20)


def descendants(pid: int) -> list[int]:
    """All processes below this one, by the kernel's lists of children."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def assert_nothing_left(shop: Shop, children: list[int]) -> None:
    """Neither a process nor a listener."""
    assert [pid for pid in children if process_exists(pid)] == []
    assert not port_answers(shop.port)
    assert not port_answers(shop.port + 1)


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_it_starts_says_where_to_go_and_ends_without_a_trace(
    which: signal.Signals, shop: Shop
) -> None:
    process = shop.start_ready()
    assert http_status(f"{shop.url}/healthz") == 200
    assert http_status(f"{shop.url}/readyz") == 200
    assert http_status(f"{shop.url}/") == 200
    assert http_status(f"{shop.sandbox_url}/") == 200
    said = process.log_text()
    assert shop.url in said
    assert shop.sandbox_url in said
    assert SIGN_IN in said
    children = descendants(process.pid)
    # web: master and 2 workers; sandbox: master and 1 worker; the sweeper.
    assert len(children) >= 6
    process.send(which, group=False)
    assert process.wait() == 0, process.log_tail()
    assert_nothing_left(shop, children)
    assert "Traceback" not in process.log_text()


def test_the_sign_in_it_prints_is_the_seeds() -> None:
    assert DEMO_PASSWORD in SIGN_IN
    assert all(member.login in SIGN_IN for member in DEMO_MEMBERS)


def test_make_run_itself_leaves_nothing_after_ctrl_c_in_the_terminal(shop: Shop) -> None:
    process = shop.start_ready([*MAKE_RUN, f"PORT={shop.port}", f"DATA_DIR={shop.data}"])
    children = descendants(process.pid)
    process.send(signal.SIGINT)  # the terminal sends it to the whole foreground group
    process.wait()
    assert_nothing_left(shop, children)


def test_a_second_run_keeps_the_data_and_adds_nothing(shop: Shop) -> None:
    first = shop.start_ready()
    first.send(signal.SIGTERM, group=False)
    assert first.wait() == 0
    with closing(sqlite3.connect(shop.data / "payonce.db")) as connection, connection:
        connection.execute("UPDATE members SET display_name = 'Kept' WHERE login = 'alice'")
    members = shop.members()
    assert ("alice", "Kept") in members
    kept = {
        path: path.read_bytes()
        for path in (shop.data / "secret_key", *shop.data.glob("sandbox/**/*.pem"))
    }
    assert len(kept) > 4
    first.log.unlink()
    shop.start_ready()
    assert shop.members() == members
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_run_on_another_port_takes_its_data_and_its_sandbox_along(shop: Shop) -> None:
    first = shop.start_ready()
    first.send(signal.SIGTERM, group=False)
    assert first.wait() == 0
    first.log.unlink()
    shop.port = free_port(span=2)
    shop.start_ready()
    merchant = (shop.data / "sandbox" / "merchant.env").read_text()
    assert f"http://127.0.0.1:{shop.port + 1}" in merchant
    assert http_status(f"http://127.0.0.1:{shop.port + 1}/") == 200


def test_a_run_on_a_lock_service_of_another_kind_takes_over_from_the_one_before(
    shop: Shop, zookeeper_url: str
) -> None:
    shop.start_ready().terminate()
    process = shop.start(LOCK_URL=zookeeper_url)
    wait_http(f"{shop.url}/readyz", process=process)
    with closing(sqlite3.connect(shop.data / "payonce.db")) as connection:
        rows = connection.execute("SELECT epoch, realm FROM lock_epochs ORDER BY epoch").fetchall()
    assert rows[0] == (1, "clock")
    assert [number for number, _ in rows] == [1, 2]
    assert rows[1][1].startswith("zookeeper:")


def test_an_operators_command_leaves_the_merchants_settings_as_they_are(shop: Shop) -> None:
    """A shop that runs reads them anew when they change: here, under another port."""
    command = [*RUN, "flask", "gateways", "outcomes"]
    assert shop.start(command).wait() == 0
    found = shop.data / "sandbox" / "merchant.env"
    before = (found.read_text(), found.stat().st_mtime_ns)
    assert shop.sandbox_url in before[0]
    assert shop.start(command, PORT="").wait() == 0
    assert (found.read_text(), found.stat().st_mtime_ns) == before


def test_make_sets_only_what_it_was_given_so_that_the_env_file_can_say_the_rest() -> None:
    command = ["make", "--eval", "shown: ; @env", "shown", "PORT=9000"]
    names = ("PORT", "HOST", "DATA_DIR")
    env = {name: value for name, value in os.environ.items() if name not in names}
    shown = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    set_there = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
    assert {name: set_there.get(name) for name in names} == {
        "PORT": "9000",
        "HOST": None,
        "DATA_DIR": None,
    }


def test_secrets_are_readable_by_their_owner_only(shop: Shop) -> None:
    shop.start_ready()
    secrets = [shop.data / "secret_key", *shop.data.glob("sandbox/merchant/*private*")]
    assert len(secrets) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    assert shop.process is not None
    assert secrets[0].read_text().strip() not in shop.process.log_text()


@pytest.mark.parametrize("offset", [0, 1])
def test_a_busy_port_is_named_with_a_way_out_and_nothing_is_started(
    offset: int, shop: Shop
) -> None:
    with socket.create_server(("127.0.0.1", shop.port + offset)):
        process = shop.start()
        assert process.wait() == 2
    said = process.log_text()
    assert f"Port {shop.port + offset}" in said
    assert "make run PORT=" in said
    assert "DATA_DIR=" not in said
    assert not shop.data.exists()


def test_a_second_run_on_port_and_folder_of_the_first_is_told_to_take_others_of_both(
    shop: Shop,
) -> None:
    shop.start_ready()
    other = Shop(shop.folder / "other")
    other.folder.mkdir()
    other.port, other.data = shop.port, shop.data
    process = other.start()
    assert process.wait() == 2
    hint = re.search(r"make run PORT=(\d+) DATA_DIR=(\S+)$", process.log_text().strip())
    assert hint is not None
    assert int(hint[1]) != shop.port
    assert Path(hint[2]) != shop.data


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LOG_LEVEL", "loud", "LOG_LEVEL='loud': give one of"),
        ("DATABASE_URL", "foo", "DATABASE_URL is not the address of a database"),
        ("DATABASE_URL", "oracle://x", "DATABASE_URL begins with oracle://"),
        ("WEB_WORKERS", "0", "WEB_WORKERS='0': give"),
        ("WEB_THREADS", "x", "WEB_THREADS='x': give"),
        ("SANDBOX_TIME_SCALE", "x", "SANDBOX_TIME_SCALE='x': give"),
        ("SANDBOX_PUBLIC_URL", "ftp://x", "SANDBOX_PUBLIC_URL='ftp://x': give"),
        ("SANDBOX_DATA", "/proc/x", "SANDBOX_DATA=/proc/x: cannot be made"),
        ("DATA_DIR", "/proc/x", "DATA_DIR=/proc/x: cannot be made"),
        ("HOST", "999.1.1.1", "HOST=999.1.1.1: this machine has no such"),
        ("FORWARDED_ALLOW_IPS", "zzz", "FORWARDED_ALLOW_IPS='zzz': 'zzz' is no"),
        ("LOCK_LEASE_MS", "abc", "LOCK_LEASE_MS='abc': give"),
        ("PUBLIC_URL", "ftp://x", "PUBLIC_URL='ftp://x': give"),
        ("SECRET_KEY", "short", "SECRET_KEY is too short: give"),
        ("LOCK_URL", "redisx://h", "LOCK_URL cannot be used. It begins with 'redisx'"),
        (
            "ALIPAY_PRIVATE_KEY_FILE",
            "/nope.pem",
            "ALIPAY_PRIVATE_KEY_FILE=/nope.pem: cannot be read",
        ),
        ("ALIPAY_PRIVATE_KEY_FILE", "/etc/hosts", "ALIPAY_PRIVATE_KEY_FILE: "),
    ],
)
def test_a_wrong_setting_is_told_in_one_line_before_anything_is_migrated(
    name: str, value: str, said: str, shop: Shop
) -> None:
    process = shop.start(RUN, **{name: value})
    assert process.wait() == 2
    lines = process.log_text().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(said)
    assert not (shop.data / "payonce.db").exists()


@pytest.mark.parametrize("port", ["65535", "0", "-1", "http", "９０００"])
def test_a_port_that_is_none_is_refused(port: str, shop: Shop) -> None:
    process = shop.start(PORT=port)
    assert process.wait() == 2
    assert f"PORT={port}" in process.log_text()


def test_a_second_run_on_the_same_folder_is_refused_while_the_first_goes_on(shop: Shop) -> None:
    shop.start_ready()
    other = Shop(shop.folder / "other")
    other.folder.mkdir()
    other.data = shop.data
    process = other.start()
    assert process.wait() == 2
    assert "Another run is using" in process.log_text()
    assert http_status(f"{shop.url}/readyz") == 200


@pytest.mark.parametrize("victim", ["wsgi:app", "sweep", "sandbox.wsgi:app"])
def test_a_child_that_dies_ends_all_and_is_named(victim: str, shop: Shop) -> None:
    process = shop.start_ready()
    children = descendants(process.pid)
    os.kill(_direct_child(process.pid, victim), signal.SIGKILL)
    assert process.wait() == 1
    name = {"wsgi:app": "web", "sweep": "sweeper", "sandbox.wsgi:app": "sandbox"}[victim]
    assert f"{name} was killed by SIGKILL" in process.log_text()
    # Workers whose master was killed notice within their own poll.
    wait_until(lambda: not any(map(process_exists, children)), "all are gone")
    assert_nothing_left(shop, children)


def _direct_child(pid: int, argument: str) -> int:
    """The child of pid with this argument on its command line."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in map(int, children):
        if argument in Path(f"/proc/{child}/cmdline").read_text().split("\0"):
            return child
    raise AssertionError(f"{pid} has no child with {argument}")


def test_nothing_lives_on_after_the_run_itself_was_killed(shop: Shop) -> None:
    process = shop.start_ready()
    children = descendants(process.pid)
    process.kill9(group=False)
    wait_until(lambda: not any(map(process_exists, children)), "all are gone")
    assert_nothing_left(shop, children)


def test_a_setting_from_outside_wins(
    shop: Shop, fresh_postgres: Callable[[], str], redis_url: str
) -> None:
    url = fresh_postgres()
    shop.start_ready(DATABASE_URL=url, LOCK_URL=redis_url)
    wait_http(f"{shop.url}/readyz", process=shop.process)
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        logins = connection.execute("SELECT login FROM members").fetchall()
    assert {login for (login,) in logins} == {member.login for member in DEMO_MEMBERS}
    assert not (shop.data / "payonce.db").exists()


@pytest.mark.parametrize(
    ("name", "url", "who"),
    [
        ("DATABASE_URL", "postgresql+psycopg://x:secret@127.0.0.1:{}/x", "The database at "),
        ("DATABASE_URL", "mysql+pymysql://x:secret@127.0.0.1:{}/x", "The database at "),
        ("LOCK_URL", "redis://:secret@127.0.0.1:{}/0", "The redis lock service "),
        ("LOCK_URL", "zookeeper://127.0.0.1:{}", "The zookeeper lock service "),
    ],
)
def test_a_service_that_does_not_answer_is_named_in_one_line(
    name: str, url: str, who: str, shop: Shop
) -> None:
    process = shop.start(RUN, **{name: url.format(free_port())})
    assert process.wait() == 1
    (line,) = process.log_text().splitlines()
    assert line.startswith(who)
    assert line.endswith(f"mend {name}.")
    assert "secret" not in line
