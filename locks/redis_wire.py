"""One connection to a Redis server: requests packed by ourselves, replies read whole (RESP2).

The lock needs few commands, in the shortest time, and must know exactly what became of a request
whose connection broke. So it speaks the protocol itself (redis.io/docs/reference/protocol-spec);
a general client costs as much again as the two round trips of a lease, and some retry unasked.
"""

import contextlib
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any

# An unreachable service must be known within about a second; a reply takes well under 10 ms.
CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S = 0.75, 1.0
# Below this a time-out would mean "do not wait" to the socket (socket.settimeout).
SHORTEST_WAIT_S = 0.001
CHUNK_BYTES = 65_536
# Silence is asked after sooner than by the system's default of two hours.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))

# bytes, int, None, ReplyError, or a list of these.
Reply = Any


class LinkBroken(OSError):
    """The connection ended, or what came is not Redis' protocol."""


class ReplyError(Exception):
    """Redis answered with an error: `code` is its first word, such as NOSCRIPT or MOVED."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


@dataclass(frozen=True)
class Tls:
    """How to check a server, and what to show it."""

    ca_certs: str | None = None
    """File of the authorities to trust; None: the system's."""
    certfile: str | None = None
    keyfile: str | None = None
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """Raises OSError if a file cannot be read or used."""
        made = ssl.create_default_context(cafile=self.ca_certs)
        made.check_hostname = self.check_hostname
        if self.certfile is not None:
            made.load_cert_chain(self.certfile, self.keyfile)
        return made


@dataclass(frozen=True)
class Endpoint:
    """Where a server is and how to be let in."""

    host: str = ""
    port: int = 0
    path: str = ""
    """A Unix socket, instead of host and port."""
    user: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    tls: Tls | None = None

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


class Link:
    """A connection, used by one thread at a time. After any error it must be closed.

    Methods raise OSError (LinkBroken, TimeoutError, …) when the connection failed: what was asked
    may have been done or not.
    """

    def __init__(self, endpoint: Endpoint, timeout_s: float = REPLY_TIMEOUT_S) -> None:
        """Connect and log in. Raises ReplyError if the server refuses that."""
        self._timeout_s = timeout_s
        self._unread = b""
        self._socket = _open(endpoint, min(timeout_s, CONNECT_TIMEOUT_S))
        try:
            self._socket.settimeout(timeout_s)
            self._log_in(endpoint)
        except BaseException:
            self.close()
            raise

    def ask(self, request: bytes) -> Reply:
        """The reply to one request. An error of the server is given, not raised."""
        self._socket.sendall(request)
        return self._read()

    def ask_all(self, requests: list[bytes]) -> list[Reply]:
        """The replies to several requests that are sent at once."""
        self._socket.sendall(b"".join(requests))
        return [self._read() for _ in requests]

    def read_within(self, timeout_s: float) -> Reply:
        """What the server says next of its own accord.

        Raises TimeoutError if it says nothing; this connection may be listened to again then.
        """
        self._socket.settimeout(max(timeout_s, SHORTEST_WAIT_S))
        return self._read()

    def close(self) -> None:
        """End it, also for a thread that waits for a reply."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def abandon(self) -> None:
        """Close a forked child's copy; the parent's connection goes on."""
        self._socket.close()

    def _log_in(self, endpoint: Endpoint) -> None:
        requests = []
        if endpoint.password:
            user = (endpoint.user,) if endpoint.user else ()
            requests.append(pack("AUTH", *user, endpoint.password))
        if endpoint.database:
            requests.append(pack("SELECT", endpoint.database))
        for reply in self.ask_all(requests) if requests else ():
            if isinstance(reply, ReplyError):
                # A server that does not know a command quotes what came with it.
                secret = endpoint.password or "\0"
                raise ReplyError(str(reply).replace(secret, "***")) from None

    def _read(self) -> Reply:
        # Nearly always one read has all of the reply and nothing else.
        data = self._unread or self._receive()
        while True:
            try:
                reply, end = _parse(data, 0)
            except _Incomplete:
                self._unread = data  # kept, should nothing come in time
                data += self._receive()
            else:
                self._unread = data[end:]
                return reply

    def _receive(self) -> bytes:
        data = self._socket.recv(CHUNK_BYTES)
        if not data:
            raise LinkBroken("The server closed the connection.")
        return data


def pack(*words: str | int | bytes) -> bytes:
    """A request of these words."""
    return b"*%d\r\n" % len(words) + pack_words(*words)


def pack_words(*words: str | int | bytes) -> bytes:
    """Words as they stand in a request, after the line that says how many there are."""
    parts = []
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


class _Incomplete(Exception):
    """More of the reply is to come."""


def _parse(data: bytes, at: int) -> tuple[Reply, int]:
    """The reply that begins at a place, and the place where it ends."""
    end = data.find(b"\r\n", at)
    if end < 0:
        raise _Incomplete
    kind, line, after = data[at : at + 1], data[at + 1 : end], end + 2
    if kind == b":":
        return int(line), after
    if kind == b"$":
        return _parse_bulk(data, int(line), after)
    if kind == b"+":
        return line, after
    if kind == b"-":
        return ReplyError(line.decode(errors="replace")), after
    if kind != b"*":
        raise LinkBroken(f"This is no Redis: it answered {data[at : at + 20]!r}.")
    if line == b"-1":
        return None, after
    several = []
    for _ in range(int(line)):
        one, after = _parse(data, after)
        several.append(one)
    return several, after


def _parse_bulk(data: bytes, size: int, at: int) -> tuple[Reply, int]:
    if size < 0:
        return None, at
    if len(data) < at + size + 2:
        raise _Incomplete
    return data[at : at + size], at + size + 2


def _open(endpoint: Endpoint, timeout_s: float) -> socket.socket:
    if endpoint.path:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(timeout_s)
            made.connect(endpoint.path)
        except BaseException:
            made.close()
            raise
        return made
    context = endpoint.tls.context() if endpoint.tls is not None else None
    plain = socket.create_connection((endpoint.host, endpoint.port), timeout_s)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):  # Linux has them all
                plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if context is not None:
            return context.wrap_socket(plain, server_hostname=endpoint.host)
    except BaseException:
        plain.close()
        raise
    return plain
