"""The loopback proxy of the lock tests, before a real Redis: what it loses, and what it keeps."""

import socket
import threading
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.processes import wait_until
from tests.proxy import Proxy
from tests.services import RedisServer

# Far longer than any answer; an error of this kind is what the test waits for.
SILENCE_S = 1.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    with Proxy(server.port) as started:
        yield started


def _client(port: int, timeout_s: float = 30.0) -> redis.Redis:
    return redis.Redis(port=port, socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0))


def test_a_dropped_reply_breaks_the_connection_after_the_server_did_the_work(
    server: RedisServer, proxy: Proxy
) -> None:
    client = _client(proxy.port)
    assert client.set("before", "1")
    proxy.drop_replies(1, to=b"INCR")
    with pytest.raises(redis.ConnectionError):
        client.incr("count")
    assert _client(server.port).get("count") == b"1"
    assert (client.incr("count"), proxy.dropped) == (2, 1)


def test_a_silently_dropped_reply_leaves_the_client_to_its_time_out(
    server: RedisServer, proxy: Proxy
) -> None:
    client = _client(proxy.port, SILENCE_S)
    assert client.set("before", "1")
    proxy.drop_replies(1, to=b"INCR", silently=True)
    with pytest.raises(redis.TimeoutError):
        client.incr("count")
    assert _client(server.port).get("count") == b"1"


def test_only_the_named_requests_lose_their_reply(proxy: Proxy) -> None:
    client = _client(proxy.port)
    proxy.drop_replies(1, to=b"INCR")
    assert client.set("other", "1")
    assert client.get("other") == b"1"
    assert proxy.dropped == 0


def test_a_cut_ends_what_is_open_and_serves_what_is_new(proxy: Proxy) -> None:
    # A bare socket: the client library would quietly replace an idle connection that ended.
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30.0) as link:
        link.sendall(b"PING\r\n")
        assert link.recv(64) == b"+PONG\r\n"
        proxy.cut()
        assert link.recv(64) == b""
    assert _client(proxy.port).ping()


def test_frozen_nothing_arrives_and_thawed_it_arrives(server: RedisServer, proxy: Proxy) -> None:
    client, direct = _client(proxy.port), _client(server.port)
    assert client.ping()
    proxy.freeze()
    impatient = _client(proxy.port, SILENCE_S)
    with pytest.raises(redis.TimeoutError):
        impatient.set("never", "1")
    thread = threading.Thread(target=client.incr, args=("count",))
    thread.start()
    assert direct.get("count") is None
    proxy.thaw()
    thread.join(30.0)
    assert not thread.is_alive()
    assert direct.get("count") == b"1"


def test_a_frozen_connection_can_be_cut(server: RedisServer, proxy: Proxy) -> None:
    client = _client(proxy.port)
    assert client.ping()
    proxy.freeze()
    ended = threading.Event()

    def incr() -> None:
        try:
            client.incr("count")
        except redis.ConnectionError:
            ended.set()

    thread = threading.Thread(target=incr)
    thread.start()

    def is_cut() -> bool:
        proxy.cut()
        return ended.is_set()

    wait_until(is_cut, "the cut connection ends")
    thread.join(30.0)
    proxy.thaw()
    assert _client(server.port).get("count") is None


def test_closed_it_leaves_no_thread_and_no_open_port(server: RedisServer) -> None:
    proxy = Proxy(server.port)
    clients = [_client(proxy.port) for _ in range(5)]
    assert all(client.ping() for client in clients)
    proxy.close()
    assert not [each for each in threading.enumerate() if each.name == "proxy"]
    with pytest.raises(redis.ConnectionError):
        _client(proxy.port).ping()


def test_with_the_server_gone_a_connection_ends_at_once(proxy: Proxy, server: RedisServer) -> None:
    server.process.kill9()
    with pytest.raises(redis.ConnectionError):
        _client(proxy.port).ping()
