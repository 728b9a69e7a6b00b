"""Waiting for what becomes of a node, without leaving a watch behind when one gives up."""

import struct
import threading
from dataclasses import dataclass
from typing import Any, ClassVar

from kazoo.protocol.serialization import write_string
from kazoo.protocol.states import EventType

from locks.clock import Deadline
from locks.on_zookeeper.session import Session, ask, reply

# zookeeper.jute and ZooDefs.OpCode: what kazoo lacks of removing a watch (ZooKeeper 3.5).
_REMOVE_WATCHES, _DATA_WATCH = 18, 2


@dataclass(frozen=True)
class _RemoveWatches:
    """A request of the protocol, in the form that kazoo sends."""

    path: str
    type: ClassVar[int] = _REMOVE_WATCHES

    def serialize(self) -> bytes:
        """Its bytes."""
        return bytes(write_string(self.path)) + struct.pack("!i", _DATA_WATCH)

    @classmethod
    def deserialize(cls, _: bytes, __: int) -> bool:
        """The answer is empty."""
        return True


def next_event(session: Session, client: Any, path: str, deadline: Deadline) -> str | None:
    """The kind of what next becomes of a node (kazoo's EventType); None when nothing did in time.

    NONE says that the connection broke, or that the session was closed by us. Raises NoNodeError if
    the node is gone already, LockUnavailable.
    """
    happened = threading.Event()
    kinds: list[str] = []

    def note(kind: str) -> None:
        kinds.append(kind)
        happened.set()

    def tell(event: Any) -> None:
        note(event.type)

    with session.waking(lambda: note(EventType.NONE)):
        # `get`, not `exists`: on a node that is gone already, `exists` leaves a watch behind.
        reply(client.get_async(path, tell))
        try:
            happened.wait(deadline.left_s())
        finally:
            if not kinds:
                _unwatch(client, path, tell)
    return kinds[0] if kinds else None


def _unwatch(client: Any, path: str, tell: Any) -> None:
    """Take the watch back; the answer is not waited for.

    It is one for the whole session. Whoever queued up behind us watches our node, not this one;
    when we leave the queue, which comes after this, it will set its own here. A holder in this
    process, whose node it is, is told of its loss by its next renewal then, which watches again.
    """
    forget(client, path, tell)
    ask(client, _RemoveWatches(path))


def forget(client: Any, path: str, watcher: Any) -> None:
    """Let the client call this watcher no more, and keep nothing for a path without any."""
    watchers = client._data_watchers.get(path)
    if watchers is not None:
        watchers.discard(watcher)
        if not watchers:
            client._data_watchers.pop(path, None)
