"""The servers the tests rely on are what they seem, and leave nothing behind."""

import os
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis
import sqlalchemy as sa
from kazoo.client import KazooClient

from tests.processes import (
    ManagedProcess,
    free_port,
    http_status,
    process_exists,
    process_state,
    wait_http,
    wait_until,
)
from tests.services import (
    MariaDbServer,
    MissingProgram,
    PostgresServer,
    ProcessFailed,
    RedisServer,
    Server,
    ZooKeeperServer,
    find_program,
)

ROOT = Path(__file__).resolve().parents[2]


def _rows(url: str, statement: str) -> list[tuple[object, ...]]:
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(statement))]
    finally:
        engine.dispose()


def test_redis_answers_and_keeps_nothing_on_disk(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("key", "value")
        assert client.get("key") == b"value"
        assert client.config_get("save")["save"] == ""
        assert client.config_get("appendonly")["appendonly"] == "no"


# kazoo warns of a chroot that is not there yet; that it can be made is what this test sees.
@pytest.mark.filterwarnings("ignore:No chroot path exists")
def test_zookeeper_takes_a_chroot_of_its_own(zookeeper_url: str) -> None:
    assert zookeeper_url.endswith("tests-integration-test-services-py")
    client = KazooClient(hosts=zookeeper_url.removeprefix("zookeeper://"), timeout=5)
    client.start(timeout=10)
    try:
        client.ensure_path("/")
        client.create("/node", b"value")
        assert client.get("/node")[0] == b"value"
    finally:
        client.stop()
        client.close()


def test_every_kind_of_database_starts_empty_and_keeps_rows(any_database_url: str) -> None:
    engine = sa.create_engine(any_database_url)
    try:
        assert sa.inspect(engine).get_table_names() == []
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE goods (id INTEGER, name VARCHAR(20))"))
            connection.execute(sa.text("INSERT INTO goods VALUES (1, '茶 🍵')"))
    finally:
        engine.dispose()
    assert _rows(any_database_url, "SELECT name FROM goods") == [("茶 🍵",)]


@pytest.mark.parametrize("kind", ["fresh_sqlite", "fresh_postgres", "fresh_mariadb"])
def test_two_databases_of_one_test_are_apart(kind: str, request: pytest.FixtureRequest) -> None:
    factory: Callable[[], str] = request.getfixturevalue(kind)
    first, second = sa.create_engine(factory()), sa.create_engine(factory())
    try:
        with first.begin() as connection:
            connection.execute(sa.text("CREATE TABLE goods (id INTEGER)"))
        assert sa.inspect(second).get_table_names() == []
    finally:
        first.dispose()
        second.dispose()


@pytest.mark.parametrize("kind", ["postgres_server", "mariadb_server"])
def test_a_database_is_dropped_though_a_transaction_is_open_in_it(
    kind: str, request: pytest.FixtureRequest
) -> None:
    server: PostgresServer | MariaDbServer = request.getfixturevalue(kind)
    url = server.create_database()
    engine = sa.create_engine(url)
    connection = engine.connect()
    connection.execute(sa.text("CREATE TABLE goods (id INTEGER)"))
    connection.execute(sa.text("INSERT INTO goods VALUES (1)"))
    server.drop_database(url)
    connection.invalidate()
    engine.dispose()
    with pytest.raises(sa.exc.OperationalError):
        _rows(url, "SELECT 1")


def test_the_databases_do_not_run_in_utc(
    fresh_postgres: Callable[[], str], fresh_mariadb: Callable[[], str]
) -> None:
    assert _rows(fresh_postgres(), "SHOW timezone") == [("Asia/Shanghai",)]
    assert _rows(fresh_mariadb(), "SELECT @@time_zone") == [("+08:00",)]


def test_a_killed_postgres_comes_back_on_its_port_with_what_was_committed() -> None:
    with PostgresServer() as server:
        url = server.create_database()
        dsn = url.replace("+psycopg", "")
        with psycopg.connect(dsn) as connection:
            connection.execute("CREATE TABLE goods (id INTEGER)")
            connection.execute("INSERT INTO goods VALUES (7)")
        server.process.kill9()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(dsn)
        server.start()
        assert _rows(url, "SELECT id FROM goods") == [(7,)]


@pytest.mark.parametrize("kind", [RedisServer, ZooKeeperServer, PostgresServer, MariaDbServer])
def test_a_stopped_server_leaves_no_process_and_no_folder(kind: type[Server]) -> None:
    server = kind()
    with server:
        pid, folder = server.process.pid, server.folder
        assert process_exists(pid)
        assert folder.is_dir()
    assert not process_exists(pid)
    assert not folder.exists()


def test_a_process_that_dies_early_is_reported_with_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no such luck'); raise SystemExit(3)"]
    process = ManagedProcess("early", command, log=tmp_path / "log").start()
    with pytest.raises(ProcessFailed, match=r"(?s)ended with 3.*no such luck"):
        process.wait_ready(lambda: False)


def test_a_frozen_process_does_nothing_until_it_is_continued(tmp_path: Path) -> None:
    ticks = tmp_path / "ticks"
    code = (
        "import sys, time\n"
        "while True:\n"
        "    open(sys.argv[1], 'a').write('.')\n"
        "    time.sleep(0.005)\n"
    )
    command = [sys.executable, "-c", code, str(ticks)]
    with ManagedProcess("ticker", command, log=tmp_path / "log") as process:
        wait_until(lambda: ticks.exists() and ticks.stat().st_size > 3, "it ticks")
        process.sigstop()
        wait_until(lambda: process_state(process.pid) == "T", "it is stopped")
        before = ticks.stat().st_size
        time.sleep(0.1)
        assert ticks.stat().st_size == before
        process.sigcont()
        wait_until(lambda: ticks.stat().st_size > before, "it goes on")


def test_a_frozen_process_that_ignores_sigterm_is_gone_after_terminate(tmp_path: Path) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    process = ManagedProcess("stubborn", [sys.executable, "-c", code], log=tmp_path / "log").start()
    process.wait_ready(lambda: "ready" in process.log_text())
    process.sigstop()
    assert process.terminate(timeout_s=0.2) == -signal.SIGKILL
    assert not process_exists(process.pid)


def test_terminate_takes_the_grandchildren_along(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    process = ManagedProcess("parent", [sys.executable, "-c", code], log=tmp_path / "log").start()
    process.wait_ready(lambda: process.log_text().endswith("\n"))
    grandchild = int(process.log_text())
    assert process_exists(grandchild)
    process.terminate()
    wait_until(lambda: not process_exists(grandchild), "the grandchild is gone")


@pytest.mark.parametrize("how", ["interrupt", "terminate", "kill"])
def test_a_run_that_is_broken_off_leaves_no_server(how: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    probe = tmp_path / "test_probe.py"
    probe.write_text(
        textwrap.dedent(
            """
            import time

            def test_waits(redis_server):
                print("server", redis_server.process.pid, redis_server.folder, flush=True)
                time.sleep(600)
            """
        )
    )
    # A run that a script started in the background ignores SIGINT, and so would its children.
    python = ["env", "--default-signal=INT", sys.executable]
    run = ManagedProcess(
        "pytest",
        [*python, "-m", "pytest", "-s", "-c", str(ROOT / "pyproject.toml"), str(probe)],
        log=tmp_path / "log",
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).start()
    run.wait_ready(lambda: "server " in run.log_text())
    words = run.log_text().split("server ", 1)[1].split()
    pid, folder = int(words[0]), Path(words[1])
    assert process_exists(pid)
    which = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM, "kill": signal.SIGKILL}[how]
    run.send(which, group=False)
    run.wait()
    wait_until(lambda: not process_exists(pid), "the server is gone")
    if how == "kill":
        # Nobody is left to remove the folder; only processes are promised here.
        shutil.rmtree(folder)
    else:
        assert not folder.exists()


def test_a_missing_program_names_make_test() -> None:
    with pytest.raises(MissingProgram, match="make test"):
        find_program("no-such-program-of-payonce")


def test_free_ports_are_not_given_twice_and_a_span_is_free() -> None:
    first = free_port(span=3)
    assert {free_port() for _ in range(50)}.isdisjoint({first, first + 1, first + 2})


def test_wait_http_waits_for_the_first_answer(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    url = f"http://127.0.0.1:{port}/"
    assert http_status(url) is None
    with ManagedProcess("http", command, log=tmp_path / "log", cwd=tmp_path) as process:
        wait_http(url, process=process)
        wait_http(f"{url}nothing-here", status=404, process=process)
    with pytest.raises(ProcessFailed, match="ended with"):
        wait_http(url, process=process)
