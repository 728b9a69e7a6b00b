"""PostgreSQL and MariaDB for the tests (see services.py), handing out empty databases.

fsync is off, since nobody pulls the plug in a test; a commit still reaches the kernel before it is
acknowledged, so that a server killed with SIGKILL has it when it comes back.
"""

import contextlib
import os
import pwd
import secrets
import signal
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pymysql

from tests.processes import ManagedProcess, MissingProgram, find_program, port_answers
from tests.server import Server

# Off UTC on purpose: a time that is stored or compared without its zone shows at once.
SERVER_UTC_OFFSET = "+08:00"
SERVER_TIMEZONE = "Asia/Shanghai"


class DatabaseServer(Server):
    """A database server that hands out fresh, empty databases."""

    @abstractmethod
    def create_database(self) -> str:
        """Make an empty database and give its SQLAlchemy URL."""

    @abstractmethod
    def drop_database(self, url: str) -> None:
        """Drop a database made by create_database, ending whoever is still connected to it."""

    @contextlib.contextmanager
    def fresh_database(self) -> Iterator[str]:
        """The URL of an empty database that is dropped afterwards."""
        url = self.create_database()
        try:
            yield url
        finally:
            self.drop_database(url)


class PostgresServer(DatabaseServer):
    """PostgreSQL, the newest version installed. It refuses to run as root, so root lends a user."""

    name = "postgres"

    def __init__(self) -> None:
        self.user = _lend_user("postgres")
        self.folders = _postgres_folders()
        super().__init__()

    def environment(self) -> dict[str, str]:
        """Without the tester's PG* variables."""
        return {**super().environment(), "HOME": str(self.folder)}

    def prepare(self) -> None:
        """Run initdb."""
        ManagedProcess(
            "initdb",
            [
                find_program("initdb", *self.folders),
                *("--pgdata", str(self.folder / "data"), "--username", "payonce"),
                *("--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8"),
                *("--no-sync", "--no-instructions"),
            ],
            log=self.folder / "initdb.log",
            env=self.environment(),
            cwd=self.folder,
            user=self.user,
        ).run_to_end()

    def command(self) -> list[str]:
        """The server in the foreground; commits are synchronous, so that SIGKILL loses none."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "max_connections": "300",
            "shared_buffers": "32MB",
            "fsync": "off",
            "full_page_writes": "off",
            "timezone": SERVER_TIMEZONE,
            "log_timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        data = str(self.folder / "data")
        return [find_program("postgres", *self.folders), "-D", data, *options]

    def _new_process(self) -> ManagedProcess:
        process = super()._new_process()
        process.stop_signal = signal.SIGINT  # "fast": ends sessions rather than waiting for them
        return process

    def is_ready(self) -> bool:
        """Lets us in."""
        try:
            self._admin().close()
        except psycopg.OperationalError:
            return False
        return True

    def _admin(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="payonce",
            dbname="postgres",
            connect_timeout=5,
            autocommit=True,
        )

    def create_database(self) -> str:
        """postgresql+psycopg://payonce@127.0.0.1:port/name"""
        name = _database_name()
        with self._admin() as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return f"postgresql+psycopg://payonce@127.0.0.1:{self.port}/{name}"

    def drop_database(self, url: str) -> None:
        """DROP DATABASE … WITH (FORCE)."""
        with self._admin() as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {_name_in(url)} WITH (FORCE)")


class MariaDbServer(DatabaseServer):
    """MariaDB with its defaults of isolation and SQL mode, as a member of the public has it."""

    name = "mariadb"

    def __init__(self) -> None:
        self.user = _lend_user("mysql")
        super().__init__()

    def _defaults(self) -> list[str]:
        user = [] if self.user is None else [f"--user={self.user}"]
        return ["--no-defaults", *user, f"--datadir={self.folder / 'data'}"]

    def prepare(self) -> None:
        """Run mariadb-install-db; root may come in over TCP without a password."""
        ManagedProcess(
            "mariadb-install-db",
            [
                find_program("mariadb-install-db"),
                *self._defaults(),
                *("--auth-root-authentication-method=normal", "--skip-test-db"),
                *("--skip-name-resolve", "--innodb-log-file-size=16M"),
            ],
            log=self.folder / "install.log",
            env=self.environment(),
            cwd=self.folder,
            user=self.user,
        ).run_to_end()

    def command(self) -> list[str]:
        """Commits reach the kernel at once, so that SIGKILL loses none."""
        return [
            find_program("mariadbd"),
            *self._defaults(),
            *("--bind-address=127.0.0.1", f"--port={self.port}"),
            f"--socket={self.folder / 'mariadb.sock'}",
            f"--pid-file={self.folder / 'mariadb.pid'}",
            *("--innodb-flush-log-at-trx-commit=2", "--innodb-doublewrite=0"),
            *("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M"),
            *("--skip-name-resolve", "--skip-log-bin", "--max-connections=300"),
            *("--character-set-server=utf8mb4", f"--default-time-zone={SERVER_UTC_OFFSET}"),
        ]

    def is_ready(self) -> bool:
        """Lets us in."""
        if not port_answers(self.port):
            return False
        try:
            self._admin().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def _admin(self) -> "pymysql.connections.Connection[pymysql.cursors.Cursor]":
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", connect_timeout=5, autocommit=True
        )

    def create_database(self) -> str:
        """mysql+pymysql://root@127.0.0.1:port/name?charset=utf8mb4"""
        name = _database_name()
        with self._admin() as admin, admin.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{name}?charset=utf8mb4"

    def drop_database(self, url: str) -> None:
        """Ends its sessions first: an open transaction would hold the DROP up."""
        name = _name_in(url)
        with self._admin() as admin, admin.cursor() as cursor:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", (name,))
            for (session_id,) in cursor.fetchall():
                with contextlib.suppress(pymysql.err.OperationalError):  # it has just gone
                    cursor.execute("KILL %s", (session_id,))
            cursor.execute(f"DROP DATABASE IF EXISTS {name}")


def _postgres_folders() -> list[str]:
    found = Path("/usr/lib/postgresql").glob("*/bin")
    versions = [folder for folder in found if folder.parent.name.isdigit()]
    return [str(f) for f in sorted(versions, key=lambda f: int(f.parent.name), reverse=True)]


def _lend_user(preferred: str) -> str | None:
    """Whom to run as: ourselves, unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in (preferred, "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise MissingProgram(f"Neither {preferred} nor nobody is a user of this system.")


def _database_name() -> str:
    return f"payonce_{secrets.token_hex(6)}"


def _name_in(url: str) -> str:
    return url.rsplit("/", 1)[1].split("?", 1)[0]
