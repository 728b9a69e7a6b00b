"""Where a waiting thread hears that the Redis lock was handed to it."""

import secrets
import threading
import weakref
from collections.abc import Callable
from typing import NamedTuple

from locks.clock import Deadline
from locks.on_redis.link import Link, LinkBroken, packed

# More waiting threads than this in one process make connections that are closed after use.
MAX_IDLE = 64


class HandOver(NamedTuple):
    """What a releasing holder's script tells the waiter whom it served."""

    fence: int
    at_us: int
    """When, by the server's clock in microseconds."""


class Subscription:
    """One connection, subscribed to a channel of its own; used by one thread at a time.

    Methods raise LinkBroken, and Refused at first.
    """

    def __init__(self, home: "Subscriptions", link: Link) -> None:
        self.home = home
        self.channel = f"lease-granted:{secrets.token_hex(12)}"
        self._link = link
        try:
            # Only after this answer does the server count us as a listener.
            link.ask(packed("SUBSCRIBE", self.channel))
        except BaseException:
            self.close()
            raise

    def wait_for(self, token: str, timeout_s: float) -> HandOver | None:
        """The hand-over to this token, if it comes within the time. Skips older messages."""
        deadline, wanted = Deadline(int(timeout_s * 1_000)), token.encode("ascii")
        while True:
            message = self._link.hear(deadline.left_s())
            if isinstance(message, list) and message[0] == b"message":
                handed_to, fence, at_us = message[2].split(b"|")
                if handed_to == wanted:
                    return HandOver(int(fence), int(at_us))
            if deadline.is_over():
                return None

    def interrupt(self) -> None:
        """End the waiting of the thread that uses it, which then drops it."""
        self._link.interrupt()

    def close(self) -> None:
        """Close it, when no other thread uses it."""
        self._link.close()


class Subscriptions:
    """The subscriptions of one process to one server, kept for the next wait."""

    def __init__(self, connect: Callable[[], Link]) -> None:
        self._connect = connect
        self._guard = threading.RLock()  # a signal's handler may close what it has interrupted
        self._idle: list[Subscription] = []
        # Weak: one that a signal's exception kept from whoever asked for it ends by itself.
        self._all: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self._is_closed = False

    def idle(self) -> Subscription | None:
        """One that is connected and not in use, if there is any."""
        with self._guard:
            return self._idle.pop() if self._idle else None

    def fresh(self) -> Subscription:
        """A new one. Raises LinkBroken, Refused."""
        subscription = Subscription(self, self._connect())
        with self._guard:
            if not self._is_closed:
                self._all.add(subscription)
                return subscription
        subscription.close()
        raise LinkBroken("It was closed.")

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
        """Close those that are not in use, and make the others be dropped."""
        with self._guard:
            self._is_closed = True
            idle, self._idle = self._idle, []
            used = self._all.difference(idle)
            self._all.clear()
        for subscription in idle:
            subscription.close()
        for subscription in used:
            subscription.interrupt()

    def abandon(self) -> None:
        """Close a forked child's copies, lest a waiter of a parent that dies be taken for alive."""
        self._guard = threading.RLock()  # the parent's may have been in use at the fork
        self._is_closed = True
        for subscription in self._all:
            subscription.close()
        self._all.clear()
        self._idle.clear()
