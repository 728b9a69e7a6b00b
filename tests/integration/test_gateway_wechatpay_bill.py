"""WeChat Pay's bill of a day: written whole and checked, or not believed."""

import gzip
import hashlib
import io
import os
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shop.clock import SystemClock
from shop.gateways.base import BillResult, Outcome
from shop.gateways.reading import BadField
from shop.gateways.wechatpay import WeChatPay
from shop.gateways.wechatpay_bill import FREE_BYTES, MAX_RATIO, _Unpacked
from tests.contracts.replay import FixedClock
from tests.integration.gateway_server import (
    GatewayServer,
    Reply,
    Seen,
    gateway_server,
    wechatpay_error,
    wechatpay_reply,
)
from tests.integration.keys import wechatpay_keys

KEYS = wechatpay_keys()
DAY = date(2026, 1, 1)
FILE = "/v3/billdownload/file?token=abc%2F1"
BILL = "\ufeff交易时间,商户订单号\r\n`2026-01-01 12:00:00,`PO1\r\n".encode() * 3


@pytest.fixture(scope="module")
def running() -> Iterator[GatewayServer]:
    with gateway_server() as server:
        yield server


@pytest.fixture
def server(running: GatewayServer) -> GatewayServer:
    running.reset()
    return running


def gateway_at(url: str, now: datetime | None = None) -> WeChatPay:
    return WeChatPay(
        KEYS.settings(url),
        connect_timeout_ms=5_000,
        read_timeout_ms=30_000,
        clock=SystemClock() if now is None else FixedClock(now),
    )


def offer(server: GatewayServer, packed: bytes, **changes: Any) -> None:
    """Let the server give this file for a bill whose SHA1 is that of BILL."""
    told = {
        "hash_type": "SHA1",
        "hash_value": hashlib.sha1(BILL, usedforsecurity=False).hexdigest(),
        "download_url": server.url + FILE,
        **changes,
    }

    def answer(seen: Seen) -> Reply:
        return Reply(body=packed) if seen.target == FILE else wechatpay_reply(KEYS, told)

    server.script = answer


def download(server: GatewayServer) -> tuple[BillResult, bytes]:
    into = io.BytesIO()
    return gateway_at(server.url).download_bill(DAY, into), into.getvalue()


def read(result: BillResult) -> tuple[Outcome, str | None]:
    return result.outcome, result.fault.code if result.fault else None


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_a_bill_is_written_byte_for_byte_and_both_requests_are_signed(
    server: GatewayServer, case: Any
) -> None:
    offer(
        server,
        gzip.compress(BILL),
        hash_value=case(hashlib.sha1(BILL, usedforsecurity=False).hexdigest()),
    )
    result, written = download(server)
    assert (read(result), written) == ((Outcome.SUCCEEDED, None), BILL)
    assert [seen.target for seen in server.requests] == [
        "/v3/bill/tradebill?bill_date=2026-01-01&bill_type=ALL&tar_type=GZIP",
        FILE,
    ]
    assert all("signature=" in seen.headers["Authorization"] for seen in server.requests)


PACKED = gzip.compress(BILL)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        BILL,
        PACKED[:-1],
        PACKED[: len(PACKED) // 2],
        PACKED + b"x",
        PACKED + PACKED,
        PACKED[:-8] + bytes(8),
        gzip.compress(BILL + b" "),
    ],
    ids=["empty", "plain", "cut", "half", "more", "twice", "checksum", "another"],
)
def test_a_file_that_is_not_the_bill_is_not_believed(server: GatewayServer, packed: bytes) -> None:
    offer(server, packed)
    result, _ = download(server)
    assert read(result) == (Outcome.UNKNOWN, "bad_answer")


@pytest.mark.parametrize(
    "changes",
    [
        {"hash_type": "MD5"},
        {"hash_type": None},
        {"hash_value": None},
        {"download_url": None},
        {"download_url": "/v3/billdownload/file"},
        {"download_url": "http://[::1"},
        {"download_url": "x" * 3_000},
    ],
)
def test_an_answer_without_what_is_needed_is_not_acted_on(
    server: GatewayServer, changes: dict[str, object]
) -> None:
    offer(server, PACKED, **changes)
    result, written = download(server)
    assert (read(result), written) == ((Outcome.UNKNOWN, "bad_answer"), b"")
    assert len(server.requests) == 1


def test_our_signature_is_sent_to_no_other_host(server: GatewayServer) -> None:
    with gateway_server() as stranger:
        for address in (
            stranger.url + FILE,
            server.url.replace("//", "//user@") + FILE,
            server.url.replace("http:", "https:") + FILE,
            f"{server.url}@{stranger.url.removeprefix('http://')}{FILE}",
        ):
            offer(server, PACKED, download_url=address)
            assert read(download(server)[0]) == (Outcome.UNKNOWN, "bad_answer")
        assert stranger.requests == []


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "NO_STATEMENT_EXIST", Outcome.FAILED),
        (400, "STATEMENT_CREATING", Outcome.PENDING),
        (400, "INVALID_REQUEST", Outcome.UNKNOWN),
        (500, "SYSTEM_ERROR", Outcome.UNKNOWN),
    ],
)
def test_without_a_bill_the_code_says_whether_to_ask_again(
    server: GatewayServer, status: int, code: str, expected: Outcome
) -> None:
    server.script = lambda _seen: wechatpay_error(status, code)
    assert read(download(server)[0]) == (expected, code)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (datetime(2026, 1, 2, 1, 59, tzinfo=UTC), Outcome.PENDING),
        (datetime(2026, 1, 2, 2, 0, tzinfo=UTC), Outcome.FAILED),
    ],
)
def test_a_bill_that_is_missing_before_ten_the_next_morning_may_still_come(
    server: GatewayServer, now: datetime, expected: Outcome
) -> None:
    server.script = lambda _seen: wechatpay_error(400, "NO_STATEMENT_EXIST")
    result = gateway_at(server.url, now).download_bill(DAY, io.BytesIO())
    assert result.outcome is expected


def test_a_file_that_is_refused_is_told_by_its_code(server: GatewayServer) -> None:
    offer(server, PACKED)
    first = server.script

    def answer(seen: Seen) -> Reply:
        return wechatpay_error(401, "SIGN_ERROR") if seen.target == FILE else first(seen)

    server.script = answer
    assert read(download(server)[0]) == (Outcome.UNKNOWN, "SIGN_ERROR")


def test_a_file_that_unpacks_to_far_more_than_came_is_given_up(server: GatewayServer) -> None:
    offer(server, gzip.compress(bytes(64 * 1024**2)))
    result, written = download(server)
    assert read(result) == (Outcome.UNKNOWN, "bad_answer")
    assert len(written) <= max(FREE_BYTES, 64 * 1024 * (MAX_RATIO + 1))


class Nowhere(io.RawIOBase):
    """Counts what is written, and keeps none of it."""

    size = 0

    def write(self, content: Any) -> int:
        self.size += len(content)
        return len(content)


def test_a_long_bill_takes_no_more_memory_than_a_short_one(server: GatewayServer) -> None:
    bill = b"".join(b"`" + os.urandom(48).hex().encode() + b"\r\n" for _ in range(160_000))
    offer(
        server,
        gzip.compress(bill, 1),
        hash_value=hashlib.sha1(bill, usedforsecurity=False).hexdigest(),
    )
    into, gateway = Nowhere(), gateway_at(server.url)
    tracemalloc.start()
    try:
        result = gateway.download_bill(DAY, into)  # type: ignore[arg-type]  # it only writes
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (read(result), into.size) == ((Outcome.SUCCEEDED, None), len(bill))
    assert most < len(bill) / 4


@hypothesis_settings(deadline=None)
@given(st.lists(st.binary(max_size=300)), st.booleans())
def test_any_pieces_are_unpacked_or_refused(pieces: list[bytes], packed: bool) -> None:
    content = b"".join(pieces)
    into = io.BytesIO()
    unpacked = _Unpacked(into)
    try:
        for piece in [gzip.compress(content)] if packed else pieces:
            unpacked.take(piece)
        told = unpacked.end()
    except BadField:
        assert not packed
        return
    assert told == hashlib.sha1(into.getvalue(), usedforsecurity=False).hexdigest()
    assert not packed or into.getvalue() == content


def test_a_disk_that_is_full_is_the_callers_error(server: GatewayServer) -> None:
    class Full(Nowhere):
        def write(self, content: Any) -> int:
            raise OSError("No space left on device")

    offer(server, PACKED)
    with pytest.raises(OSError, match="No space left"):
        gateway_at(server.url).download_bill(DAY, Full())  # type: ignore[arg-type]
