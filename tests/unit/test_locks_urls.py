"""LOCK_URL says which lock service, or what is wrong with it."""

from pathlib import Path

import pytest

from locks import LeaseLock, LockConfigError, LockUnavailable, from_url
from locks.on_redis.address import parse_redis_url


@pytest.mark.parametrize(
    ("url", "backend"),
    [
        ("redis://127.0.0.1", "redis"),
        ("redis://:p%40ss@redis.example:6380/3", "redis"),
        ("rediss://user:word@redis.example/0?ssl_ca_certs=/etc/ca.pem", "redis"),
        ("redis://[::1]:6379/0", "redis"),
        ("unix:///run/redis.sock?db=2", "redis"),
        ("redis+sentinel://:p%40ss@h1,h2:26380,[::1]/shop/2?sentinel_password=x%2F", "redis"),
        ("rediss+sentinel://h1/shop?ssl_ca_certs=/etc/ca.pem&wait_replicas=1", "redis"),
        ("redis+cluster://user:word@h1:7000,h2:7000", "redis"),
        ("zookeeper://h1", "zookeeper"),
        ("zookeeper://shop:p%40ss%3A%2F@h1,h2/locks", "zookeeper"),
        ("zookeeper://h1:2181,h2:2182/shop/locks?session_ms=4000", "zookeeper"),
        ("file:///var/lib/shop/locks", "file"),
        ("file://localhost/var/lib/shop%20one", "file"),
        ("redis://u:a@b@h1:6379/0", "redis"),
        ("redis+sentinel://h1/shop?sentinel_password=p@ss", "redis"),
        ("unix:///run/redis@one/redis.sock", "redis"),
        ("zookeeper://[::1]:2181,h_2,h-3.example./shop", "zookeeper"),
    ],
)
def test_a_good_url_gives_its_back_end(url: str, backend: str) -> None:
    lock = from_url(url)
    assert lock.backend == backend
    assert isinstance(lock, LeaseLock)
    lock.close()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "known are redis://"),
        ("127.0.0.1:6379", "known are redis://"),
        ("etcd://h1", "'etcd'"),
        ("redis://", "names no host"),
        ("redis://h1:port/0", "port"),
        ("redis://h1:0/0", "port (1 to 65535)"),
        ("redis://h1:99999/0", "port (1 to 65535)"),
        ("redis://h1,h2/0", "several hosts"),
        ("redis://user@h1/0", "no password"),
        ("redis://h1/0?ssl_ca_certs=/etc/ca.pem", "for TLS only"),
        ("rediss://h1/0?ssl_check_hostname=perhaps", "true or false"),
        ("rediss://h1/0?ssl_keyfile=/etc/key.pem", "no ssl_certfile"),
        ("redis://h1/0?wait_replicas=some", "wait_replicas"),
        ("redis://h1/0?wait_replicas=6", "wait_replicas"),
        ("redis://h1/zero", "numbers"),
        ("redis://h1/0?socket_timeout=60", "option 'socket_timeout'"),
        ("redis://h1/0?retry_on_timeout=yes", "option 'retry_on_timeout'"),
        ("redis://h1/0?db=x", "db"),
        ("redis://:se#cret@h1/0", "%23"),
        ("redis://[::1/0", "not a URL"),
        ("redis+sentinel://h1:26379", "which master"),
        ("redis+sentinel:///shop/0", "names no host"),
        ("redis+sentinel://h1/shop/zero", "numbers"),
        ("redis+cluster://h1/1", "database 0 only"),
        ("redis+cluster://h1?sentinel_password=x", "option 'sentinel_password'"),
        ("redis+magic://h1", "known are redis://"),
        ("unix://run/redis.sock", "names no socket"),
        ("unix://", "names no socket"),
        ("zookeeper://", "no host and port"),
        ("zookeeper://h1,,h2", "no host and port"),
        ("zookeeper://h1:port", "no host and port"),
        ("zookeeper://h1:70000", "no host and port"),
        ("zookeeper://u@h1", "needs user and password"),
        ("zookeeper://:p@h1", "needs user and password"),
        ("zookeeper://u:@h1", "needs user and password"),
        ("zookeeper://u%3Av:p@h1", "needs user and password"),
        ("zookeeper://u:p/q@h1", "%2F"),
        ("zookeeper://u:p?q@h1", "%3F"),
        ("zookeeper://h1/../shop", "dots"),
        ("zookeeper://h1//shop", "empty part"),
        ("zookeeper://h1?session_ms=10", "session_ms"),
        ("zookeeper://h1?session_ms=soon", "session_ms"),
        ("zookeeper://h1?timeout=3", "option 'timeout'"),
        ("file://var/lib/locks", "three slashes"),
        ("file:///", "names no folder"),
        ("file:locks", "names no folder"),
        ("file:///var/locks?x=1", "option 'x'; there are none"),
        ("file:////", "names no folder"),
        ("file:///.", "names no folder"),
        ("file:///../..", "names no folder"),
        ("file:////../.", "names no folder"),
        ("file:///%2e%2e", "names no folder"),
        ("file:///var/..", "names no folder"),
        ("file:///proc/self/root", "names no folder"),
        ("file:///a%00b", "zero sign"),
        ("file:///var/lib/a#b", "%23"),
        ("redis://h1/0#", "%23"),
        ("redis://h1/0?wait_replicas=" + "9" * 5_000, "wait_replicas"),
        ("redis://h1/" + "1" * 5_000, "numbers"),
        ("redis://h1/0?db=" + "1" * 5_000, "numbers"),
        ("redis://h1/99999999999", "numbers"),
        ("redis://h1/\u0663", "numbers"),
        ("redis://h1:" + "1" * 5_000, "port (1 to 65535)"),
        ("redis://h1:\u0663/0", "port (1 to 65535)"),
        ("redis://::1/0", "host"),
        ("redis://[h1]/0", "cannot be read"),
        ("redis://h1]:6379/0", "cannot be read"),
        ("redis://h%2Fx/0", "cannot be read"),
        ("redis://h 1/0", "cannot be read"),
        ("redis://h1\udcff/0", "UTF-8"),
        ("file:///var/lib/locks%FF", "UTF-8"),
        ("redis://u:p%FF@h1/0", "UTF-8"),
        ("redis://u:p\tw@h1/0", "control character"),
        ("file:///var/lib/lo\ncks", "control character"),
        (" redis://h1/0", "space"),
        ("redis://a..b:6379/0", "host"),
        (f"zookeeper://{'a' * 64}:2181/x", "host"),
        ("redis://u:\udcff@h1/0", "UTF-8"),
        ("unix:///run/a%00b", "zero sign"),
        ("zookeeper://h1/%00", "zero sign"),
        ("zookeeper://h1:\u0663", "no host and port"),
        ("zookeeper://::1/shop", "no host and port"),
        ("zookeeper://[h1]", "cannot be read"),
        ("zookeeper://h1?session_ms=" + "1" * 5_000, "session_ms"),
    ],
)
def test_a_bad_url_is_refused_with_what_is_wrong(url: str, complaint: str) -> None:
    with pytest.raises(LockConfigError) as caught:
        from_url(url)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@h1:port/0",
        "redis://:sec/secret@h1:port/0",
        "redis://user:1234/secret@h1/0",
        "redis://:secret@h1,h2",
        "rediss://u:secret@h1/x",
        "redis+sentinel://:secret@h1,h2:x/shop",
        "redis+sentinel://h1?sentinel_password=secret",
        "zookeeper://u:secret@h1:x",
        "zookeeper://u:1/secret@h1",
        "zookeeper://u:1?secret@h1",
        "zookeeper://u:1#secret@h1",
        "zookeeper://u:secret",
        "zookeeper://:secret@h1",
        "zookeeper://u:℀secret@h1",
        "redis://u:secret:h1:1/0",
        "redis://u:secret:h1/0",
        "redis://secret:[::1]:6379/0",
        "redis://u:[secret]@h1/x",
        "redis://u:a?secret@h1/0",
        "redis://u:1?secret@h1/0",
        "redis://u:a?b&secret=@h1/0",
        "redis://u:a?secret=b@h1/0",
        "redis://u:a?secret",
        "redis://u:a?secret=x",
        "redis://u:1?secret:h1:6379/0",
        "redis+sentinel://u:1/secret@h1/0",
        "redis+cluster://u:secret:h1:1",
        "redis+sentinel://h1/shop?sentinel_password=secret#",
        "redis://h1/0?wait_replicas=secret",
        "zookeeper://u:secret:h1:1",
        "zookeeper://h1/secret//x",
        "zookeeper://h1?session_ms=secret",
        "file://u:secret@h1/var/lib/locks",
        "redis://u:secret\udcff@h1/0",
        "redis://u:secret%00@h1/0",
    ],
)
def test_no_complaint_quotes_a_password(url: str) -> None:
    with pytest.raises(LockConfigError) as caught:
        from_url(url)
    assert "secret" not in str(caught.value)


def test_a_link_to_the_root_folder_is_no_folder_for_locks(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(LockConfigError, match="names no folder"):
        from_url(f"file://{tmp_path}/link")


def test_a_folder_behind_links_that_go_round_is_unavailable_when_used(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "link")
    lock = from_url(f"file://{tmp_path}/link")
    with pytest.raises(LockUnavailable):
        lock.ping()
    lock.close()


def test_what_redis_py_cannot_read_is_refused_too() -> None:
    with pytest.raises(LockConfigError) as caught:
        parse_redis_url("redis://u:secret[@h1/0")
    assert "secret" not in str(caught.value)
