"""A loopback TCP proxy that loses replies, cuts connections and stalls, between real sockets.

    with Proxy(server.port) as proxy:
        proxy.drop_replies(1, to=b"EVALSHA")  # the server does it; the client never hears of it

Bytes are passed on unread, so it serves any protocol. Two threads per connection.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65_536
CONNECT_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 5.0
# A stalled connection looks this often whether it was cut meanwhile.
STALL_POLL_S = 0.02


class _Link:
    """One connection of a client, and ours to the server for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.over = threading.Event()
        self.loses_replies = False
        self.stays_open = False

    def cut(self) -> None:
        """End both halves; the threads that read from them wake."""
        self.over.set()
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Passes 127.0.0.1:port on to 127.0.0.1:target_port. Works from construction to `close`."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._guard = threading.Lock()
        self._links: set[_Link] = set()
        self._threads: list[threading.Thread] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = threading.Event()
        self._to_drop = 0
        self._dropped = 0
        self._drop_to = b""
        self._drop_silently = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def dropped(self) -> int:
        """How many requests lost their reply since construction."""
        with self._guard:
            return self._dropped

    def drop_replies(self, count: int, *, to: bytes = b"", silently: bool = False) -> None:
        """Lose the reply to each of the next `count` requests that contain the bytes `to`.

        The request reaches the server. Then the connection ends, or with `silently` it stays open
        and nothing more comes. A request is what one read gives: small ones, sent one by one.
        Replaces what an earlier call left to be dropped; 0 drops no more.
        """
        with self._guard:
            self._to_drop, self._drop_to, self._drop_silently = count, to, silently

    def deafen(self) -> None:
        """The connections there are stay open, but nothing comes from the server any more."""
        with self._guard:
            for link in self._links:
                link.stays_open = True
                link.loses_replies = True

    def cut(self) -> None:
        """End every connection now; what is under way is lost. New ones are served."""
        with self._guard:
            links = list(self._links)
        for link in links:
            link.cut()

    def freeze(self) -> None:
        """Pass nothing on, either way, until `thaw`. Connections stand, and new ones are taken."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Pass on what was held up, and all that follows."""
        self._flowing.set()

    def close(self) -> None:
        """End everything and wait for the threads. May be called again."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        with self._guard:
            threads = list(self._threads)
        for thread in threads:
            thread.join(STOP_TIMEOUT_S)
        # A connection that was being made during the first cut.
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                address = ("127.0.0.1", self._target_port)
                server = socket.create_connection(address, CONNECT_TIMEOUT_S)
            except OSError:
                client.close()  # The server is down: the client sees a connection that ends.
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serve(_Link(client, server))

    def _serve(self, link: _Link) -> None:
        with self._guard:
            self._links.add(link)
        self._start(self._requests, link)
        if self._closed.is_set():
            link.cut()

    def _requests(self, link: _Link) -> None:
        replies = self._start(self._replies, link)
        with contextlib.suppress(OSError):
            while chunk := link.client.recv(CHUNK_BYTES):
                if not self._may_flow(link):
                    break
                # Marked before it is sent, so that the reply cannot be faster than the mark.
                self._mark(link, chunk)
                link.server.sendall(chunk)
        link.cut()
        replies.join()
        link.client.close()
        link.server.close()
        with self._guard:
            self._links.discard(link)
            self._threads = [each for each in self._threads if each.is_alive()]

    def _replies(self, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while chunk := link.server.recv(CHUNK_BYTES):
                if not self._may_flow(link):
                    break
                if not link.loses_replies:
                    link.client.sendall(chunk)
                elif not link.stays_open:
                    break
        link.cut()

    def _mark(self, link: _Link, request: bytes) -> None:
        with self._guard:
            if self._to_drop > 0 and self._drop_to in request:
                self._to_drop -= 1
                self._dropped += 1
                link.stays_open = self._drop_silently
                link.loses_replies = True

    def _may_flow(self, link: _Link) -> bool:
        """Wait out a freeze. False: the connection was cut meanwhile."""
        while not self._flowing.wait(STALL_POLL_S):
            if link.over.is_set():
                return False
        return not link.over.is_set()

    def _start(self, run: Callable[..., None], *arguments: _Link) -> threading.Thread:
        thread = threading.Thread(target=run, args=arguments, name="proxy", daemon=True)
        with self._guard:
            self._threads.append(thread)
        thread.start()
        return thread
