"""Fixtures for all tests: servers of this run and fresh databases on them.

A server starts when the first test asks for it and lives to the end of the run. Tests that stop
or kill a server start their own (see services.py), never these.
"""

import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import pytest

from tests.processes import stop_everything
from tests.services import (
    DatabaseServer,
    MariaDbServer,
    PostgresServer,
    RedisServer,
    ZooKeeperServer,
)

_main_pid = os.getpid()


def pytest_configure(config: pytest.Config) -> None:
    """Make SIGTERM end the run as Ctrl-C does, so that the fixtures clean up."""
    signal.signal(signal.SIGTERM, _end_run)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind, and say nothing after pytest's closing line: a client's thread whose
    server has ended may still write to a log whose stream is closed."""
    logging.raiseExceptions = False
    stop_everything()


def _end_run(number: int, frame: FrameType | None) -> None:
    if os.getpid() == _main_pid:
        raise KeyboardInterrupt
    # A forked child of a test: it dies of the signal, as it would without us.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A lock's key that no other test uses."""
    return f"key-{abs(hash(request.node.nodeid)):x}"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The run's Redis."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """redis://127.0.0.1:port/0 of the run's Redis."""
    return redis_server.url


@pytest.fixture(scope="session")
def zookeeper_server() -> Iterator[ZooKeeperServer]:
    """The run's ZooKeeper."""
    with ZooKeeperServer() as server:
        yield server


@pytest.fixture(scope="module")
def zookeeper_url(zookeeper_server: ZooKeeperServer, request: pytest.FixtureRequest) -> str:
    """zookeeper://127.0.0.1:port/chroot, a chroot (not made yet) for each test module."""
    return zookeeper_server.url(re.sub(r"[^0-9A-Za-z]+", "-", request.node.nodeid))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The run's PostgreSQL."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDbServer]:
    """The run's MariaDB."""
    with MariaDbServer() as server:
        yield server


def _factory(server: DatabaseServer) -> Iterator[Callable[[], str]]:
    with ExitStack() as made:
        yield lambda: made.enter_context(server.fresh_database())


@pytest.fixture
def fresh_postgres(postgres_server: PostgresServer) -> Iterator[Callable[[], str]]:
    """Call it for the URL of an empty PostgreSQL database, dropped after the test."""
    yield from _factory(postgres_server)


@pytest.fixture
def fresh_mariadb(mariadb_server: MariaDbServer) -> Iterator[Callable[[], str]]:
    """Call it for the URL of an empty MariaDB database, dropped after the test."""
    yield from _factory(mariadb_server)


@pytest.fixture
def fresh_sqlite(tmp_path: Path) -> Callable[[], str]:
    """Call it for the URL of a SQLite file that does not exist yet."""
    numbers = iter(range(1_000))
    return lambda: f"sqlite:///{tmp_path / f'database-{next(numbers)}.db'}"


@pytest.fixture
def postgres_url(fresh_postgres: Callable[[], str]) -> str:
    """An empty PostgreSQL database for this test: postgresql+psycopg://…"""
    return fresh_postgres()


@pytest.fixture
def mariadb_url(fresh_mariadb: Callable[[], str]) -> str:
    """An empty MariaDB database for this test: mysql+pymysql://…?charset=utf8mb4"""
    return fresh_mariadb()


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def any_database_url(request: pytest.FixtureRequest) -> str:
    """The test runs three times, each on an empty database of one kind."""
    fixture = {
        "sqlite": "fresh_sqlite",
        "postgresql": "fresh_postgres",
        "mariadb": "fresh_mariadb",
    }[request.param]
    factory: Callable[[], str] = request.getfixturevalue(fixture)
    return factory()
