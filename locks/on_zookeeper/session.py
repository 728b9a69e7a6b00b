"""One ZooKeeper session per process, and requests on it that never hang."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    ConnectionClosedError,
    ConnectionLoss,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    SessionClosedRequireSaslError,
    SessionExpiredError,
    SessionMovedError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState, KeeperState
from kazoo.retry import KazooRetry
from kazoo.security import CREATOR_ALL_ACL

from locks.clock import NS_PER_MS, Deadline, now_ns
from locks.errors import LockUnavailable
from locks.on_zookeeper.handler import DirectHandler

# An unreachable service must be known within about a second; an answer takes some milliseconds.
CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S = 1.0, 1.0
# The client reconnects in the background; a server that is back is found within this.
FIRST_RECONNECT_S, LONGEST_RECONNECT_S = 0.05, 1.0
# How much of the session's time is not counted on after an answer that came by way of the leader.
# A follower tells the leader of our signs of life each half tick, a sixth of the time at most;
# and the last of them may be the client's ping before our request, a third of the time ago.
MARGIN_DIVISOR = 2
# A client that ended for good, as after a refused password, is replaced not more often than this.
REPLACE_EVERY_MS = 1_000
CLOSED = "This lock object was closed."

_numbers = itertools.count()
_INTERRUPTIONS = (ConnectionLoss, ConnectionClosedError, SessionExpiredError, SessionMovedError)
_REFUSALS = (NoAuthError, AuthFailedError, SessionClosedRequireSaslError)


class Interrupted(LockUnavailable):
    """The connection to ZooKeeper broke, so it is not known whether the request was carried out."""


class Refused(LockUnavailable):
    """ZooKeeper does not let us in: the user or password of LOCK_URL is wrong or missing."""


class Credentials(str):
    """`user:password`. A text that does not show itself: the client logs its requests."""

    def __repr__(self) -> str:
        return "'***'"


class Session:
    """A client that connects in the background, and the session time-out that it was granted.

    `hosts` is `h1:p1,h2:p2/chroot`. What we make can be used with the same credentials only, or by
    everybody if there are none.
    """

    def __init__(
        self, hosts: str, session_ms: int, credentials: str, on_loss: Callable[[], None]
    ) -> None:
        self._hosts, _, chroot = hosts.partition("/")
        self.root = f"/{chroot}".rstrip("/")
        self._session_ms = session_ms
        self._credentials = Credentials(credentials)
        self._on_loss = on_loss
        self._guard = threading.RLock()
        self._is_closed = False
        self._wakes: list[Callable[[], None]] = []
        self._number = next(_numbers)
        self._link = self._connect()

    @property
    def number(self) -> int:
        """Another one after each loss of a session: what the service said before may be past."""
        return self._number

    @property
    def safe_ms(self) -> int:
        """How long after a request that the leader answered the session certainly still stands."""
        granted_ms = self._link.granted_ms
        return granted_ms - granted_ms // MARGIN_DIVISOR

    @property
    def is_suspended(self) -> bool:
        """Whether the connection is broken, so that the session may end unseen."""
        return bool(self._link.client.state != KazooState.CONNECTED)

    def client(self, timeout_s: float = CONNECT_TIMEOUT_S) -> Any:
        """The connected client. Raises LockUnavailable if there is none in time, or no more."""
        link = self._link
        if link.is_up() and not self._is_closed:
            return link.client
        link = self._replace_if_dead(link)
        if link.wait(Deadline(int(timeout_s * 1_000))):
            return link.client
        if link.was_refused:
            raise Refused
        raise LockUnavailable("ZooKeeper: there is no connection, or the session is suspended.")

    def make(self, folders: list[str]) -> None:
        """Make the folders that are missing, with all above them. Raises LockUnavailable."""
        parts = folders[0].strip("/").split("/")[:-1]
        paths = ["/" + "/".join(parts[:depth]) for depth in range(1, len(parts) + 1)] + folders
        client = self.client()
        # Where a folder stands, one that may not make it can still use it.
        looks = [(path, client.exists_async(path)) for path in paths]
        missing = [path for path, look in looks if reply(look) is None]
        for made in [client.create_async(path, b"") for path in missing]:
            with suppress(NodeExistsError):
                reply(made)

    def close(self) -> None:
        """End the session at the server, if it can be reached; its nodes go with it.

        Whoever waits is woken, and finds that there is no client any more.
        """
        with self._guard:
            self._is_closed = True
            wakes = list(self._wakes)
        for wake in wakes:
            wake()
        self._link.close()

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call this if the session is closed meanwhile. A client that stops calls no watcher.

        Raises LockUnavailable if the session was closed before.
        """
        with self._guard:
            if self._is_closed:
                raise LockUnavailable(CLOSED)
            self._wakes.append(wake)
        try:
            yield
        finally:
            with self._guard:
                self._wakes.remove(wake)

    def _connect(self) -> "_Link":
        client = KazooClient(
            hosts=self._hosts,
            timeout=self._session_ms / 1_000,
            handler=DirectHandler(),
            auth_data=[("digest", self._credentials)] if self._credentials else None,
            default_acl=CREATOR_ALL_ACL if self._credentials else None,
            connection_retry=KazooRetry(
                max_tries=-1, delay=FIRST_RECONNECT_S, max_delay=LONGEST_RECONNECT_S
            ),
        )
        return _Link(client, self._session_ms, self._lose)

    def _replace_if_dead(self, link: "_Link") -> "_Link":
        """The client to go on with: another one, with a new session, if this cannot come back."""
        with self._guard:
            is_dead = not self._is_closed and link is self._link and link.is_dead()
            if is_dead:
                self._link = self._connect()
                link.abandon()
                if self._is_closed:  # by a signal's handler, which did not see this one
                    self._link.close()
        if self._is_closed:
            raise LockUnavailable(CLOSED)
        if is_dead:
            self._lose()
        return self._link

    def _lose(self) -> None:
        self._number = next(_numbers)
        self._on_loss()


class _Link:
    """A kazoo client and what is to be known of it besides. Connects from construction on.

    Raises LockUnavailable where the client cannot start.
    """

    def __init__(self, client: Any, session_ms: int, on_loss: Callable[[], None]) -> None:
        self.client = client
        self.granted_ms = session_ms
        self.was_refused = False
        self._on_loss = on_loss
        self._is_closed = False
        self._was_granted = threading.Event()
        self._began_ns = self._broke_ns = now_ns()
        client.add_listener(self._state_changed)
        self._note_granted_time()
        try:
            self._live = client.start_async()
        except (OSError, RuntimeError) as error:  # the process has no descriptor or thread left
            client.close()
            raise LockUnavailable(f"ZooKeeper's client cannot start: {error}") from error

    def is_up(self) -> bool:
        """Whether requests can be sent now."""
        return bool(self._live.is_set()) and self._was_granted.is_set()

    def wait(self, deadline: Deadline) -> bool:
        """Wait until requests can be sent, and say whether they can."""
        is_live = bool(self._live.wait(deadline.left_s()))
        return is_live and self._was_granted.wait(deadline.left_s())

    def is_dead(self) -> bool:
        """Whether it will not connect any more.

        kazoo ends for good after a refused password. And a server that was wiped, or put back from
        an old copy, refuses a client that has seen more than it knows, as often as that comes
        again, and never says that the session is over: it is, when its time is.
        """
        now = now_ns()
        if self.client._connection.connection_stopped.is_set():
            return now - self._began_ns > REPLACE_EVERY_MS * NS_PER_MS
        was_up = self._was_granted.is_set() and not self._live.is_set()
        return was_up and now - self._broke_ns > self.granted_ms * NS_PER_MS

    def close(self) -> None:
        """End the session at the server, if it can be reached."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._live.is_set():
            self._stop()
            return
        # kazoo would wait for its attempt to connect, for as long as a session may last. Its
        # threads are daemons and end by themselves, with that attempt or with the process.
        with suppress(RuntimeError):  # the interpreter is ending and starts no more threads
            threading.Thread(target=self._stop, daemon=True).start()

    def abandon(self) -> None:
        """Hear no more of it, and end it."""
        self.client.remove_listener(self._state_changed)
        self.close()

    def _stop(self) -> None:
        with suppress(KazooException, OSError):
            self.client.stop()
            self.client.close()

    def _state_changed(self, state: str) -> None:
        """Called by the client's own thread."""
        if state == KazooState.CONNECTED:
            return
        self._broke_ns = now_ns()
        if state == KazooState.LOST:
            self.was_refused = self.client.client_state == KeeperState.AUTH_FAILED
            self._on_loss()

    def _note_granted_time(self) -> None:
        """Learn the session time-out that the server granted, which kazoo keeps to itself.

        A server bounds it to 2 to 20 of its ticks (ZooKeeper Programmer's Guide, Sessions). To
        take the time we asked for instead would be to believe in a lease that has ended.
        """
        connection = self.client._connection
        connect = connection._connect

        def connect_and_note(*where: object) -> tuple[float, float]:
            read_timeout_ms, connect_timeout_ms = connect(*where)
            # kazoo stops reading after two thirds of the granted time.
            self.granted_ms = round(read_timeout_ms * 3 / 2)
            self._was_granted.set()
            return read_timeout_ms, connect_timeout_ms

        connection._connect = connect_and_note


def ask(client: Any, request: Any) -> Any:
    """Send one of kazoo's requests (kazoo.protocol.serialization); its answer is for `reply`.

    The client's own methods put their paths in order and wrap each answer in another, which costs
    a tenth of a lease; ours are in order.
    """
    answer = client.handler.async_result()
    client._call(request, answer)
    return answer


def reply(result: Any, timeout_s: float = REPLY_TIMEOUT_S) -> Any:
    """A request's answer. Raises Interrupted, LockUnavailable, NoNodeError or NodeExistsError."""
    try:
        return result.get(timeout=timeout_s)
    except (NoNodeError, NodeExistsError):
        raise
    except KazooTimeoutError as error:
        raise LockUnavailable(f"ZooKeeper did not answer in {timeout_s:g} s.") from error
    except KazooException as error:
        raise unavailable(error) from error


def unavailable(error: Exception) -> LockUnavailable:
    """What an error of the client means to us."""
    if isinstance(error, _INTERRUPTIONS):
        return Interrupted(f"({type(error).__name__})")
    if isinstance(error, _REFUSALS):
        return Refused()
    return LockUnavailable(f"ZooKeeper refused: {type(error).__name__} {error}")
