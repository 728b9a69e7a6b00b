"""One ZooKeeper session per process, and requests on it that never hang."""

import itertools
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import (
    ConnectionClosedError,
    ConnectionLoss,
    KazooException,
    NodeExistsError,
    NoNodeError,
    SessionExpiredError,
    SessionMovedError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState
from kazoo.retry import KazooRetry

from locks.errors import LockUnavailable

# An unreachable service must be known within about a second; an answer takes some milliseconds.
CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S = 1.0, 1.0
# The client reconnects in the background; a server that is back is found within this.
FIRST_RECONNECT_S, LONGEST_RECONNECT_S = 0.05, 1.0

# A follower tells the leader of our sign of life with its next ping, half a tick later at most:
# that much of the session's time is not counted on.
MARGIN_DIVISOR = 6

_numbers = itertools.count()
_INTERRUPTIONS = (ConnectionLoss, ConnectionClosedError, SessionExpiredError, SessionMovedError)


class Interrupted(LockUnavailable):
    """The connection to ZooKeeper broke, so it is not known whether the request was carried out."""


class Session:
    """A client that connects in the background, and the session time-out that it was granted."""

    def __init__(self, hosts: str, session_ms: int, on_loss: Callable[[], None]) -> None:
        self._on_loss = on_loss
        self._was_granted = threading.Event()
        self._granted_ms = session_ms
        self._number = next(_numbers)
        self._client: Any = KazooClient(
            hosts=hosts,
            timeout=session_ms / 1_000,
            connection_retry=KazooRetry(
                max_tries=-1, delay=FIRST_RECONNECT_S, max_delay=LONGEST_RECONNECT_S
            ),
        )
        self._client.add_listener(self._state_changed)
        self._note_granted_time()
        self._live = self._client.start_async()

    @property
    def safe_ms(self) -> int:
        """How long after an answered request the session certainly still stands."""
        return self._granted_ms - self._granted_ms // MARGIN_DIVISOR

    @property
    def number(self) -> int:
        """Another one after each loss of a session: what the service said before may be past."""
        return self._number

    @property
    def is_suspended(self) -> bool:
        """Whether the connection is broken, so that the session may end unseen."""
        return bool(self._client.state != KazooState.CONNECTED)

    def client(self, timeout_s: float = CONNECT_TIMEOUT_S) -> Any:
        """The connected client. Raises LockUnavailable if there is no connection in time."""
        if not (self._live.wait(timeout_s) and self._was_granted.wait(timeout_s)):
            raise LockUnavailable("ZooKeeper: there is no connection, or the session is suspended.")
        return self._client

    def make(self, parent: str, children: list[str]) -> None:
        """Make the folders that are missing. Raises LockUnavailable."""
        client = self.client()
        reply(client.ensure_path_async("/"))
        reply(client.ensure_path_async(parent))
        for made in [client.create_async(f"{parent}/{child}", b"") for child in children]:
            try:
                reply(made)
            except NodeExistsError:
                continue

    def close(self) -> None:
        """End the session at the server, if it can be reached; its nodes go with it."""
        if self._live.is_set():
            self._stop()
            return
        # kazoo would wait for its attempt to connect, for as long as a session may last. Its
        # threads are daemons and end by themselves, with that attempt or with the process.
        with suppress(RuntimeError):  # the interpreter is ending and starts no more threads
            threading.Thread(target=self._stop, daemon=True).start()

    def _stop(self) -> None:
        with suppress(KazooException, OSError):
            self._client.stop()
            self._client.close()

    def _state_changed(self, state: str) -> None:
        if state == KazooState.LOST:
            self._number = next(_numbers)
            self._on_loss()

    def _note_granted_time(self) -> None:
        """Learn the session time-out that the server granted, which kazoo keeps to itself.

        A server bounds it to 2 to 20 of its ticks (ZooKeeper Programmer's Guide, Sessions). To
        take the time we asked for instead would be to believe in a lease that has ended.
        """
        connection = self._client._connection
        connect = connection._connect

        def connect_and_note(*where: object) -> tuple[float, float]:
            read_timeout_ms, connect_timeout_ms = connect(*where)
            # kazoo stops reading after two thirds of the granted time.
            self._granted_ms = round(read_timeout_ms * 3 / 2)
            self._was_granted.set()
            return read_timeout_ms, connect_timeout_ms

        connection._connect = connect_and_note


def reply(result: Any, timeout_s: float = REPLY_TIMEOUT_S) -> Any:
    """A request's answer. Raises Interrupted, LockUnavailable, NoNodeError or NodeExistsError."""
    try:
        return result.get(timeout=timeout_s)
    except (NoNodeError, NodeExistsError):
        raise
    except KazooTimeoutError as error:
        raise LockUnavailable(f"ZooKeeper did not answer in {timeout_s:g} s.") from error
    except _INTERRUPTIONS as error:
        raise Interrupted(f"({type(error).__name__})") from error
    except KazooException as error:
        raise LockUnavailable(f"ZooKeeper refused: {type(error).__name__} {error}") from error
