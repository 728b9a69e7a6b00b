"""HTTP to the gateways: one bounded request, one bounded answer, nothing hidden.

Both gateway libraries bring a transport of their own that opens a connection per call, obeys
`http_proxy` (one of them also `.netrc`, whose entry replaces the signed `Authorization` header),
follows redirects, and restarts its read time-out with every byte received. This one does none of
that. It never retries either: only the caller knows what repeating a call would mean.

Bounds in time: connecting takes at most the connect time-out for each address that the gateway's
name has, the answer (headers and body together, however slowly it drips) at most the read
time-out. Looking up the name is bounded by the machine's resolver alone.
"""

import http.client
import io
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
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

PIECE_BYTES = 64 * 1024
"""A file is handed on in pieces of at most this size."""

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
    `sent` is False only where there was never a connection to send the request on.
    """

    def __init__(self, code: str, detail: str, *, sent: bool = True) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.sent = sent


class Transport:
    """Sends requests, keeping connections for reuse. Safe for threads and across fork."""

    def __init__(self, *, connect_timeout_ms: int, read_timeout_ms: int) -> None:
        self._connect_timeout_s = connect_timeout_ms / 1000
        self._timeout = urllib3.Timeout(
            connect=self._connect_timeout_s, read=read_timeout_ms / 1000
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
        with _faults():
            return _read(self._open(method, url, headers, body, self._timeout))

    def download(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        sink: Callable[[bytes], None],
        max_bytes: int,
        total_timeout_s: float,
    ) -> Answer:
        """Send once and hand the body of an answer 200 to `sink`, a piece at a time.

        The whole answer must come within `total_timeout_s`, however it drips, and have at most
        `max_bytes`. The answer returned has no body; an answer of another status is no file: it is
        returned as `send` does, and `sink` is not called. Raises TransportFault, and what `sink`
        raises; `sink` may have got a part by then.
        """
        limit = urllib3.Timeout(connect=self._connect_timeout_s, read=total_timeout_s)
        with _faults():
            response = self._open(method, url, headers, None, limit)
            if response.status != 200:
                return _read(response)
        left = max_bytes
        try:
            while True:
                with _faults():
                    piece = response.read(PIECE_BYTES)
                if not piece:
                    break
                left -= len(piece)
                if left < 0:
                    raise TransportFault("bad_answer", f"the file is longer than {max_bytes} bytes")
                sink(piece)
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return _without_body(response)

    def _open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: urllib3.Timeout,
    ) -> urllib3.BaseHTTPResponse:
        return self._current_pool().request(
            method,
            url,
            headers=dict(headers),
            body=body,
            timeout=timeout,
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )

    def _current_pool(self) -> urllib3.PoolManager:
        pid, pool = self._pool_of_pid
        if pid != os.getpid():
            # Sockets inherited over a fork belong to the parent: never speak on them. No lock, as
            # it could be inherited locked; two threads may both make a pool, and one is dropped.
            pool = _new_pool()
            self._pool_of_pid = (os.getpid(), pool)
        return pool


@contextmanager
def _faults() -> Iterator[None]:
    """Whatever the network does, as a TransportFault."""
    try:
        yield
    except (NewConnectionError, ConnectTimeoutError) as error:
        # A refused connection, or a name not found, is a subclass of the connect time-out's in
        # some releases of urllib3. In each case there was nothing to send a request on.
        code = "unreachable" if isinstance(error, NewConnectionError) else "timeout"
        raise TransportFault(code, str(error), sent=False) from error
    except ReadTimeoutError as error:
        raise TransportFault("timeout", str(error)) from error
    except (HTTPError, OSError) as error:
        raise TransportFault("unreachable", f"{type(error).__name__}: {error}") from error


def _without_body(response: urllib3.BaseHTTPResponse) -> Answer:
    return Answer(status=response.status, headers=tuple(response.headers.items()), body=b"")


def _read(response: urllib3.BaseHTTPResponse) -> Answer:
    body = b""
    try:
        # To its end: one read alone would not tell that an answer was cut short.
        while len(body) <= MAX_ANSWER_BYTES and (
            piece := response.read(MAX_ANSWER_BYTES + 1 - len(body))
        ):
            body += piece
    except BaseException:
        response.close()
        raise
    if len(body) > MAX_ANSWER_BYTES:
        response.close()
        raise TransportFault("bad_answer", f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
    response.release_conn()
    return replace(_without_body(response), body=body)


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


class _Response(http.client.HTTPResponse):
    """Python's own takes a chunk of length -1 for all that comes until the connection ends."""

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]  # not in its stub
        if size < 0:
            raise ValueError(f"a chunk of length {size}")
        return size


class _Bounded(HTTPConnection):
    """A connection whose read time-out covers a whole answer, and which does not stay idle."""

    response_class = _Response
    _last_used_s = 0.0

    def __str__(self) -> str:
        """What urllib3's messages begin with."""
        return f"{self.host}:{self.port}"

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
