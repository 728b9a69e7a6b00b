"""A connection of the Redis lock, over a real socket whose other end we hold."""

import socket
import threading
from collections.abc import Iterator

import pytest

from locks.on_redis.link import Endpoint, Link, LinkBroken, Refused, packed
from locks.on_redis.node import Node
from locks.on_redis.token import Tokens, holder_of

# Far longer than a loopback takes; a test that waits so long has failed.
PATIENCE_S = 30.0
# Long enough to be sure that nothing comes.
SILENCE_S = 0.05


@pytest.fixture
def ends() -> Iterator[tuple[Link, socket.socket]]:
    """A connection, and the server's end of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        link = Link(Endpoint.of_url(url), PATIENCE_S)
        server, _ = listener.accept()
        with server:
            yield link, server
        link.close()


def test_a_request_is_packed_by_its_bytes_not_by_its_signs() -> None:
    assert packed("SET", "钥", 5, b"\r\n") == (
        b"*4\r\n$3\r\nSET\r\n$3\r\n\xe9\x92\xa5\r\n$1\r\n5\r\n$2\r\n\r\n\r\n"
    )


def test_what_comes_in_pieces_is_heard_whole(ends: tuple[Link, socket.socket]) -> None:
    link, server = ends
    assert link.hear(SILENCE_S) is None
    server.sendall(b"*2\r\n$5\r\na\r\nbc\r\n:")
    sender = threading.Timer(SILENCE_S, server.sendall, (b"7\r\n+next\r\n",))
    sender.start()
    assert link.hear(PATIENCE_S) == [b"a\r\nbc", 7]
    assert link.hear(PATIENCE_S) == b"next"
    assert link.hear(SILENCE_S) is None
    sender.join()


def test_a_refusal_leaves_the_connection_good(ends: tuple[Link, socket.socket]) -> None:
    link, server = ends
    server.sendall(b"-READONLY You can't.\r\n:1\r\n-ERR no\r\n")
    with pytest.raises(Refused, match="You can't"):
        link.ask(packed("SET", "a", "b"))
    good, bad = link.ask_all([packed("EXISTS", "a"), packed("NONSENSE")])
    assert good == 1
    assert isinstance(bad, Refused)


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n", b""])
def test_what_is_no_redis_breaks_the_connection(
    ends: tuple[Link, socket.socket], nonsense: bytes
) -> None:
    link, server = ends
    server.sendall(nonsense)
    server.shutdown(socket.SHUT_WR)
    with pytest.raises(LinkBroken):
        link.ask(packed("PING"))


def test_a_thread_that_hears_is_woken_when_the_connection_is_closed(
    ends: tuple[Link, socket.socket],
) -> None:
    link, _ = ends
    closer = threading.Timer(SILENCE_S, link.close)
    closer.start()
    with pytest.raises(LinkBroken):
        link.hear(PATIENCE_S)
    closer.join()


def test_a_connection_that_was_closed_is_not_made_anew(ends: tuple[Link, socket.socket]) -> None:
    link, _ = ends  # whoever listens would let it in again
    link.close()
    with pytest.raises(LinkBroken):
        link.hear(SILENCE_S)
    with pytest.raises(LinkBroken):
        link.ask(packed("PING"))
    with pytest.raises(LinkBroken):
        link.ask_all([packed("PING")])


def test_no_subscription_comes_after_the_end_of_all(redis_url: str) -> None:
    node = Node(Endpoint.of_url(redis_url))
    used = node.subscriptions.fresh()
    node.close()
    node.subscriptions.put_back(used)
    assert node.subscriptions.idle() is None
    with pytest.raises(LinkBroken):
        used.wait_for("token", SILENCE_S)
    with pytest.raises(LinkBroken):
        node.subscriptions.fresh()


def test_a_token_is_given_once_and_says_where_it_was_made() -> None:
    tokens, others = Tokens(), Tokens()
    made = {each.new() for each in (tokens, others) for _ in range(100)}
    assert len(made) == 200
    assert not any("|" in token for token in made)
    host, pid = holder_of(tokens.new()).split()
    assert host
    assert int(pid) > 0
    assert holder_of("something-else") == "something-else"
