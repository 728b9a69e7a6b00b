"""LOCK_URL: which lock service, and where."""

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, unquote

from locks.errors import LockConfigError
from locks.observe import LockObserver
from locks.on_files.lock import FileLock
from locks.on_files.mounts import shared_type
from locks.on_redis.lock import RedisLock
from locks.on_zookeeper.lock import MAX_SESSION_MS, MIN_SESSION_MS, SESSION_MS, ZooKeeperLock
from locks.protocol import LeaseLock
from locks.url_parts import check_options, hosts_and_ports, number, split_url

_Maker = Callable[[str, SplitResult, LockObserver | None], LeaseLock]

_ZOOKEEPER_PORT = 2181
_NO_ZOOKEEPER = (
    "There is no host and port that can be read. Write zookeeper://h1:2181,h2:2181/, "
    "with user:password@ before the hosts if there are any."
)


def from_url(url: str, observer: LockObserver | None = None) -> LeaseLock:
    """The lock service that a URL names. Nothing connects yet.

    `observer` is told what the lock does (see locks.observe).

        redis://user:password@host:6379/0     rediss:// for TLS     unix:///run/redis.sock?db=0
        redis+sentinel://user:password@h1:26379,h2:26379/service/0?sentinel_password=…
        redis+cluster://user:password@h1:7000,h2:7000
        zookeeper://user:password@host1:2181,host2:2181/chroot?session_ms=15000
        file:///var/lib/shop/locks

    Raises LockConfigError, which says what is wrong and how to mend it; it never quotes a password.
    """
    parts = split_url(url)
    make = _BY_SCHEME.get(parts.scheme)
    if make is None:
        known = ", ".join(f"{scheme}://" for scheme in _BY_SCHEME)
        raise LockConfigError(f"It begins with {parts.scheme!r}; known are {known}.")
    return make(url, parts, observer)


def _redis(url: str, parts: SplitResult, observer: LockObserver | None) -> LeaseLock:
    return RedisLock(url, observer)


def _zookeeper(url: str, parts: SplitResult, observer: LockObserver | None) -> LeaseLock:
    if "@" in parts.path + parts.query:
        raise LockConfigError("In a user or password write %2F for /, %3F for ? and %40 for @.")
    options = check_options(parts, {"session_ms"})
    user, at, hosts = parts.netloc.rpartition("@")
    places = hosts_and_ports(hosts, _ZOOKEEPER_PORT, _NO_ZOOKEEPER)
    session_ms = number(options.get("session_ms", str(SESSION_MS)), MAX_SESSION_MS)
    if session_ms is None or session_ms < MIN_SESSION_MS:
        raise LockConfigError(f"session_ms must be {MIN_SESSION_MS} to {MAX_SESSION_MS}.")
    chroot = unquote(parts.path).rstrip("/")
    if any(part in ("", ".", "..") for part in chroot.split("/")[1:]):
        raise LockConfigError("The path has an empty part or dots. Write /shop/locks.")
    return ZooKeeperLock(
        ",".join(_zookeeper_host(*place) for place in places) + chroot,
        session_ms=session_ms,
        credentials=_zookeeper_credentials(user) if at else "",
        observer=observer,
    )


def _zookeeper_host(name: str, port: int) -> str:
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _zookeeper_credentials(text: str) -> str:
    """What ZooKeeper's digest scheme takes, which ends the user at the first colon."""
    user, _, password = (unquote(part) for part in text.partition(":"))
    if not user or not password or ":" in user:
        raise LockConfigError("It needs user and password: zookeeper://user:password@h1:2181/.")
    return f"{user}:{password}"


def _file(url: str, parts: SplitResult, observer: LockObserver | None) -> LeaseLock:
    check_options(parts, set())
    if parts.netloc not in ("", "localhost"):
        # The host is not quoted: it may be another scheme's, with user and password.
        raise LockConfigError(
            "A folder's URL has three slashes; this one names a host. "
            "Write file:///var/lib/shop/locks."
        )
    folder = Path(unquote(parts.path))
    # Dots, slashes and links may all lead to the root folder.
    if not folder.is_absolute() or os.path.realpath(folder) == "/":
        raise LockConfigError("It names no folder. Write file:///var/lib/shop/locks.")
    kind = shared_type(folder)
    if kind is not None:
        raise LockConfigError(
            f"The folder {folder} lies on a file system of type {kind}, which several hosts may "
            "share. Name a folder on a local one, or use Redis or ZooKeeper."
        )
    return FileLock(folder, observer)


_BY_SCHEME: dict[str, _Maker] = {
    "redis": _redis,
    "rediss": _redis,
    "unix": _redis,
    "redis+sentinel": _redis,
    "rediss+sentinel": _redis,
    "redis+cluster": _redis,
    "rediss+cluster": _redis,
    "zookeeper": _zookeeper,
    "file": _file,
}
