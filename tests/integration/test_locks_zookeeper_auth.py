"""ZooKeeper's digest authentication and chroots: who is let in, and what is never shown."""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError
from kazoo.security import make_digest_acl_credential

from locks import LeaseLock, LockUnavailable, from_url, hold
from tests.processes import wait_until
from tests.services import ZooKeeperServer

SECRET = "pass:w/ord@1"
QUOTED = "pass%3Aw%2Ford%401"
LEASE_MS = 5_000
_chroots = count()


@pytest.fixture
def place(zookeeper_server: ZooKeeperServer) -> str:
    """host:port/chroot, a chroot of two levels for each test, which does not exist yet."""
    return f"{zookeeper_server.hosts}/auth-{next(_chroots)}/locks"


@pytest.fixture
def connect(place: str) -> Iterator[Callable[[str], LeaseLock]]:
    """Makes a lock for `user:password`, or for nobody."""
    made: list[LeaseLock] = []

    def make(credentials: str) -> LeaseLock:
        at = "@" if credentials else ""
        made.append(from_url(f"zookeeper://{credentials}{at}{place}?session_ms=2000"))
        return made[-1]

    yield make
    for lock in made:
        lock.close()


def test_what_is_made_with_a_password_is_for_the_same_password_only(
    connect: Callable[[str], LeaseLock], zookeeper_server: ZooKeeperServer, place: str
) -> None:
    chroot = "/" + place.partition("/")[2]
    owner, stranger = KazooClient(zookeeper_server.hosts), KazooClient(zookeeper_server.hosts)
    for client in (owner, stranger):
        client.start()
    owner.add_auth("digest", f"shop:{SECRET}")
    lock = connect(f"shop:{QUOTED}")
    realm = lock.realm()
    with hold(lock, "order", lease_ms=LEASE_MS, wait_ms=0):
        paths = [chroot.rpartition("/")[0], chroot, f"{chroot}/leases", f"{chroot}/leases-id"]
        shards = [f"{chroot}/leases/{shard}" for shard in owner.get_children(f"{chroot}/leases")]
        nodes = [f"{shard}/{node}" for shard in shards for node in owner.get_children(shard)]
        assert (len(shards), len(nodes)) == (64, 1)
        identity = make_digest_acl_credential("shop", SECRET)
        for path in [*paths, *shards, *nodes]:
            (acl,), _ = owner.get_acls(path)
            assert (acl.id.scheme, acl.id.id, acl.acl_list) == ("digest", identity, ["ALL"])
        for path in [f"{chroot}/leases", shards[0]]:
            with pytest.raises(NoAuthError):
                stranger.get_children(path)
    other = connect(f"shop:{QUOTED}")
    with hold(other, "order", lease_ms=LEASE_MS, wait_ms=0):
        assert [held.key for held in lock.held()] == ["order"]
        assert other.realm() == realm
    for client in (owner, stranger):
        client.stop()
        client.close()


@pytest.mark.parametrize("credentials", ["shop:wrong-secret", "stranger:wrong-secret", ""])
def test_whoever_comes_with_another_password_is_told_so_by_every_call(
    connect: Callable[[str], LeaseLock], credentials: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    owner = connect(f"shop:{QUOTED}")
    owner.acquire("order", lease_ms=LEASE_MS, wait_ms=0).release()
    owner.realm()
    stranger = connect(credentials)
    calls: list[Callable[[], object]] = [
        lambda: stranger.acquire("order", lease_ms=LEASE_MS, wait_ms=1_000),
        lambda: stranger.acquire("another", lease_ms=LEASE_MS, wait_ms=0),
        stranger.realm,
        stranger.held,
        lambda: stranger.break_lease("order"),
        stranger.ping,
    ]
    for call in calls:
        with pytest.raises(LockUnavailable, match="user or password of LOCK_URL") as caught:
            call()
        assert "secret" not in repr(caught.value)
    assert "secret" not in caplog.text
    with hold(owner, "order", lease_ms=LEASE_MS, wait_ms=0):
        owner.ping()


def test_a_password_is_in_no_log_and_in_no_repr(
    connect: Callable[[str], LeaseLock], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("kazoo", "kazoo.client"):  # which logs its requests
        caplog.set_level(1, logger=name)
    lock = connect(f"shop:{QUOTED}")
    with hold(lock, "order", lease_ms=LEASE_MS, wait_ms=0) as lease:
        shown = [caplog.text, repr(lock), repr(lease), repr(vars(lock)), str(lock)]
        assert any("Auth(" in record.getMessage() for record in caplog.records)
        assert not any(SECRET in text or "w/ord" in text for text in shown)
    assert logging.getLogger("kazoo.client").isEnabledFor(1)


class WithoutDigest(ZooKeeperServer):
    """A server that does not know passwords, until it is started anew."""

    is_strict = True

    def command(self) -> list[str]:
        """As ever, with one setting more."""
        java, *rest = super().command()
        setting = "-Dzookeeper.DigestAuthenticationProvider.enabled=false"
        return [java, *([setting] if self.is_strict else []), *rest]


def test_a_server_that_refuses_all_passwords_is_reported_and_used_again_when_it_accepts_them() -> (
    None
):
    with WithoutDigest() as server:
        lock = from_url(f"zookeeper://shop:{QUOTED}@{server.hosts}/locks?session_ms=2000")

        def says_refused() -> bool:
            try:
                lock.acquire("order", lease_ms=LEASE_MS, wait_ms=0)
            except LockUnavailable as error:
                return "user or password" in str(error)
            pytest.fail("It must not be let in.")

        wait_until(says_refused, "the refusal is told")
        wait_until(says_refused, "the refusal is told by a new client too")
        server.process.kill9()
        server.is_strict = False
        server.process.command = server.command()
        server.start()

        def serves() -> bool:
            with suppress(LockUnavailable):
                lock.acquire("order", lease_ms=LEASE_MS, wait_ms=0).release()
                return True
            return False

        wait_until(serves, "it serves again")
        lock.close()
