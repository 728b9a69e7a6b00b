"""Which ensemble it is: a random name that the first of us left there, gone when it is wiped.

A czxid can be compared with those of the same ensemble only. One that was wiped, or another that
the same address now leads to, counts from the start and has no name yet, or another one.

An ensemble that was put back from an old copy keeps its name though its czxids are low again: then
the resource refuses our fences until an operator deletes the node, which begins a new realm.
"""

import secrets

from kazoo.exceptions import NodeExistsError, NoNodeError

from locks.errors import LockUnavailable
from locks.on_zookeeper.session import Session, reply

NAME_NODE = "leases-id"
# To find that there is none, nor a folder for it; to make it; to read what another made meanwhile.
ATTEMPTS = 4


def ensemble_name(session: Session) -> str:
    """The ensemble's name, given now if it has none. Raises LockUnavailable."""
    for _ in range(ATTEMPTS):
        name = _read(session) or _give(session)
        if name:
            return name
    raise LockUnavailable(f"ZooKeeper: the node {NAME_NODE} is empty, or comes and goes.")


def _read(session: Session) -> str:
    client = session.client()
    path = f"{session.root}/{NAME_NODE}"
    # The sync comes first, lest a server that lags behind does not show it yet.
    synced, found = client.sync_async(path), client.get_async(path)
    try:
        reply(synced)
        data, _ = reply(found)
    except NoNodeError:
        return ""
    return str(data or b"", "ascii", "replace")


def _give(session: Session) -> str:
    """The name that we gave; empty if another was first, or the folder had to be made."""
    name = secrets.token_hex(8)
    path = f"{session.root}/{NAME_NODE}"
    try:
        reply(session.client().create_async(path, name.encode("ascii")))
    except NoNodeError:
        session.make([session.root])
        return ""
    except NodeExistsError:
        return ""
    return name
