"""HTTP to the gateways: one bounded request, one bounded answer, nothing hidden.

Both gateway libraries bring a transport of their own that opens a connection per call, obeys
`http_proxy` (one of them also `.netrc`, whose entry replaces the signed `Authorization` header),
follows redirects, and restarts its read time-out with every byte received. This one does none of
that. It never retries either: only the caller knows what repeating a call would mean.

Bounds in time: connecting takes at most the connect time-out for each address that the gateway's
name has, the answer (headers and body together, however slowly it drips) at most the read
time-out. Looking up the name is bounded by the machine's resolver alone.
"""

import io
import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.response import HTTPResponse

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_ANSWER_BYTES = 1024 * 1024
"""No answer of the calls made here comes near; a longer one is not an answer."""

MAX_IDLE_S = 1.0
"""A connection unused for longer is opened anew. Servers close idle connections after two seconds
or more (gunicorn: 2 s); a request sent into one that is just being closed would be lost, and its
outcome unknown, for no good reason."""

MAX_CONNECTIONS = 16
"""Connections kept per gateway and process; more threads than that open short-lived ones."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back, byte for byte."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class TransportFault(Exception):
    """No readable answer came back; whether the gateway acted on the request is unknown.

    `code` is one of `timeout`, `unreachable`, `bad_answer`, `server_error` (see `GatewayFault`).
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Transport:
    """Sends requests, keeping connections for reuse. Safe for threads and across fork."""

    def __init__(self, *, connect_timeout_ms: int, read_timeout_ms: int) -> None:
        self._timeout = urllib3.Timeout(
            connect=connect_timeout_ms / 1000, read=read_timeout_ms / 1000
        )
        self._pool_of_pid = (os.getpid(), _new_pool())
        # At DEBUG it would log each address, and Alipay's addresses are whole signed requests.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        """Send once and read the whole answer, whatever its status; redirects are not followed.

        Raises TransportFault.
        """
        try:
            response = self._current_pool().request(
                method,
                url,
                headers=dict(headers),
                body=body,
                timeout=self._timeout,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            return _read(response)
        except (ConnectTimeoutError, ReadTimeoutError) as error:
            # A refused connection is a subclass of the connect time-out in urllib3.
            code = "unreachable" if isinstance(error, NewConnectionError) else "timeout"
            raise TransportFault(code, str(error)) from error
        except (HTTPError, OSError) as error:
            raise TransportFault("unreachable", f"{type(error).__name__}: {error}") from error

    def _current_pool(self) -> urllib3.PoolManager:
        pid, pool = self._pool_of_pid
        if pid != os.getpid():
            # Sockets inherited over a fork belong to the parent: never speak on them. No lock, as
            # it could be inherited locked; two threads may both make a pool, and one is dropped.
            pool = _new_pool()
            self._pool_of_pid = (os.getpid(), pool)
        return pool


def _read(response: urllib3.BaseHTTPResponse) -> Answer:
    try:
        body = response.read(MAX_ANSWER_BYTES + 1)
    except BaseException:
        response.close()
        raise
    if len(body) > MAX_ANSWER_BYTES:
        response.close()
        raise TransportFault("bad_answer", f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
    response.release_conn()
    return Answer(status=response.status, headers=tuple(response.headers.items()), body=body)


class _DeadlineReader(io.RawIOBase):
    """Reads from a socket until a fixed moment, however the bytes trickle in."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline
        self._raw: io.RawIOBase = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the answer took too long")
        self._sock.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineSocket:
    """Stands before a socket while one answer is read; `http.client` asks it for the file."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._sock, self._deadline))

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


class _Bounded(HTTPConnection):
    """A connection whose read time-out covers a whole answer, and which does not stay idle."""

    _last_used_s = 0.0

    @property
    def is_connected(self) -> bool:
        return super().is_connected and time.monotonic() - self._last_used_s <= MAX_IDLE_S

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3 itself
        sock = self.sock
        self._last_used_s = time.monotonic()
        timeout = self.timeout
        if sock is None or not isinstance(timeout, int | float):
            return super().getresponse()
        self.sock = _DeadlineSocket(sock, time.monotonic() + timeout)
        try:
            return super().getresponse()
        finally:
            if self.sock is not None:  # None: closed on reading "Connection: close"
                self.sock = sock


class _BoundedTLS(_Bounded, HTTPSConnection):
    """The same over TLS."""


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _Bounded


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _BoundedTLS


def _new_pool() -> urllib3.PoolManager:
    pool = urllib3.PoolManager(
        num_pools=2, maxsize=MAX_CONNECTIONS, ca_certs=certifi.where(), cert_reqs="CERT_REQUIRED"
    )
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool
