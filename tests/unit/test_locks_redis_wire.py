"""Redis' protocol as the lock speaks it, over a real socket whose other end we hold."""

import socket
from collections.abc import Iterator

import pytest

from locks.redis_token import Tokens, holder_of
from locks.redis_wire import Endpoint, Link, LinkBroken, ReplyError, pack

# Far longer than a loopback takes; a test that waits so long has failed.
PATIENCE_S = 30.0
# Long enough to be sure that nothing comes.
SILENCE_S = 0.05


@pytest.fixture
def ends() -> Iterator[tuple[Link, socket.socket]]:
    """A connection, and the server's end of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = Link(Endpoint("127.0.0.1", listener.getsockname()[1]), PATIENCE_S)
        server, _ = listener.accept()
        with server:
            yield link, server
        link.close()


def test_a_request_is_packed_by_its_bytes_not_by_its_signs() -> None:
    assert pack("SET", "钥", 5, b"\r\n") == (
        b"*4\r\n$3\r\nSET\r\n$3\r\n\xe9\x92\xa5\r\n$1\r\n5\r\n$2\r\n\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("sent", "reply"),
    [
        (b"+OK\r\n", b"OK"),
        (b":-42\r\n", -42),
        (b"$5\r\na\r\nbc\r\n", b"a\r\nbc"),
        (b"$0\r\n\r\n", b""),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"*0\r\n", []),
        (b"*3\r\n:1\r\n*1\r\n$1\r\nx\r\n$-1\r\n", [1, [b"x"], None]),
    ],
)
def test_each_kind_of_reply_is_read_however_it_is_cut_up(
    ends: tuple[Link, socket.socket], sent: bytes, reply: object
) -> None:
    link, server = ends
    for cut in range(1, len(sent)):
        server.sendall(sent[:cut])
        with pytest.raises(TimeoutError):
            link.read_within(SILENCE_S)
        server.sendall(sent[cut:] + b":7\r\n")
        assert link.read_within(PATIENCE_S) == reply
        assert link.read_within(PATIENCE_S) == 7


def test_an_error_is_given_with_its_code(ends: tuple[Link, socket.socket]) -> None:
    link, server = ends
    server.sendall(b"-NOSCRIPT No matching script.\r\n")
    reply = link.ask(pack("EVALSHA", "abc", 0))
    assert isinstance(reply, ReplyError)
    assert (reply.code, str(reply)) == ("NOSCRIPT", "NOSCRIPT No matching script.")


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n", b""])
def test_what_is_no_redis_breaks_the_connection(
    ends: tuple[Link, socket.socket], nonsense: bytes
) -> None:
    link, server = ends
    server.sendall(nonsense)
    server.shutdown(socket.SHUT_WR)
    with pytest.raises(LinkBroken):
        link.ask(pack("PING"))


def test_a_token_is_given_once_and_says_where_it_was_made() -> None:
    tokens, others = Tokens(), Tokens()
    made = {each.new() for each in (tokens, others) for _ in range(100)}
    assert len(made) == 200
    assert not any("|" in token for token in made)
    host, pid = holder_of(tokens.new()).split()
    assert host
    assert int(pid) > 0
    assert holder_of("something-else") == "something-else"
