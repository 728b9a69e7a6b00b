"""Real servers for the tests, private to one run: Redis, ZooKeeper, PostgreSQL, MariaDB.

Each class is one server on a free port of 127.0.0.1 with its data in a temporary folder. Used as
`with RedisServer() as server:` by tests that stop or kill it, and through the fixtures of
conftest.py by all others. `server.process` is the ManagedProcess, so a test can freeze it, or
kill it and `server.start()` it again on the same port with the same data.
"""

import os
import socket
from pathlib import Path

from tests.databases import DatabaseServer, MariaDbServer, PostgresServer
from tests.processes import (
    ManagedProcess,
    MissingProgram,
    ProcessFailed,
    find_program,
    free_port,
    make_folder,
    remove_folder,
    wait_http,
    wait_until,
)
from tests.server import Server

__all__ = [
    "DatabaseServer",
    "ManagedProcess",
    "MariaDbServer",
    "MissingProgram",
    "PostgresServer",
    "ProcessFailed",
    "RedisServer",
    "Server",
    "ZooKeeperServer",
    "find_program",
    "free_port",
    "make_folder",
    "remove_folder",
    "wait_http",
    "wait_until",
]


class RedisServer(Server):
    """Redis with nothing on disk: killed and started again it comes back empty (DESIGN T6)."""

    name = "redis"

    @property
    def url(self) -> str:
        """redis://127.0.0.1:port/0"""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """No config file; no snapshot, no append-only file."""
        return [
            find_program("redis-server"),
            *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "no", "--daemonize", "no"),
        ]

    def is_ready(self) -> bool:
        """Answers PING."""
        return _ask(self.port, b"PING\r\n").startswith(b"+PONG")


class ZooKeeperServer(Server):
    """One standalone ZooKeeper with a small heap, its ticks short so that sessions end soon."""

    name = "zookeeper"

    @property
    def hosts(self) -> str:
        """127.0.0.1:port"""
        return f"127.0.0.1:{self.port}"

    def url(self, chroot: str) -> str:
        """zookeeper://127.0.0.1:port/chroot; the chroot need not exist."""
        return f"zookeeper://{self.hosts}/{chroot.strip('/')}"

    def prepare(self) -> None:
        """Write the logging configuration; zoo.cfg holds the port and is written per start."""
        (self.folder / "log4j.properties").write_text(
            "log4j.rootLogger=WARN, out\n"
            "log4j.appender.out=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.out.layout=org.apache.log4j.PatternLayout\n"
            "log4j.appender.out.layout.ConversionPattern=%d{ISO8601} %p %c: %m%n\n"
        )

    def command(self) -> list[str]:
        """The Java command line that Debian's scripts would build, without their log folder."""
        config = self.folder / "zoo.cfg"
        config.write_text(
            f"dataDir={self.folder / 'data'}\n"
            "clientPortAddress=127.0.0.1\n"
            f"clientPort={self.port}\n"
            "tickTime=500\n"
            "minSessionTimeout=500\n"
            "maxSessionTimeout=60000\n"
            "maxClientCnxns=0\n"
            "admin.enableServer=false\n"
            "4lw.commands.whitelist=srvr,ruok,cons,stat,mntr\n"
        )
        return [
            find_program("java"),
            *("-Xms32m", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *("-Dzookeeper.forceSync=no", "-Dzookeeper.jmx.log4j.disable=true"),
            *("-cp", os.pathsep.join([str(self.folder), *_zookeeper_jars()])),
            "org.apache.zookeeper.server.ZooKeeperServerMain",
            str(config),
        ]

    def is_ready(self) -> bool:
        """Answers `srvr` with its mode."""
        return b"Mode: standalone" in _ask(self.port, b"srvr")


def _ask(port: int, question: bytes) -> bytes:
    """Send a line to 127.0.0.1:port and give what comes back first; empty if nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as link:
            link.sendall(question)
            return link.recv(4096)
    except OSError:
        return b""


def _zookeeper_jars() -> list[str]:
    folder = Path("/usr/share/java")
    jars = [folder / name for name in ("zookeeper.jar", "slf4j-log4j12.jar", "log4j-1.2.jar")]
    if not jars[0].exists():
        raise MissingProgram(
            f"ZooKeeper is not installed ({jars[0]} is missing). Run `make test`, which installs "
            "what is missing, or scripts/install_system.sh."
        )
    return [str(jar) for jar in jars]
