"""LOCK_URL says which lock service, or what is wrong with it."""

import pytest

from locks import LeaseLock, LockConfigError, from_url


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
    ],
)
def test_no_complaint_quotes_a_password(url: str) -> None:
    with pytest.raises(LockConfigError) as caught:
        from_url(url)
    assert "secret" not in str(caught.value)
