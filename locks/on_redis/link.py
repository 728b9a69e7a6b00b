"""One connection to Redis: redis-py's own, given requests that are packed already.

redis-py connects, logs in, speaks TLS and reads the replies. Its client is left out: it takes as
long as the two round trips of a lease, and repeats some requests unasked. The lock must know of
every request whether it was sent, since a lost reply to it means that it may have been done.
"""

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

# An unreachable service must be known within about a second; a reply takes well under 10 ms.
CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S = 0.75, 1.0

# bytes, int, None, Refused, or a list of these.
Reply = Any
# Redis answered with an error; the connection is good.
Refused = redis.ResponseError

_BROKEN = (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse, OSError)


class LinkBroken(Exception):
    """The connection failed. What was asked may have been done or not."""


@dataclass(frozen=True)
class Endpoint:
    """Where a server is and how to be let in."""

    options: Mapping[str, Any] = field(repr=False)
    """As redis.connection.parse_url gives them."""

    @classmethod
    def of_url(cls, url: str) -> "Endpoint":
        """redis://, rediss:// or unix://. Raises ValueError."""
        return cls(dict(parse_url(url)))  # type: ignore[no-untyped-call]

    def __str__(self) -> str:
        return self.options.get("path") or f"{self.options['host']}:{self.options['port']}"

    def at(self, host: str, port: int) -> "Endpoint":
        """The same login at another place."""
        return Endpoint({**self.options, "host": host, "port": port})

    def connection(self, timeout_s: float) -> Any:
        """Not connected yet; redis-py's annotations of it are partial."""
        options = dict(self.options)
        kind: Any = options.pop("connection_class", redis.Connection)
        return kind(
            protocol=2,
            driver_info=None,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout_s,
            socket_connect_timeout=min(timeout_s, CONNECT_TIMEOUT_S),
            **options,
        )


class Link:
    """A connection, used by one thread at a time.

    Methods raise LinkBroken, after which it must be closed, and Refused.
    """

    def __init__(self, endpoint: Endpoint, timeout_s: float = REPLY_TIMEOUT_S) -> None:
        """Connect and log in."""
        self._connection = endpoint.connection(timeout_s)
        try:
            self._connection.connect()
        except redis.AuthenticationError as error:
            raise Refused(_without(endpoint, error)) from None
        except Refused as error:
            raise Refused(_without(endpoint, error)) from None
        except _BROKEN as error:
            raise LinkBroken(f"{error}") from error
        # By itself redis-py would connect anew, without a word of it, where a thread asks or hears
        # after another one closed the connection.
        self._connection.connect = self._connection.connect_check_health = _stay_closed

    def ask(self, request: bytes) -> Reply:
        """The reply to one request."""
        try:
            self._connection.send_packed_command((request,), check_health=False)
            return self._connection.read_response()
        except _BROKEN as error:
            raise LinkBroken(f"{error}") from error

    def ask_all(self, requests: Sequence[bytes]) -> list[Reply]:
        """The replies to several requests that are sent at once. Refusals are given, not raised."""
        replies: list[Reply] = []
        try:
            self._connection.send_packed_command((b"".join(requests),), check_health=False)
            for _ in requests:
                try:
                    replies.append(self._connection.read_response())
                except Refused as error:
                    replies.append(error)
        except _BROKEN as error:
            raise LinkBroken(f"{error}") from error
        return replies

    def hear(self, timeout_s: float) -> Reply:
        """What the server says next of its own accord; None if it says nothing for so long."""
        try:
            if self._connection.can_read(timeout=timeout_s):
                return self._connection.read_response()
        except _BROKEN as error:
            raise LinkBroken(f"{error}") from error
        except (AttributeError, ValueError) as error:
            # Another thread closed it, and with it the buffer that redis-py was reading into.
            raise LinkBroken("It was closed.") from error
        return None

    def interrupt(self) -> None:
        """Wake the thread that uses it: for it, all is over, and it closes the link.

        To close it under that thread would give its descriptor's number to the next connection,
        on which the thread would then sleep.
        """
        sock = self._connection._sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it; only for the thread that uses it. In a forked child it closes the copy alone."""
        self._connection.disconnect()


def _stay_closed(*_how: object, **_more: object) -> None:
    raise redis.ConnectionError("It was closed.")


def packed(*words: str | int | bytes) -> bytes:
    """A request as Redis reads it (RESP)."""
    return b"*%d\r\n" % len(words) + packed_words(*words)


def packed_words(*words: str | int | bytes) -> bytes:
    """Words as they stand in a request, after the line that says how many there are."""
    parts = []
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


def _without(endpoint: Endpoint, error: Exception) -> str:
    """What the server said; one that does not know AUTH quotes what came with it."""
    return str(error).replace(endpoint.options.get("password") or "\0", "***")
