"""How a queue for a key is laid out in ZooKeeper, and reading it.

    <chroot>/leases/<shard>/<key>~<token>-<sequence>

The parents are a fixed set of shards: a parent per key would stay behind for ever. A shard's node
counts its sequence numbers, so those of one key rise, with gaps.

A node's end tells the one behind it whose it was. A holder that had waited marks its node in the
transaction that deletes it, so the watcher hears of a change: it was the first, now I am, without
another look. Whoever gives up waiting, dies or is put out just vanishes, and the watcher looks. So
does a holder that never waited: whoever came right behind it saw that it was the first.
"""

import re
import zlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from kazoo.exceptions import NoNodeError
from kazoo.protocol.serialization import Create2, Delete, GetChildren
from kazoo.security import OPEN_ACL_UNSAFE

from locks.inspection import HeldKey
from locks.on_zookeeper.session import Refused, Session, ask, reply, unavailable
from locks.protocol import KEY_PATTERN

SHARDS = [f"leases/{number:02x}" for number in range(64)]
# ZooKeeper's CreateMode.EPHEMERAL_SEQUENTIAL, and the version that means any.
EPHEMERAL, SEQUENCE, ANY_VERSION = 1, 2, -1
MARK = b"released"
# In a lease's place: it waited before it held.
WAITED = "waited:"
# A sequence number is a signed 32-bit counter that starts again below zero when it is full
# (ZooKeeper Programmer's Guide, Sequence Nodes). One queue is never half as long as that.
WRAP = 2**32
# Whose node it is, if it may not be read.
UNREADABLE = "(not readable)"
# Ten digits, the sign among them (ZooKeeper's PrepRequestProcessor: "%010d").
NAME = re.compile(rf"({KEY_PATTERN.pattern})~([0-9A-Za-z]+)-([0-9]{{10}}|-[0-9]{{9,10}})")


@dataclass(frozen=True)
class Place:
    """One node of a queue: a holder or a waiter."""

    key: str
    token: str
    sequence: int
    name: str


def all_shards(root: str) -> list[str]:
    """The folders of all queues, below the chroot."""
    return [f"{root}/{shard}" for shard in SHARDS]


def shard_of(root: str, key: str) -> str:
    """The folder of a key's queue, below the chroot."""
    return f"{root}/{SHARDS[zlib.crc32(key.encode('ascii')) % len(SHARDS)]}"


def queue_of(key: str, names: list[str]) -> list[Place]:
    """The queue of one key, its holder first, out of all the names in its shard."""
    return _in_order(_places([name for name in names if name.startswith(f"{key}~")]))


def _places(names: list[str]) -> list[Place]:
    """Those that are ours; what others put beside them neither holds nor waits."""
    places = [_place(name) for name in names]
    return [place for place in places if place is not None]


def _place(name: str) -> Place | None:
    found = NAME.fullmatch(name)
    if found is None:
        return None
    key, token, digits = found.groups()
    sequence = int(digits)
    return Place(key, token, sequence, name) if -WRAP // 2 <= sequence < WRAP // 2 else None


def _in_order(places: list[Place]) -> list[Place]:
    if len(places) < 2:
        return places
    middle = places[0].sequence - WRAP // 2
    return sorted(places, key=lambda place: (place.sequence - middle) % WRAP)


def ask_place(client: Any, prefix: str, data: bytes) -> Any:
    """Ask for a node at the end of a queue: (path, stat), for `reply`."""
    acl = client.default_acl or OPEN_ACL_UNSAFE
    return ask(client, Create2(prefix, data, acl, EPHEMERAL | SEQUENCE))


def ask_names(client: Any, shard: str) -> Any:
    """Ask for the names in a shard."""
    return ask(client, GetChildren(shard, None))


def list_shard(client: Any, shard: str) -> list[str]:
    """The names in a shard, as the server knows them. Raises LockUnavailable."""
    return _names(ask_names(client, shard))


def list_shard_now(client: Any, shard: str) -> list[str]:
    """The names in a shard, not older than this call. Raises LockUnavailable.

    The sync comes first, lest a server that lags behind shows a list from before our own create.
    """
    synced, listed = client.sync_async(shard), ask_names(client, shard)
    reply(synced)
    return _names(listed)


def path_of(place: str) -> str:
    """The node of a lease."""
    return place.removeprefix(WAITED)


def release(client: Any, place: str) -> None:
    """End a holding; the one behind knows that it is its turn. Raises LockUnavailable."""
    path = path_of(place)
    if path == place:
        delete(client, path)
        return
    transaction = client.transaction()
    transaction.set_data(path, MARK)
    transaction.delete(path)
    marked = reply(transaction.commit_async())[0]
    # No node: deleted by a try whose answer was lost, or gone with its session.
    if isinstance(marked, Exception) and not isinstance(marked, NoNodeError):
        raise unavailable(marked)


def delete(client: Any, path: str) -> bool:
    """End a waiting, or another's holding. Gives whether the node was there.

    Raises LockUnavailable.
    """
    try:
        reply(ask(client, Delete(path, ANY_VERSION)))
    except NoNodeError:
        return False
    return True


def held_keys(session: Session, limit: int) -> list[HeldKey]:
    """At most `limit` queues, in the order of their keys. Raises LockUnavailable."""
    client = session.client()
    synced = client.sync_async(session.root or "/")
    asked = [ask_names(client, shard) for shard in all_shards(session.root)]
    reply(synced)
    queues: dict[str, list[Place]] = defaultdict(list)
    for listed in asked:
        for place in _places(_names(listed)):
            queues[place.key].append(place)
    # All are asked for before the first is waited for.
    shown = [
        (key, _ask(client, shard_of(session.root, key), _in_order(queues[key])))
        for key in sorted(queues)[:limit]
    ]
    found = [_held_key(key, [_look(client, *each) for each in asked]) for key, asked in shown]
    return [held for held in found if held is not None]


def holder_of(session: Session, key: str) -> tuple[str, HeldKey] | None:
    """The path of the node of a key's holder, and what there is to show of it.

    Raises LockUnavailable.
    """
    client = session.client()
    shard = shard_of(session.root, key)
    asked = _ask(client, shard, queue_of(key, list_shard_now(client, shard)))
    standing = [
        (path, node) for path, node in ((each[0], _look(client, *each)) for each in asked) if node
    ]
    held = _held_key(key, [node for _, node in standing])
    return None if held is None else (standing[0][0], held)


def _ask(client: Any, shard: str, queue: list[Place]) -> list[tuple[str, Any]]:
    paths = [f"{shard}/{place.name}" for place in queue]
    return [(path, client.get_async(path)) for path in paths]


def _names(listed: Any) -> list[str]:
    try:
        names: list[str] = reply(listed)
    except NoNodeError:
        return []
    return names


def _look(client: Any, path: str, asked: Any) -> tuple[str, int] | None:
    """Who made a node, and its czxid; None if it has gone meanwhile."""
    try:
        data, stat = reply(asked)
    except NoNodeError:
        return None
    except Refused:
        # Only its data: that it is there, everybody may know.
        stat = reply(client.exists_async(path))
        return None if stat is None else (UNREADABLE, stat.czxid)
    # None: another client can write a null.
    return str(data or b"", "utf-8", "replace"), stat.czxid


def _held_key(key: str, nodes: list[tuple[str, int] | None]) -> HeldKey | None:
    standing = [node for node in nodes if node]
    if not standing:
        return None
    (holder, fence), *waiters = standing
    return HeldKey(key, holder, fence, None, tuple(waiter for waiter, _ in waiters))
