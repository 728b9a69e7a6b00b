"""How the ZooKeeper client waits and wakes here: without a thread or a system call too many.

kazoo takes the object that makes its threads, events and answers as an argument (its handler). Its
own hands each answer through a queue to a second thread and each event to a third, and makes and
closes an epoll for every wait of the connection's thread. A lease costs three requests, so this was
a third of its price.

Everything called back runs in the connection's thread: it must be quick, and must not send
requests, since that thread alone makes room for them.
"""

import logging
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kazoo.handlers.threading import KazooTimeoutError
from kazoo.handlers.utils import create_socket_pair, create_tcp_connection, create_tcp_socket

from locks.clock import NS_PER_S, now_ns

log = logging.getLogger(__name__)

MS_PER_S = 1_000
# A server that says nothing for so long, though it was asked, is left for another one. Longer than
# a slow flush of its log; short beside the session, so that leases outlive it.
SILENCE_NS = 2 * NS_PER_S
# A server must accept a connection, and welcome us, within this; kazoo would wait for the session's
# time divided by the number of servers.
GREETING_S = 2.0


class Answer:
    """What a request will give: set once by the connection's thread, waited for by one other.

    The interface is kazoo's (kazoo.interfaces.IAsyncResult). `on_silence` is called with the time
    in nanoseconds that somebody waited in vain.
    """

    __slots__ = ("_callbacks", "_done", "_guard", "_is_set", "_on_silence", "exception", "value")

    def __init__(self, on_silence: Callable[[int], None]) -> None:
        self._on_silence = on_silence
        self.value: Any = None
        self.exception: Exception | None = None
        self._is_set = False
        self._callbacks: list[Callable[[Answer], object]] = []
        self._guard = threading.Lock()
        # Held until the answer is there: a bare lock wakes sooner than a condition.
        self._done = threading.Lock()
        self._done.acquire()

    def ready(self) -> bool:
        """Whether it is there."""
        return self._is_set

    def successful(self) -> bool:
        """Whether it is there and no exception."""
        return self._is_set and self.exception is None

    def set(self, value: Any = None) -> None:
        """It is this. A second answer is dropped."""
        self._settle(value, None)

    def set_exception(self, exception: Exception) -> None:
        """It is this exception."""
        self._settle(None, exception)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Wait for it, at most `timeout` seconds; raises KazooTimeoutError, or what was set."""
        if not self.wait(timeout if block else 0):
            raise KazooTimeoutError
        if self.exception is not None:
            raise self.exception
        return self.value

    def get_nowait(self) -> Any:
        """It, if it is there."""
        return self.get(block=False)

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it came within `timeout` seconds."""
        if not self._is_set:
            if not self._done.acquire(timeout=-1 if timeout is None else timeout):
                self._on_silence(int((timeout or 0) * NS_PER_S))
                return False
            self._done.release()  # for whoever waits too
        return True

    def rawlink(self, callback: Callable[["Answer"], object]) -> None:
        """Call this when it is there, in the connection's thread; now, if it is there already."""
        with self._guard:
            if not self._is_set:
                self._callbacks.append(callback)
                return
        callback(self)

    def unlink(self, callback: Callable[["Answer"], object]) -> None:
        """Do not call this."""
        with self._guard:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def _settle(self, value: Any, exception: Exception | None) -> None:
        with self._guard:
            if self._is_set:
                return
            self.value, self.exception = value, exception
            self._is_set = True
            callbacks, self._callbacks = self._callbacks, []
        self._done.release()
        for callback in callbacks:
            _call(callback, self)


class DirectHandler:
    """kazoo's handler (kazoo.interfaces.IHandler): one thread, the connection's, and no queues."""

    name = "direct"
    timeout_exception = KazooTimeoutError
    sleep_func = staticmethod(time.sleep)
    event_object = staticmethod(threading.Event)
    lock_object = staticmethod(threading.Lock)
    rlock_object = staticmethod(threading.RLock)

    def __init__(self) -> None:
        self._connection: socket.socket | None = None
        self._is_greeted = False
        self._heard_ns = self._asked_ns = 0

    def async_result(self) -> Answer:
        """Something to wait for."""
        return Answer(self._unanswered)

    def start(self) -> None:
        """There is nothing to start."""

    def stop(self) -> None:
        """There is nothing to stop."""

    def spawn(self, run: Callable[..., object], *args: Any, **kwargs: Any) -> threading.Thread:
        """A thread that does not keep the process alive."""
        thread = threading.Thread(
            target=run, args=args, kwargs=kwargs, name="zookeeper", daemon=True
        )
        thread.start()
        return thread

    def dispatch_callback(self, callback: Any) -> None:
        """Tell a watcher, here and now."""
        _call(callback.func, *callback.args)

    def socket(self) -> Any:
        """A TCP socket."""
        return create_tcp_socket(socket)

    def create_connection(self, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """A TCP connection to a server, which must soon say a word then."""
        timeout = min(timeout or GREETING_S, GREETING_S)
        connection: socket.socket = create_tcp_connection(socket, *args, timeout=timeout, **kwargs)
        # Closed, it forgets what it could not send: a request must not arrive after we gave it up.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._is_greeted = False
        self._connection = connection
        return connection

    def create_socket_pair(self) -> Any:
        """Two ends, by which a sender wakes the connection's thread."""
        return create_socket_pair(socket)

    def select(
        self, readers: list[Any], writers: list[Any], _: list[Any], timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """select(2) by poll(2), which needs no file of its own and knows no largest file."""
        if not self._is_greeted and self._connection in readers:
            timeout = GREETING_S if timeout is None else min(timeout, GREETING_S)
        poll = select.poll()
        for each in readers:
            poll.register(each, select.POLLIN)
        for each in writers:
            poll.register(each, select.POLLOUT)
        ready = poll.poll(None if timeout is None else max(0, timeout) * MS_PER_S)
        if len(ready) < len(readers) + len(writers):
            files = [file for file, _ in ready]
            readers = [each for each in readers if each.fileno() in files]
            writers = [each for each in writers if each.fileno() in files]
        if readers and readers[0] is self._connection:  # where kazoo has it
            self._is_greeted = True
            self._heard_ns = now_ns()
        return readers, writers, []

    def _unanswered(self, waited_ns: int) -> None:
        """Somebody waited so long for an answer. Ends a connection on which nothing comes.

        kazoo would notice only if nothing were sent either, since each request puts off its look:
        of a server that is frozen or cut off, a busy client would never learn.
        """
        now = now_ns()
        if self._heard_ns > now - waited_ns:
            return  # It speaks, only slowly.
        if self._asked_ns < self._heard_ns:
            self._asked_ns = now - waited_ns
        connection = self._connection
        if connection is not None and now - self._asked_ns > SILENCE_NS:
            self._asked_ns = 0
            with suppress(OSError):  # it ended by itself
                connection.shutdown(socket.SHUT_RD)  # which wakes the connection's thread


def _call(run: Callable[..., object], *arguments: Any) -> None:
    try:
        run(*arguments)
    except Exception:
        # The connection's thread must live on.
        log.exception("A callback of the ZooKeeper client failed")
