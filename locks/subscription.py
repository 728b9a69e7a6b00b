"""Where a waiting thread hears that the Redis lock was handed to it."""

import secrets
import threading
from collections.abc import Callable
from typing import Any

from locks.clock import Deadline

# More waiting threads than this in one process make connections that are closed after use.
MAX_IDLE = 64


class Subscription:
    """One connection, subscribed to a channel of its own; used by one thread at a time.

    Every method but `close` raises redis.RedisError or OSError when the connection is broken.
    """

    def __init__(self, connection: Any) -> None:
        self.channel = f"lease-granted:{secrets.token_hex(12)}"
        self._connection = connection  # redis-py's own annotations are partial
        try:
            self._connection.connect()
            self._connection.send_command("SUBSCRIBE", self.channel)
            # Only after this answer does the server count us as a listener.
            self._connection.read_response()
        except BaseException:
            self.close()
            raise

    def wait_for(self, token: str, timeout_s: float) -> bool:
        """Whether the key was handed to this token, within the time. Skips older messages."""
        deadline = Deadline(int(timeout_s * 1_000))
        while self._connection.can_read(timeout=deadline.left_s()):
            message = self._connection.read_response()
            if message[0] == b"message" and message[2] == token.encode("ascii"):
                return True
            if deadline.is_over():
                return False
        return False

    def close(self) -> None:
        """Close it. In a forked child this closes the child's copy alone."""
        self._connection.disconnect()


class Subscriptions:
    """The subscriptions of one process, kept for the next wait."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._guard = threading.Lock()
        self._idle: list[Subscription] = []
        self._all: set[Subscription] = set()

    def idle(self) -> Subscription | None:
        """One that is connected and not in use, if there is any."""
        with self._guard:
            return self._idle.pop() if self._idle else None

    def fresh(self) -> Subscription:
        """A new one. Raises redis.RedisError or OSError."""
        subscription = Subscription(self._connect())
        with self._guard:
            self._all.add(subscription)
        return subscription

    def put_back(self, subscription: Subscription) -> None:
        """It is no longer in use."""
        with self._guard:
            if len(self._idle) < MAX_IDLE and subscription in self._all:
                self._idle.append(subscription)
                return
        self.drop(subscription)

    def drop(self, subscription: Subscription) -> None:
        """It is broken, or one too many."""
        with self._guard:
            self._all.discard(subscription)
        subscription.close()

    def close(self) -> None:
        """Close all, in use or not; also in a forked child, where they are copies."""
        for subscription in list(self._all):
            subscription.close()
        self._all.clear()
        self._idle.clear()
