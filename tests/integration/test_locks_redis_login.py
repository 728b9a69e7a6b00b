"""Who is let in: TLS with a private authority, users and passwords, and the fewest rights."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from locks import LockTimeout, LockUnavailable, from_url, hold
from locks.on_redis.lock import RedisLock
from tests.certificates import Authority
from tests.processes import make_folder, wait_until
from tests.redis_servers import ClusterKit, ConfiguredRedis, SentinelServer, TlsRedis

PATIENCE_MS = 30_000
# What the lock needs of Redis, on its own keys and channels alone (README.md of locks/ has it).
RIGHTS = (
    "~lease:* &lease-granted:* "
    "+eval +evalsha +time +get +set +del +expire +pexpire +pttl "
    "+lpop +rpush +lrem +llen +lrange +hget +hset +hdel +publish +subscribe +ping +scan"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signed the server, and a client."""
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.sign("server")
    made.sign("client")
    return made


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[TlsRedis]:
    """TLS alone, with a password."""
    with TlsRedis(authority, password="wo:rd/1") as started:
        yield started


def _works(lock: RedisLock, key: str) -> None:
    """Taken, waited for, handed over, renewed, listed, given back."""
    first = lock.acquire(key, lease_ms=1_000, wait_ms=0)
    fences: list[int] = []

    def wait() -> None:
        with hold(lock, key, lease_ms=1_000, wait_ms=PATIENCE_MS) as lease:
            fences.append(lease.fence)

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(lambda: [len(held.waiters) for held in lock.held()] == [1], "the waiter queues up")
    assert not first.lost.wait(1.5)
    first.release()
    waiter.join(PATIENCE_MS / 1_000)
    assert fences
    assert fences[0] > first.fence


def _refusal(url: str) -> str:
    """What a lock says that is not let in; it is the same for all its doors."""
    lock = from_url(url)
    try:
        with pytest.raises(LockUnavailable) as caught:
            lock.acquire("key", lease_ms=1_000, wait_ms=PATIENCE_MS)
        with pytest.raises(LockUnavailable):
            lock.ping()
        return str(caught.value)
    finally:
        lock.close()


def test_tls_with_a_private_authority_and_a_password(
    server: TlsRedis, authority: Authority
) -> None:
    url = f"rediss://:wo%3Ard%2F1@127.0.0.1:{server.port}/0?ssl_ca_certs={authority.certificate}"
    lock = RedisLock(url)
    try:
        _works(lock, "tls")
    finally:
        lock.close()


def test_a_server_of_an_authority_that_is_not_trusted_is_refused(server: TlsRedis) -> None:
    said = _refusal(f"rediss://:wo%3Ard%2F1@127.0.0.1:{server.port}/0")
    assert "CERTIFICATE_VERIFY_FAILED" in said
    assert "wo:rd/1" not in said


def test_a_certificate_for_another_address_is_refused_unless_one_says_otherwise(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path)
    other.sign("server", host="192.0.2.1")
    with TlsRedis(other) as elsewhere:
        url = f"rediss://127.0.0.1:{elsewhere.port}/0?ssl_ca_certs={other.certificate}"
        assert "IP address mismatch" in _refusal(url)
        lock = RedisLock(f"{url}&ssl_check_hostname=false")
        lock.acquire("key", lease_ms=1_000, wait_ms=0).release()
        lock.close()


def test_a_client_s_certificate_is_shown_where_it_is_asked_for(authority: Authority) -> None:
    with TlsRedis(authority, asks_clients=True) as strict:
        url = f"rediss://127.0.0.1:{strict.port}/0?ssl_ca_certs={authority.certificate}"
        _refusal(url)
        own = (
            f"&ssl_certfile={authority.folder}/client.pem&ssl_keyfile={authority.folder}/client.key"
        )
        lock = RedisLock(url + own)
        lock.acquire("key", lease_ms=1_000, wait_ms=0).release()
        lock.close()


def test_a_file_that_is_not_there_and_a_server_without_tls_are_named(server: TlsRedis) -> None:
    url = f"rediss://127.0.0.1:{server.port}/0?ssl_ca_certs=/nowhere/ca.pem"
    assert "No such file" in _refusal(url)
    with ConfiguredRedis() as plain:
        _refusal(f"rediss://127.0.0.1:{plain.port}/0")


def test_sentinels_and_their_master_by_tls(server: TlsRedis, authority: Authority) -> None:
    with SentinelServer("shop", server, "word", authority) as sentinel:
        url = f"rediss+sentinel://:wo%3Ard%2F1@127.0.0.1:{sentinel.port}/shop/0"
        options = f"?sentinel_password=word&ssl_ca_certs={authority.certificate}"
        lock = RedisLock(url + options)
        try:
            _works(lock, "sentinel")
        finally:
            lock.close()
        assert "CERTIFICATE_VERIFY_FAILED" in _refusal(f"{url}?sentinel_password=word")


def test_a_cluster_by_tls(authority: Authority) -> None:
    with ClusterKit(authority) as kit:
        url = f"rediss+cluster://127.0.0.1:{kit.nodes[0].port}?ssl_ca_certs={authority.certificate}"
        lock = RedisLock(url)
        try:
            _works(lock, "cluster")
            for number in range(20):  # at all three nodes
                lock.acquire(f"key-{number}", lease_ms=1_000, wait_ms=0).release()
        finally:
            lock.close()


def test_a_server_behind_a_unix_socket() -> None:
    path = make_folder("socket") / "redis.sock"
    with ConfiguredRedis("--unixsocket", str(path), "--unixsocketperm", "700"):
        wait_until(path.exists, "the socket is there")
        lock = RedisLock(f"unix://{path}?db=2")
        try:
            _works(lock, "unix")
        finally:
            lock.close()


def test_a_user_with_the_fewest_rights_can_do_all_that_the_lock_does() -> None:
    with ConfiguredRedis() as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "locker", "on", ">wo:rd", *RIGHTS.split())
        lock = RedisLock(f"redis://locker:wo%3Ard@127.0.0.1:{server.port}/0")
        try:
            _works(lock, "acl")
            with hold(lock, "acl", lease_ms=1_000, wait_ms=0):
                with pytest.raises(LockTimeout):
                    lock.acquire("acl", lease_ms=1_000, wait_ms=200)
                assert lock.break_lease("acl") is not None
            lock.ping()
        finally:
            lock.close()


def test_whoever_is_not_let_in_is_told_why_without_the_secret() -> None:
    with ConfiguredRedis() as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "locker", "on", ">right", *RIGHTS.split())
            client.execute_command("ACL", "SETUSER", "reader", "on", ">right", "~*", "+get")
        at = f"127.0.0.1:{server.port}/0"
        assert "invalid username-password pair" in _refusal(f"redis://locker:wrongword@{at}")
        assert "invalid username-password pair" in _refusal(f"redis://nobody:wrongword@{at}")
        assert "wrongword" not in _refusal(f"redis://locker:wrongword@{at}")
        assert "no permissions" in _refusal(f"redis://reader:right@{at}")
