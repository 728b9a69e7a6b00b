"""WeChat Pay's trade bill: what happened on a day, as the documentation lays the file out."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from sandbox import clock, sandbox_of
from sandbox.wechatpay_bill import check_ready
from sandbox.wechatpay_checks import ApiError
from tests.integration.sandbox_kit import (
    BEIJING,
    Merchant,
    Running,
    number,
    receiving,
    running,
)
from tests.processes import wait_until

NOTIFY = "http://127.0.0.1:9/notify"
BILL = "/v3/bill/tradebill"
TODAY = datetime.now(UTC).astimezone(BEIJING)


def ago(days: int) -> str:
    """A day in Beijing, as bills are asked for."""
    return (TODAY - timedelta(days=days)).strftime("%Y-%m-%d")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sandbox"), time_scale=0.000_1) as found:
        sandbox_of(found.app).merchants.add("press")
        yield found


@pytest.fixture(scope="module")
def merchant(server: Running) -> Merchant:
    return Merchant(server.data)


def paid(server: Running, merchant: Merchant, day: str, total: int, **more: Any) -> str:
    """A payment that was made at noon of a day."""
    out_trade_no = number()
    body = merchant.native(out_trade_no, total, NOTIFY, **more)
    answer = merchant.wechatpay_request(
        "POST", "/v3/pay/transactions/native", json.dumps(body).encode()
    )
    assert answer.status_code == 200
    server.post(f"/admin/trades/{out_trade_no}/pay?notice=no")
    moved(server, "trades", "paid_at_ms", "out_trade_no", out_trade_no, f"{day} 12:00:00")
    return out_trade_no


def moved(server: Running, table: str, column: str, by: str, value: str, moment: str) -> None:
    """Let something have happened at another moment (Beijing)."""
    with sandbox_of(server.app).store.write() as tx:
        at_ms = clock.parse_plain(moment)
        tx.execute(f"UPDATE {table} SET {column} = ? WHERE {by} = ?", (at_ms, value))


def refunded(server: Running, merchant: Merchant, out_trade_no: str, fen: int, day: str) -> str:
    """A refund that was accepted at one o'clock of a day and is done."""
    refund_no = number()
    total = server.trade(out_trade_no)["amount_fen"]
    with receiving() as receiver:
        body = {
            "out_trade_no": out_trade_no,
            "out_refund_no": refund_no,
            "notify_url": receiver.url,
            "amount": {"refund": fen, "total": total, "currency": "CNY"},
        }
        answer = merchant.wechatpay_request(
            "POST", "/v3/refund/domestic/refunds", json.dumps(body).encode()
        )
        assert answer.status_code == 200, answer.text
        wait_until(lambda: bool(receiver.got), "the refund is done")
    moved(server, "refunds", "created_at_ms", "out_refund_no", refund_no, f"{day} 13:00:00")
    return refund_no


def asked(merchant: Merchant, day: str, more: str = "") -> tuple[int, Any]:
    """(status, answer) of asking for the bill of a day."""
    answer = merchant.wechatpay_request("GET", f"{BILL}?bill_date={day}{more}")
    return answer.status_code, answer.json()


def fetched(merchant: Merchant, download_url: str) -> requests.Response:
    """The signed GET of an address that was given out."""
    target = download_url.removeprefix(merchant.env["WECHATPAY_BASE_URL"])
    return merchant.wechatpay_request("GET", target)


def read(content: bytes) -> tuple[list[dict[str, str]], dict[str, str]]:
    """(rows, summary) of a bill, by the documented layout and nothing else."""
    assert content.startswith(b"\xef\xbb\xbf")
    assert content.endswith(b"\r\n")
    head, *lines, foot, totals = content.decode("utf-8-sig").removesuffix("\r\n").split("\r\n")

    def values(line: str) -> list[str]:
        parts = line.split(",")
        assert all(part.startswith("`") for part in parts), line
        return [part[1:] for part in parts]

    rows = [dict(zip(head.split(","), values(line), strict=True)) for line in lines]
    return rows, dict(zip(foot.split(","), values(totals), strict=True))


def bill(merchant: Merchant, day: str, kind: str = "ALL") -> Any:
    """(rows, summary) of a day, its hash checked."""
    status, told = asked(merchant, day, f"&bill_type={kind}")
    assert status == 200, told
    content = fetched(merchant, told["download_url"]).content
    assert told["hash_type"] == "SHA1"
    assert hashlib.sha1(content).hexdigest() == told["hash_value"]  # noqa: S324
    return read(content)


def test_a_bill_lists_what_was_paid_and_what_was_given_back(
    server: Running, merchant: Merchant
) -> None:
    day = ago(29)
    first = paid(server, merchant, day, 8_888, attach="附加")
    second = paid(server, merchant, day, 1)
    refund_no = refunded(server, merchant, first, 888, day)
    rows, summary = bill(merchant, day)
    assert [row["交易状态"] for row in rows] == ["SUCCESS", "SUCCESS", "REFUND"]
    assert [row["商户订单号"] for row in rows] == [first, second, first]
    one, _, back = rows
    assert one["交易时间"] == f"{day} 12:00:00"
    assert one["公众账号ID"] == merchant.env["WECHATPAY_APPID"]
    assert one["商户号"] == merchant.env["WECHATPAY_MCHID"]
    assert one["微信订单号"] == server.trade(first)["transaction_id"]
    assert (one["交易类型"], one["货币种类"]) == ("NATIVE", "CNY")
    assert (one["订单金额"], one["应结订单金额"], one["退款金额"]) == ("88.88", "88.88", "0.00")
    assert (one["商户数据包"], one["商户退款单号"]) == ("附加", "0")
    assert (one["手续费"], one["费率"]) == ("0.53328", "0.60%")
    assert back["交易时间"] == f"{day} 13:00:00"
    assert back["商户退款单号"] == refund_no
    assert (back["订单金额"], back["退款金额"], back["申请退款金额"]) == ("0.00", "8.88", "8.88")
    assert (back["退款类型"], back["退款状态"]) == ("ORIGINAL", "SUCCESS")
    assert back["手续费"] == "-0.05328"
    assert summary == {
        "总交易单数": "3",
        "应结订单总金额": "88.89",
        "退款总金额": "8.88",
        "充值券退款总金额": "0.00",
        "手续费总金额": "0.48006",
        "订单总金额": "88.89",
        "申请退款总金额": "8.88",
    }


def test_each_type_of_bill_has_its_own_rows_and_columns(
    server: Running, merchant: Merchant
) -> None:
    day, next_day = ago(28), ago(27)
    out_trade_no = paid(server, merchant, day, 100)
    refunded(server, merchant, out_trade_no, 100, next_day)
    rows, summary = bill(merchant, day, "SUCCESS")
    assert [row["订单金额"] for row in rows] == ["1.00"]
    assert not {"退款金额", "申请退款金额"} & set(rows[0])
    assert list(summary) == ["总交易单数", "应结订单总金额", "手续费总金额", "订单总金额"]
    # A refund stands in the bill of the day it was accepted, whenever that payment was.
    rows, _ = bill(merchant, next_day, "REFUND")
    assert [row["退款申请时间"] for row in rows] == [f"{next_day} 13:00:00"]
    assert rows[0]["退款成功时间"]
    for empty_day, kind in ((day, "REFUND"), (next_day, "SUCCESS")):
        status, told = asked(merchant, empty_day, f"&bill_type={kind}")
        assert (status, told["code"]) == (400, "NO_STATEMENT_EXIST")


def test_a_day_ends_at_midnight_in_beijing(server: Running, merchant: Merchant) -> None:
    last, first = (paid(server, merchant, ago(25), total) for total in (5, 6))
    moved(server, "trades", "paid_at_ms", "out_trade_no", last, f"{ago(26)} 23:59:59")
    moved(server, "trades", "paid_at_ms", "out_trade_no", first, f"{ago(25)} 00:00:00")
    for day, total in ((ago(26), "0.05"), (ago(25), "0.06")):
        rows, _ = bill(merchant, day)
        assert [row["订单金额"] for row in rows] == [total]


def test_a_bill_holds_one_merchants_trades_alone(server: Running, merchant: Merchant) -> None:
    day = ago(24)
    press = Merchant(server.data, "merchants/press.env")
    paid(server, merchant, day, 10)
    paid(server, press, day, 20)
    for one, total in ((merchant, "0.10"), (press, "0.20")):
        rows, _ = bill(one, day)
        assert [row["订单金额"] for row in rows] == [total]
    _, told = asked(merchant, day)
    refused = fetched(press, told["download_url"])
    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("subject", ["a,b", "`=1+1`", 'a"b', "a\nb\r\nc", "，，", "🙂" * 60])
def test_free_text_never_breaks_the_layout(
    server: Running, merchant: Merchant, subject: str
) -> None:
    day = ago(23)
    out_trade_no = paid(server, merchant, day, 7, description=subject)
    rows, _ = bill(merchant, day)
    assert out_trade_no in {row["商户订单号"] for row in rows}


def test_a_packed_bill_is_gzip_of_what_was_hashed(server: Running, merchant: Merchant) -> None:
    day = ago(22)
    out_trade_no = paid(server, merchant, day, 9)
    client = merchant.wechatpay()
    status, text = client.trade_bill(bill_date=day, tar_type="GZIP")
    assert status == 200, text
    told = json.loads(text)
    status, packed = client.download_bill(told["download_url"])
    assert status == 200
    content = gzip.decompress(packed)
    assert hashlib.sha1(content).hexdigest() == told["hash_value"]  # noqa: S324
    assert read(content)[0][0]["商户订单号"] == out_trade_no


def test_what_is_downloaded_is_what_was_hashed_whatever_happens_meanwhile(
    server: Running, merchant: Merchant
) -> None:
    day = ago(1)
    paid(server, merchant, day, 11)
    _, told = asked(merchant, day)
    paid(server, merchant, day, 12)
    for _ in range(2):
        file = fetched(merchant, told["download_url"])
        assert hashlib.sha1(file.content).hexdigest() == told["hash_value"]  # noqa: S324
        # Bills are believed by their hash: the file itself is not signed.
        assert not [name for name in file.headers if name.lower().startswith("wechatpay-")]


def test_the_bill_of_a_day_can_be_had_on_that_day(server: Running, merchant: Merchant) -> None:
    out_trade_no = number()
    body = json.dumps(merchant.native(out_trade_no, 14, NOTIFY)).encode()
    merchant.wechatpay_request("POST", "/v3/pay/transactions/native", body)
    server.post(f"/admin/trades/{out_trade_no}/pay?notice=no")
    day = server.trade(out_trade_no)["charges"][0]["at"][:10]
    assert out_trade_no in {row["商户订单号"] for row in bill(merchant, day)[0]}


def test_the_address_asks_for_a_signature_and_dies(server: Running, merchant: Merchant) -> None:
    day = ago(21)
    paid(server, merchant, day, 13)
    _, told = asked(merchant, day)
    assert requests.get(told["download_url"], timeout=20).status_code == 401
    with sandbox_of(server.app).store.write() as tx:
        (life_ms,) = tx.execute("SELECT max(expires_at_ms) - ? FROM bill_links", (clock.now_ms(),))
        assert 0 < life_ms[0] <= 300_000
        tx.execute("UPDATE bill_links SET expires_at_ms = 0")
    assert fetched(merchant, told["download_url"]).status_code == 400


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("bill_date=20260301", "PARAM_ERROR"),
        ("bill_date=2026-02-30", "PARAM_ERROR"),
        ("bill_date=2026-03-01%20", "PARAM_ERROR"),
        ("bill_type=ALL", "PARAM_ERROR"),
        ("bill_date=2026-03-01&bill_type=all", "PARAM_ERROR"),
        ("bill_date=2026-03-01&tar_type=ZIP", "PARAM_ERROR"),
        ("bill_date=2999-01-01", "INVALID_REQUEST"),
        ("bill_date=2019-01-01", "NO_STATEMENT_EXIST"),
    ],
)
def test_a_bill_that_cannot_be_is_refused_with_the_reason(
    merchant: Merchant, target: str, code: str
) -> None:
    refused = merchant.wechatpay_request("GET", f"{BILL}?{target}")
    assert (refused.status_code, refused.json()["code"]) == (400, code)


def test_where_bills_are_not_at_once_they_are_ready_at_ten_on_the_next_day() -> None:
    start = datetime(2026, 3, 1, tzinfo=BEIJING)
    start_ms = round(start.timestamp() * 1_000)

    def told(hours: float) -> str:
        now = round((start + timedelta(hours=hours)).timestamp() * 1_000)
        try:
            check_ready(start_ms, now, at_once=False)
        except ApiError as error:
            return error.code
        return ""

    by_hour = {hours: told(hours) for hours in (-1, 0, 23.9, 24, 33.9, 34, 1_000)}
    assert by_hour == {
        -1: "INVALID_REQUEST",
        0: "INVALID_REQUEST",
        23.9: "INVALID_REQUEST",
        24: "STATEMENT_CREATING",
        33.9: "STATEMENT_CREATING",
        34: "",
        1_000: "",
    }
