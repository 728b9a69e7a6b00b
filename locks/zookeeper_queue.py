"""How a queue for a key is laid out in ZooKeeper, and reading it.

    /leases/<shard>/<key>~<token>-<sequence>

The parents are a fixed set of shards: a parent per key would stay behind for ever. A shard's node
counts its sequence numbers, so those of one key rise, with gaps.
"""

import zlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from kazoo.exceptions import NoNodeError

from locks.inspection import HeldKey
from locks.zookeeper_session import Session, reply

PARENT = "/leases"
SHARDS = [f"{number:02x}" for number in range(64)]
# A sequence number is a signed 32-bit counter that starts again below zero when it is full
# (ZooKeeper Programmer's Guide, Sequence Nodes). One queue is never half as long as that.
WRAP = 2**32


@dataclass(frozen=True)
class Place:
    """One node of a queue: a holder or a waiter."""

    key: str
    token: str
    sequence: int
    name: str


def shard_of(key: str) -> str:
    """The folder of a key's queue."""
    return f"{PARENT}/{SHARDS[zlib.crc32(key.encode('ascii')) % len(SHARDS)]}"


def queue_of(key: str, names: list[str]) -> list[Place]:
    """The queue of one key, its holder first, out of all the names in its shard."""
    return _in_order([_place(name) for name in names if name.startswith(f"{key}~")])


def _place(name: str) -> Place:
    key, _, rest = name.partition("~")
    token, _, sequence = rest.partition("-")
    return Place(key, token, int(sequence), name)


def _in_order(places: list[Place]) -> list[Place]:
    if len(places) < 2:
        return places
    middle = places[0].sequence - WRAP // 2
    return sorted(places, key=lambda place: (place.sequence - middle) % WRAP)


def list_shard(session: Session, shard: str) -> list[str]:
    """The names in a shard, not older than this call. Raises LockUnavailable.

    The sync comes first, lest a server that lags behind shows a list from before our own create.
    """
    client = session.client()
    synced, listed = client.sync_async(shard), client.get_children_async(shard)
    try:
        reply(synced)
        names: list[str] = reply(listed)
    except NoNodeError:
        return []
    return names


def held_keys(session: Session, limit: int) -> list[HeldKey]:
    """At most `limit` queues, in the order of their keys. Raises LockUnavailable."""
    client = session.client()
    synced = client.sync_async(PARENT)
    asked = [client.get_children_async(f"{PARENT}/{shard}") for shard in SHARDS]
    reply(synced)
    queues: dict[str, list[Place]] = defaultdict(list)
    for listed in asked:
        for name in _names(listed):
            if "~" in name:
                queues[name.partition("~")[0]].append(_place(name))
    shown = [(key, _in_order(queues[key])) for key in sorted(queues)[:limit]]
    # All are asked for before the first is waited for.
    looked_at = [
        (key, [client.get_async(f"{shard_of(key)}/{place.name}") for place in queue])
        for key, queue in shown
    ]
    found = [_held_key(key, [_look(each) for each in nodes]) for key, nodes in looked_at]
    return [held for held in found if held is not None]


def first_of(session: Session, key: str) -> tuple[str, HeldKey] | None:
    """The node of a key's holder with all that is known of it. Raises LockUnavailable."""
    shard = shard_of(key)
    queue = queue_of(key, list_shard(session, shard))
    client = session.client()
    asked = [
        (f"{shard}/{place.name}", client.get_async(f"{shard}/{place.name}")) for place in queue
    ]
    standing = [
        (path, node) for path, node in ((path, _look(each)) for path, each in asked) if node
    ]
    held = _held_key(key, [node for _, node in standing])
    return None if held is None else (standing[0][0], held)


def _names(listed: Any) -> list[str]:
    try:
        names: list[str] = reply(listed)
    except NoNodeError:
        return []
    return names


def _look(asked: Any) -> tuple[str, int] | None:
    """Who made a node, and its czxid; None if it has gone meanwhile."""
    try:
        data, stat = reply(asked)
    except NoNodeError:
        return None
    return str(data, "utf-8", "replace"), stat.czxid


def _held_key(key: str, nodes: list[tuple[str, int] | None]) -> HeldKey | None:
    standing = [node for node in nodes if node]
    if not standing:
        return None
    (holder, fence), *waiters = standing
    return HeldKey(key, holder, fence, None, tuple(waiter for waiter, _ in waiters))
