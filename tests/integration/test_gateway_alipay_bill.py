"""Alipay's bill: what is written, what is refused, and that no file can make it large."""

import io
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from shop.gateways import alipay_bill
from shop.gateways.alipay import Alipay
from shop.gateways.alipay_bill import BadBill, address_of, detail_of
from shop.gateways.base import BillResult, Outcome
from tests.integration.gateway_server import (
    GatewayServer,
    Reply,
    Seen,
    alipay_reply,
    gateway_server,
)
from tests.integration.keys import alipay_keys

KEYS = alipay_keys()
DAY = date(2026, 1, 1)
NEXT_MORNING = datetime(2026, 1, 2, 2, tzinfo=UTC)  # ten o'clock in China
DETAIL = (
    "#支付宝业务明细查询\n#账号：[20881021462251350156]\n#起始日期：[2026年01月01日 00:00:00]\n"
    "支付宝交易号,商户订单号,业务类型,商品名称,订单金额（元）\n"
    "2026010122001\t,PO20260101000001\t,交易\t,保温杯 €㐀,88.88\n"
    "2026010122001\t,PO20260101000001\t,退款\t,保温杯,-1.00\n"
    "#业务明细列表结束\n"
)
SUMMARY = "#支付宝业务汇总查询\n门店编号,门店名称,交易订单总笔数,退款订单总笔数\n\t,\t,1,1\n"


class ClockAt:
    """A clock that stands still."""

    def __init__(self, moment: datetime) -> None:
        self._moment = moment

    def now(self) -> datetime:
        return self._moment


@pytest.fixture(scope="module")
def running() -> Iterator[GatewayServer]:
    with gateway_server() as server:
        yield server


@pytest.fixture
def server(running: GatewayServer) -> GatewayServer:
    running.reset()
    return running


def zipped(files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def bill(detail: str = DETAIL) -> bytes:
    return zipped(
        {"a_业务明细.csv": detail.encode("gb18030"), "a_汇总.csv": SUMMARY.encode("gb18030")}
    )


def serving(server: GatewayServer, file: Reply, address: str = "") -> Callable[[Seen], Reply]:
    """Names an address for every bill, and gives `file` there."""

    def script(seen: Seen) -> Reply:
        if seen.method == "GET":
            return file
        fields = {"code": "10000", "bill_download_url": address or f"{server.url}/bill?token=1"}
        return alipay_reply(KEYS, alipay_bill.METHOD, fields)

    return script


def download(server: GatewayServer, *, now: datetime = NEXT_MORNING) -> tuple[BillResult, bytes]:
    gateway = Alipay(
        KEYS.settings(f"{server.url}/gateway.do"),
        connect_timeout_ms=5_000,
        read_timeout_ms=30_000,
        clock=ClockAt(now),
    )
    into = io.BytesIO()
    return gateway.download_bill(DAY, into), into.getvalue()


def refusing(server: GatewayServer, **fields: str) -> None:
    server.script = lambda _: alipay_reply(KEYS, alipay_bill.METHOD, fields)


def test_the_detail_is_written_in_utf8_whatever_the_files_are_called(server: GatewayServer) -> None:
    server.script = serving(server, Reply(body=bill()))
    result, written = download(server)
    assert (result.outcome, written.decode()) == (Outcome.SUCCEEDED, DETAIL)
    asked = dict(parse_qsl(server.requests[0].body.decode()))
    assert asked["method"] == "alipay.data.dataservice.bill.downloadurl.query"
    assert asked["biz_content"] == '{"bill_type":"trade","bill_date":"2026-01-01"}'
    assert (server.requests[1].method, server.requests[1].target) == ("GET", "/bill?token=1")
    assert server.requests[1].body == b""


@pytest.mark.parametrize(
    ("code", "sub_code", "now", "expected"),
    [
        ("40004", "isp.bill_not_exist", datetime(2026, 1, 1, 12, tzinfo=UTC), Outcome.PENDING),
        ("40004", "isv.invalid_arguments", datetime(2026, 1, 1, 12, tzinfo=UTC), Outcome.PENDING),
        ("40004", "isp.bill_not_exist", NEXT_MORNING, Outcome.PENDING),
        ("40004", "BILL_NOT_EXIST", datetime(2026, 1, 2, 15, 59, tzinfo=UTC), Outcome.PENDING),
        ("40004", "BILL_NOT_EXIST", datetime(2026, 1, 2, 16, tzinfo=UTC), Outcome.FAILED),
        ("40004", "isp.bill_not_exist", datetime(2026, 2, 1, tzinfo=UTC), Outcome.FAILED),
        ("40004", "isv.invalid_arguments", NEXT_MORNING, Outcome.UNKNOWN),
        ("40004", "UNKNOW_ERROR", datetime(2026, 2, 1, tzinfo=UTC), Outcome.UNKNOWN),
        ("20000", "isp.bill_not_exist", datetime(2026, 2, 1, tzinfo=UTC), Outcome.UNKNOWN),
    ],
)
def test_a_missing_bill_is_pending_while_it_may_yet_be_made(
    server: GatewayServer, code: str, sub_code: str, now: datetime, expected: Outcome
) -> None:
    refusing(server, code=code, msg="Business Failed", sub_code=sub_code)
    result, written = download(server, now=now)
    assert (result.outcome, written) == (expected, b"")
    assert result.fault is not None
    assert result.fault.code == sub_code


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (Reply(status=404), "bad_answer"),
        (Reply(status=302, headers={"Location": "/elsewhere"}), "bad_answer"),
        (Reply(status=503), "server_error"),
        (Reply(body=b"<html>expired</html>"), "bad_answer"),
        (Reply(body=b""), "bad_answer"),
        (Reply(body=bill()[:-200]), "bad_answer"),
        (Reply(body=zipped({"a.csv": SUMMARY.encode("gb18030")})), "bad_answer"),
        (
            Reply(body=zipped({f"{n}.csv": DETAIL.encode("gb18030") for n in range(2)})),
            "bad_answer",
        ),
        (Reply(body=zipped({"a.csv": DETAIL.encode("gb18030") + b"\xff\xff"})), "bad_answer"),
        (Reply(body=zipped({f"{n}.csv": b"" for n in range(33)})), "bad_answer"),
        (
            Reply(body=zipped({"a.csv": DETAIL.encode("gb18030")}, method=zipfile.ZIP_LZMA)),
            "bad_answer",
        ),
    ],
)
def test_what_is_no_bill_is_unknown(server: GatewayServer, file: Reply, code: str) -> None:
    server.script = serving(server, file)
    result, _ = download(server)
    assert result.fault is not None
    assert (result.outcome, result.fault.code) == (Outcome.UNKNOWN, code)


@pytest.mark.parametrize(
    "address",
    [
        "ftp://127.0.0.1/bill",
        "file:///etc/passwd",
        "/bill",
        "https://user@127.0.0.1/bill",
        "https://[",
        "https://例子/bill",
        "https://127.0.0.1/" + "a" * 2048,
    ],
)
def test_an_address_that_leads_elsewhere_is_not_followed(
    server: GatewayServer, address: str
) -> None:
    server.script = serving(server, Reply(body=bill()), address)
    result, written = download(server)
    assert (result.outcome, written) == (Outcome.UNKNOWN, b"")
    assert len(server.requests) == 1


def test_a_plain_address_of_another_host_is_asked_for_by_tls(server: GatewayServer) -> None:
    with gateway_server() as other:
        server.script = serving(server, Reply(), f"{other.url}/bill")
        result, _ = download(server)
        assert result.fault is not None
        assert (result.outcome, result.fault.code) == (Outcome.UNKNOWN, "unreachable")
        assert other.requests == []


@pytest.mark.parametrize(
    "host", ["openapi.alipay.com", "openapi.alipay.com:80", "dwbill.alipay.com"]
)
def test_no_bill_of_a_gateway_with_tls_comes_without(host: str) -> None:
    found = address_of(f"http://{host}/bill?sign=a", "https://openapi.alipay.com/gateway.do")
    assert found == f"https://{host}/bill?sign=a"


def test_a_bill_that_claims_a_small_size_and_unpacks_to_a_large_one_is_refused() -> None:
    lines = DETAIL.encode("gb18030") + b"0" * (3 * alipay_bill.FREE_BYTES)
    packed = zipped({"a.csv": lines})
    assert len(packed) * alipay_bill.MAX_RATIO < len(lines)
    written = io.BytesIO()
    with pytest.raises(BadBill, match="larger"):
        written.writelines(detail_of(io.BytesIO(packed)))
    assert written.tell() <= 2 * alipay_bill.FREE_BYTES


def test_a_list_of_files_too_long_is_not_even_read() -> None:
    packed = zipped({f"{n:099d}.csv": b"" for n in range(10_000)})
    with pytest.raises(BadBill, match="list of files is too long"):
        list(detail_of(io.BytesIO(packed)))


@examples(deadline=None)
@given(st.binary() | st.binary().map(lambda raw: b"PK\x03\x04" + raw + b"PK\x05\x06" + raw))
def test_any_bytes_are_refused_in_good_order(raw: bytes) -> None:
    with pytest.raises(BadBill):
        list(detail_of(io.BytesIO(raw)))


@examples(deadline=None, max_examples=300)
@given(st.data())
def test_a_bill_with_any_bytes_replaced_is_the_true_one_or_refused(data: st.DataObject) -> None:
    raw = bytearray(bill())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    try:
        written = b"".join(detail_of(io.BytesIO(bytes(raw))))
    except BadBill:
        return
    assert written.decode() == DETAIL


@examples(deadline=None)
@given(st.text(alphabet=st.characters(codec="gb18030", exclude_characters="\r\n")))
def test_any_goods_name_comes_through(subject: str) -> None:
    detail = DETAIL.replace("保温杯", subject)
    assert b"".join(detail_of(io.BytesIO(bill(detail)))).decode() == detail
