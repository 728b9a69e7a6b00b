"""What an operator sees of the leases in Redis."""

import logging

from locks.errors import LockUnavailable
from locks.inspection import HeldKey
from locks.on_redis.caller import Caller
from locks.on_redis.link import Reply, packed
from locks.on_redis.node import Node
from locks.on_redis.scripts import INSPECT, OWNER_PATTERN, key_of_owner
from locks.on_redis.token import holder_of

log = logging.getLogger(__name__)
# So many of a server's keys are gone through in one step, and so many steps at most: where leases
# are few among much else, the list may be cut short.
SCAN_COUNT, MAX_SCANS = 1_000, 1_000
BATCH = 100


def list_held(caller: Caller, limit: int) -> list[HeldKey]:
    """At most `limit` keys that are held now. Raises LockUnavailable, LinkBroken, Refused."""
    shown: list[HeldKey] = []
    for node in caller.nodes():
        keys = _held_at(node, limit - len(shown))
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            for number, reply in caller.run_all(INSPECT, [(key, ("look",)) for key in batch]):
                key = batch[number]
                if isinstance(reply, LockUnavailable):
                    log.warning("The lease on %s cannot be shown: %s", key, reply)
                    continue
                held = as_held_key(key, reply)
                if held is not None:
                    shown.append(held)
    return sorted(shown, key=lambda held: held.key)


def as_held_key(key: str, reply: Reply) -> HeldKey | None:
    """What the script INSPECT told."""
    if not reply:
        return None
    token, fence, left_ms, *waiters = reply
    return HeldKey(
        key,
        holder_of(token.decode()),
        int(fence),
        max(0, left_ms),
        tuple(holder_of(waiter.decode()) for waiter in waiters),
    )


def _held_at(node: Node, limit: int) -> list[str]:
    found: set[str] = set()  # SCAN may name a key twice
    cursor = b"0"
    for _ in range(MAX_SCANS):
        cursor, names = node.ask(
            packed("SCAN", cursor, "MATCH", OWNER_PATTERN, "COUNT", SCAN_COUNT)
        )
        found.update(key_of_owner(name.decode()) for name in names)
        if cursor == b"0" or len(found) >= limit:
            break
    else:
        log.warning("Redis at %s has more keys than were searched for leases.", node)
    return sorted(found)[: max(0, limit)]
