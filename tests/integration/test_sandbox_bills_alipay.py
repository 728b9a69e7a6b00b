"""Alipay's bill in the sandbox: what was paid and given back, in the form that merchants know."""

import csv
import io
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from sandbox import alipay_bill, clock, sandbox_of
from tests.integration.sandbox_kit import BEIJING, Merchant, Running, number, running

BILL = "alipay.data.dataservice.bill.downloadurl.query"
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("sandbox")
    with running(folder, time_scale=0.001, alipay_refund_interval_s=0) as found:
        yield found


@pytest.fixture
def server(sandbox: Running) -> Running:
    """With nothing in the bills of these days."""
    with sandbox_of(sandbox.app).store.write() as tx:
        tx.execute("UPDATE charges SET at_ms = 0")
        tx.execute("UPDATE refunds SET settled_at_ms = 0")
    return sandbox


def today(days: int = 0) -> str:
    """The date in Beijing, some days from now."""
    return (datetime.now(UTC).astimezone(BEIJING) + timedelta(days=days)).strftime("%Y-%m-%d")


def ask(server: Running, bill_date: str, bill_type: str = "trade") -> Any:
    """The answer to the question for a bill's address."""
    client = Merchant(server.data).alipay()
    return client.server_api(BILL, {"bill_type": bill_type, "bill_date": bill_date})


def paid(server: Running, subject: str, amount: str) -> str:
    """A payment."""
    client, out_trade_no = Merchant(server.data).alipay(), number()
    assert client.api_alipay_trade_precreate(subject, out_trade_no, amount)["code"] == "10000"
    server.post(f"/admin/trades/{out_trade_no}/pay")
    return out_trade_no


def given_back(server: Running, out_trade_no: str, amount: str) -> str:
    """A refund's number."""
    request_no = f"r_{secrets.token_hex(4)}"
    client = Merchant(server.data).alipay()
    answer = client.api_alipay_trade_refund(amount, out_trade_no, out_request_no=request_no)
    assert answer["fund_change"] == "Y"
    return request_no


def tables(server: Running, bill_date: str) -> dict[str, str]:
    """The bill's tables by the end of their names, decoded."""
    answer = requests.get(ask(server, bill_date)["bill_download_url"], timeout=20)
    answer.raise_for_status()
    return unpacked(answer.content)


def unpacked(content: bytes) -> dict[str, str]:
    """The tables of a ZIP by the end of their names, decoded."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        found = {}
        for entry in archive.infolist():
            # Names without the flag for UTF-8 are read as code page 437: back to their bytes.
            assert entry.flag_bits & 0x800 == 0
            name = entry.filename.encode("cp437").decode("gbk")
            found[name.split("_", 2)[2]] = archive.read(entry).decode("gbk")
    return found


def details(table: str) -> list[dict[str, str]]:
    """The rows by the columns' names, with the tabs that stand behind numbers."""
    lines = [line for line in table.splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def test_the_detail_has_each_payment_and_each_refund_and_the_summary_their_sums(
    server: Running,
) -> None:
    first, second = paid(server, "奶茶, 大杯", "88.88"), paid(server, "套餐", "0.12")
    request_no = given_back(server, first, "8.88")
    found = tables(server, today())
    assert sorted(found) == ["业务明细(汇总).csv", "业务明细.csv"]

    rows = details(found["业务明细.csv"])
    told = [(r["商户订单号"], r["业务类型"], r["订单金额（元）"], r["商品名称"]) for r in rows]
    assert told == [
        (f"{first}\t", "交易\t", "88.88", "奶茶, 大杯"),
        (f"{second}\t", "交易\t", "0.12", "套餐"),
        (f"{first}\t", "退款\t", "-8.88", "奶茶, 大杯"),
    ]
    assert [r["退款批次号/请求号"] for r in rows] == ["\t", "\t", f"{request_no}\t"]
    trade = server.trade(first)
    assert rows[0]["支付宝交易号"] == rows[2]["支付宝交易号"] == f"{trade['transaction_id']}\t"
    assert "#交易合计：2笔，商家实收共89.00元" in found["业务明细.csv"]
    assert "#退款合计：1笔，商家实收退款共-8.88元" in found["业务明细.csv"]

    (total,) = [r for r in details(found["业务明细(汇总).csv"]) if r["门店编号"] == "合计"]
    assert (total["交易订单总笔数"], total["退款订单总笔数"]) == ("2", "1")
    assert Decimal(total["实收净额（元）"]) == sum(Decimal(r["商家实收（元）"]) for r in rows)


numbers = st.text("abcXYZ_0189", min_size=1, max_size=64)
written_rows = st.builds(
    alipay_bill.Row,
    trade_no=st.text("0123456789", min_size=28, max_size=28),
    out_trade_no=numbers,
    subject=st.text(max_size=40),
    created_at_ms=st.integers(0, 2**41),
    at_ms=st.integers(0, 2**41),
    amount_fen=st.integers(1, 10**10),
    out_request_no=st.just(""),
)


@given(st.lists(st.tuples(written_rows, st.none() | numbers), max_size=5))
def test_any_payments_and_refunds_can_be_read_back(
    sandbox: Running, made: list[tuple[alipay_bill.Row, str | None]]
) -> None:
    found = [
        row if refund is None else replace(row, amount_fen=-row.amount_fen, out_request_no=refund)
        for row, refund in made
    ]
    wanted = alipay_bill.period("2016-10-24")
    assert wanted is not None
    identity = sandbox_of(sandbox.app).merchants.of("default").identity
    content = alipay_bill.archive(identity, wanted, found, clock.now_ms())
    rows = details(unpacked(content)["业务明细.csv"])
    assert [
        (r["支付宝交易号"], r["商户订单号"], int(Decimal(r["商家实收（元）"]) * 100)) for r in rows
    ] == [(f"{one.trade_no}\t", f"{one.out_trade_no}\t", one.amount_fen) for one in found]
    assert [r["退款批次号/请求号"].strip() for r in rows] == [one.out_request_no for one in found]


dates = st.dates().map(str)


@given(st.text(max_size=15) | dates | dates.map(lambda day: day[:7]))
def test_any_date_is_a_day_a_month_or_none(text: str) -> None:
    wanted = alipay_bill.period(text)
    if wanted is not None:
        assert wanted.label == text.replace("-", "") >= "2016"
        start_ms, end_ms = wanted.bounds_ms
        days = (end_ms - start_ms) / DAY_MS
        assert days == 1 if len(text) == 10 else days in {28, 29, 30, 31}


def test_a_month_has_its_days_and_a_sign_that_gbk_lacks_is_a_question_mark(
    server: Running,
) -> None:
    paid(server, "茶🍵", "1.00")
    (row,) = details(tables(server, today()[:7])["业务明细.csv"])
    assert row["商品名称"] == "茶?"


def test_a_day_without_payments_has_no_bill(server: Running) -> None:
    paid(server, "套餐", "1.00")
    for other in (today(-1), "2016-01-01"):
        assert ask(server, other)["sub_code"] == "isp.bill_not_exist"


@pytest.mark.parametrize(
    ("bill_type", "bill_date"),
    [
        ("signcustomer", today()),
        ("trade", today(1)),
        ("trade", "20161024"),
        ("trade", "2015-12-31"),
        ("trade", "2016-13"),
        ("trade", "2016-02-30"),
    ],
)
def test_another_bill_is_refused(server: Running, bill_type: str, bill_date: str) -> None:
    refused = ask(server, bill_date, bill_type)
    assert (refused["code"], refused["sub_code"]) == ("40004", "isv.invalid_arguments")


def test_an_address_is_good_for_half_a_minute(server: Running) -> None:
    paid(server, "套餐", "1.00")
    address = ask(server, today())["bill_download_url"]
    with sandbox_of(server.app).store.write() as tx:
        tx.execute("UPDATE bill_links SET expires_at_ms = expires_at_ms - 30000")
    late = requests.get(address, timeout=20)
    assert late.headers["Content-Type"].startswith("text/html")
    assert "下载超时" in late.text
    stranger = requests.get(address.replace("token=", "token=x"), timeout=20)
    assert not stranger.content.startswith(b"PK")


def test_without_bills_at_once_a_day_is_told_after_its_end(
    sandbox: Running, tmp_path: Path
) -> None:
    for folder in ("gateway", "merchant"):  # the same keys: to make others takes seconds
        shutil.copytree(sandbox.data / folder, tmp_path / folder)
    with running(tmp_path, time_scale=0.001, bills_at_once=False) as server:
        out_trade_no = paid(server, "套餐", "1.00")
        assert ask(server, today())["sub_code"] == "isv.invalid_arguments"
        with sandbox_of(server.app).store.write() as tx:
            tx.execute("UPDATE charges SET at_ms = at_ms - ?", (2 * DAY_MS,))
        (row,) = details(tables(server, today(-2))["业务明细.csv"])
        assert row["商户订单号"] == f"{out_trade_no}\t"
