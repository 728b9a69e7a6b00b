"""The transport under both gateways: bounded, silent in the logs, safe across fork, never raising
anything but its own fault, whatever a server sends."""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shop.clock import SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.base import NoticeRefused, Outcome
from shop.gateways.transport import MAX_IDLE_S, Transport, TransportFault
from shop.gateways.wechatpay import WeChatPay
from tests.integration.gateway_server import (
    GatewayServer,
    Reply,
    alipay_reply,
    gateway_server,
    wechatpay_envelope,
    wechatpay_reply,
)
from tests.integration.keys import alipay_keys, wechatpay_keys
from tests.integration.third_party import wechatpay_transaction

NUMBER = "PO20260101000001"


@pytest.fixture
def server() -> Iterator[GatewayServer]:
    with gateway_server() as running:
        yield running


@contextmanager
def saying(said: bytes) -> Iterator[str]:
    """The address of a server that sends the same bytes to whoever connects, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                with link:
                    link.recv(65_536)
                    link.sendall(said)

        thread = Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x00\xff\xfe\r\n\r\n",
        b"HTTP/1.1 9999 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nshort",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
    ],
)
def test_nonsense_on_the_wire_is_unknown(said: bytes) -> None:
    with saying(said) as url:
        wechatpay = WeChatPay(
            wechatpay_keys().settings(url),
            connect_timeout_ms=2_000,
            read_timeout_ms=5_000,
            clock=SystemClock(),
        )
        alipay = Alipay(
            alipay_keys().settings(f"{url}/gateway.do"),
            connect_timeout_ms=2_000,
            read_timeout_ms=5_000,
            clock=SystemClock(),
        )
        assert wechatpay.query(NUMBER).outcome is Outcome.UNKNOWN
        assert alipay.close(NUMBER).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "said",
    [
        b"Content-Length: 10\r\n\r\nshort",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-5\r\nshort",
        # Python's own reader would read on to the end of the connection, however far that is.
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\nshort",
    ],
)
def test_an_answer_that_is_cut_short_is_none(said: bytes) -> None:
    transport = Transport(connect_timeout_ms=5_000, read_timeout_ms=30_000)
    with saying(b"HTTP/1.1 200 OK\r\n" + said) as url:
        with pytest.raises(TransportFault) as fault:
            transport.send("GET", url, headers={})
        assert (fault.value.code, fault.value.sent) == ("unreachable", True)
        with pytest.raises(TransportFault) as fault:
            transport.download(
                "GET", url, {}, sink=lambda _: None, max_bytes=99, total_timeout_s=30
            )
        assert (fault.value.code, fault.value.sent) == ("unreachable", True)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from(
            [
                *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n", b"0\r\n"),
                *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"-3\r\n"),
                *(b"Location: http://127.0.0.1:1/\r\n", b"Connection: keep-alive\r\n", b"abc"),
            ]
        )
        | st.binary(max_size=20),
        max_size=12,
    )
)
def test_any_bytes_on_the_wire_are_an_answer_or_a_fault(said: list[bytes]) -> None:
    transport = Transport(connect_timeout_ms=5_000, read_timeout_ms=30_000)
    with saying(b"HTTP/1.1 200 OK\r\n" + b"".join(said)) as url, suppress(TransportFault):
        transport.send("GET", url, headers={})


def test_a_server_without_tls_is_a_fault_where_tls_was_asked_for(server: GatewayServer) -> None:
    transport = Transport(connect_timeout_ms=2_000, read_timeout_ms=2_000)
    with pytest.raises(TransportFault) as failed:
        transport.send("GET", server.url.replace("http://", "https://"), headers={})
    assert failed.value.code == "unreachable"


def test_who_cannot_be_reached_is_named_as_people_know_it() -> None:
    with gateway_server() as gone:
        url = gone.url
    transport = Transport(connect_timeout_ms=5_000, read_timeout_ms=5_000)
    with pytest.raises(TransportFault) as refused:
        transport.send("GET", url, headers={})
    assert refused.value.detail.startswith(f"{url.removeprefix('http://')}: ")


def test_an_answer_is_bytes_as_sent_whatever_encoding_it_claims(server: GatewayServer) -> None:
    server.script = lambda _seen: Reply(headers={"Content-Encoding": "gzip"}, body=b"not gzip")
    transport = Transport(connect_timeout_ms=2_000, read_timeout_ms=5_000)
    answer = transport.send("GET", server.url, headers={})
    assert (answer.status, answer.body) == (200, b"not gzip")


def test_a_forked_child_opens_its_own_connection(server: GatewayServer) -> None:
    keys = wechatpay_keys()
    server.script = lambda _seen: wechatpay_reply(keys, wechatpay_transaction(keys, NUMBER, 1))
    gateway = WeChatPay(
        keys.settings(server.url),
        connect_timeout_ms=2_000,
        read_timeout_ms=10_000,
        clock=SystemClock(),
    )
    assert gateway.query(NUMBER).outcome is Outcome.SUCCEEDED
    before = server.connections
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if gateway.query(NUMBER).outcome is Outcome.SUCCEEDED else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert server.connections > before
    assert gateway.query(NUMBER).outcome is Outcome.SUCCEEDED


def test_no_log_at_any_level_holds_what_was_decrypted_or_signed(
    server: GatewayServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    keys, openid = wechatpay_keys(), "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
    gateway = WeChatPay(
        keys.settings(server.url),
        connect_timeout_ms=2_000,
        read_timeout_ms=5_000,
        clock=SystemClock(),
    )
    transaction = wechatpay_transaction(keys, NUMBER, 1, payer={"openid": openid})
    server.script = lambda _seen: wechatpay_reply(keys, transaction)
    gateway.query(NUMBER)
    body = b"{}"
    with pytest.raises(NoticeRefused, match="malformed"):
        gateway.read_notice(wechatpay_envelope(keys, body), body)
    alipay = Alipay(
        alipay_keys().settings(f"{server.url}/gateway.do"),
        connect_timeout_ms=2_000,
        read_timeout_ms=5_000,
        clock=SystemClock(),
    )
    server.script = lambda _seen: alipay_reply(
        alipay_keys(), "alipay.trade.query", {"code": "10000", "buyer_logon_id": openid}
    )
    alipay.query(NUMBER)
    written = caplog.text + "".join(capfd.readouterr())
    for secret in (openid, "sign=", keys.apiv3_key, "signature"):
        assert secret not in written


def test_an_idle_connection_is_not_trusted(server: GatewayServer) -> None:
    keys = wechatpay_keys()
    server.script = lambda _seen: wechatpay_reply(keys, wechatpay_transaction(keys, NUMBER, 1))
    gateway = WeChatPay(
        keys.settings(server.url),
        connect_timeout_ms=2_000,
        read_timeout_ms=10_000,
        clock=SystemClock(),
    )
    assert gateway.query(NUMBER).outcome is Outcome.SUCCEEDED
    time.sleep(MAX_IDLE_S + 0.1)
    assert gateway.query(NUMBER).outcome is Outcome.SUCCEEDED
    assert server.connections == 2


def fetched(url: str, *, max_bytes: int = 1_000_000, total_timeout_s: float = 30) -> bytes:
    """A file as the transport hands it on."""
    pieces: list[bytes] = []
    answer = Transport(connect_timeout_ms=2_000, read_timeout_ms=100).download(
        "GET",
        url,
        {},
        sink=pieces.append,
        max_bytes=max_bytes,
        total_timeout_s=total_timeout_s,
    )
    assert answer.body == b"" or not pieces
    return b"".join(pieces) or answer.body


def test_a_file_may_take_longer_than_an_answer_and_is_handed_on_whole(
    server: GatewayServer,
) -> None:
    file = os.urandom(300_000)

    def slow(_seen: object) -> Reply:
        time.sleep(0.3)  # three times the read time-out of an answer
        return Reply(body=file)

    server.script = slow
    assert fetched(server.url) == file


def test_a_file_of_just_the_bound_passes_and_a_longer_one_does_not(server: GatewayServer) -> None:
    server.script = lambda _seen: Reply(body=b"x" * 100_000)
    assert len(fetched(server.url, max_bytes=100_000)) == 100_000
    with pytest.raises(TransportFault) as failed:
        fetched(server.url, max_bytes=99_999)
    assert (failed.value.code, failed.value.sent) == ("bad_answer", True)


def test_a_file_that_drips_without_end_is_given_up(server: GatewayServer) -> None:
    server.drip_s = 0.05
    server.script = lambda _seen: Reply(body=b" " * 1_000_000)
    with pytest.raises(TransportFault) as failed:
        fetched(server.url, total_timeout_s=0.4)
    assert failed.value.code == "timeout"


def test_an_answer_that_is_no_file_is_read_as_an_answer(server: GatewayServer) -> None:
    server.script = lambda _seen: Reply(status=400, body=b'{"code":"NO_STATEMENT_EXIST"}')
    assert fetched(server.url, max_bytes=1) == b'{"code":"NO_STATEMENT_EXIST"}'


def test_a_sink_that_fails_ends_the_download(server: GatewayServer) -> None:
    server.script = lambda _seen: Reply(body=b"x" * 1_000_000)

    def full(_piece: bytes) -> None:
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        Transport(connect_timeout_ms=2_000, read_timeout_ms=2_000).download(
            "GET", server.url, {}, sink=full, max_bytes=10**6, total_timeout_s=30
        )


def test_only_a_request_that_had_no_connection_counts_as_never_sent(
    server: GatewayServer,
) -> None:
    def silent(_seen: object) -> Reply:
        server.stopping.wait()
        return Reply()

    server.script = silent
    with gateway_server() as gone:
        refused = gone.url
    transport = Transport(connect_timeout_ms=2_000, read_timeout_ms=200)
    sent = []
    for url in (refused, "http://gateway.invalid", server.url):
        with pytest.raises(TransportFault) as failed:
            transport.send("GET", url, headers={})
        sent.append((failed.value.code, failed.value.sent))
    assert sent == [("unreachable", False), ("unreachable", False), ("timeout", True)]
