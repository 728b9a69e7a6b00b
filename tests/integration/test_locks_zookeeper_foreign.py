"""What others put or change among our nodes harms at most what they touched."""

from collections.abc import Iterator

import pytest
from kazoo.client import KazooClient
from kazoo.protocol.serialization import Create
from kazoo.security import OPEN_ACL_UNSAFE, make_acl

from locks import LockUnavailable, hold
from locks.on_zookeeper.lock import ZooKeeperLock
from locks.on_zookeeper.queue import UNREADABLE, all_shards, path_of, shard_of
from locks.on_zookeeper.session import ask, reply
from tests.services import ZooKeeperServer

SESSION_MS = 20_000
LEASE_MS = 10_000
FOREIGN = [
    "order~notanumber",
    "order~x-12x",
    "order~",
    "order~-0000000001",
    "order~a-0000000001 ",
    "order~a-99999999999",
    "order~a-9999999999",
    "order~a~b-0000000001",
    "~a-0000000001",
    "~",
    "stray",
    "bestellung-ü~a-0000000001",
]


@pytest.fixture
def hosts(zookeeper_server: ZooKeeperServer, request: pytest.FixtureRequest) -> str:
    """host:port/chroot, a chroot for each test."""
    return f"{zookeeper_server.hosts}/foreign-{abs(hash(request.node.nodeid)):x}"


@pytest.fixture
def lock(hosts: str) -> Iterator[ZooKeeperLock]:
    """Of this process; its folders are made."""
    made = ZooKeeperLock(hosts, session_ms=SESSION_MS)
    made.acquire("warm-up", lease_ms=LEASE_MS, wait_ms=0).release()
    yield made
    made.close()


@pytest.fixture
def client(hosts: str, lock: ZooKeeperLock) -> Iterator[KazooClient]:
    """Behind the library's back, in the chroot that `lock` made."""
    made = KazooClient(hosts)
    made.start()
    yield made
    made.stop()
    made.close()


def test_nodes_that_are_not_ours_are_no_holders_and_no_waiters(
    lock: ZooKeeperLock, client: KazooClient
) -> None:
    for shard in all_shards(""):
        for name in FOREIGN:
            client.create(f"{shard}/{name}", b"")
    with hold(lock, "order", lease_ms=LEASE_MS, wait_ms=0) as lease:
        shown = lock.held()
        assert [(held.key, held.fence, held.waiters) for held in shown] == [
            ("order", lease.fence, ())
        ]
        broken = lock.break_lease("order")
        assert broken is not None
        assert broken.fence == lease.fence
        assert lock.held() == []
        assert lock.break_lease("order") is None
    assert sorted(client.get_children(shard_of("", "order"))) == sorted(FOREIGN)


def test_a_node_without_data_is_shown_and_can_be_broken(
    lock: ZooKeeperLock, client: KazooClient
) -> None:
    path = f"{shard_of('', 'order')}/order~a-0000000000"
    root = lock._session().root
    # Null, as other clients can write it.
    reply(ask(client, Create(f"{root}{path}", None, OPEN_ACL_UNSAFE, 0)))
    assert [(held.key, held.holder) for held in lock.held()] == [("order", "")]
    assert lock.break_lease("order") is not None
    assert client.exists(path) is None


def test_a_lease_whose_node_cannot_be_read_keeps_the_others_neither_from_renewal_nor_from_the_list(
    lock: ZooKeeperLock, client: KazooClient
) -> None:
    keys = ["order-1", "order-2", "order-3"]
    leases = [lock.acquire(key, lease_ms=LEASE_MS, wait_ms=0) for key in keys]
    planned = [lease.renew_at_ns for lease in leases]
    hidden = path_of(leases[1].place).removeprefix(lock._session().root)
    client.set_acls(hidden, [make_acl("world", "anyone", delete=True, admin=True)])
    with pytest.raises(LockUnavailable):
        lock._renew(leases)
    renewed = [lease.renew_at_ns > before for lease, before in zip(leases, planned, strict=True)]
    assert renewed == [True, False, True]
    assert not any(lease.lost.is_set() for lease in leases)
    shown = lock.held()
    assert [(held.key, held.fence) for held in shown] == [(e.key, e.fence) for e in leases]
    assert [held.holder == UNREADABLE for held in shown] == [False, True, False]
    client.set_acls(hidden, [make_acl("world", "anyone", all=True)])
    lock._renew(leases)
    assert leases[1].renew_at_ns > planned[1]
    for lease in leases:
        lease.release()
