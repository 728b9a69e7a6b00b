"""Faults on order: what the client sees, and what has happened at the gateway."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.integration.sandbox_kit import Merchant, Running, beijing, number, running
from tests.processes import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sandbox"), time_scale=0.001) as found:
        yield found


@pytest.fixture(scope="module")
def merchant(server: Running) -> Merchant:
    return Merchant(server.data)


@pytest.fixture(autouse=True)
def no_fault_left(server: Running) -> Iterator[None]:
    yield
    assert server.get("/admin/faults") == {"faults": []}


def prepay(merchant: Merchant, channel: str, out_trade_no: str) -> Any:
    """Open 8.88 yuan."""
    if channel == "wechatpay":
        return merchant.wechatpay().pay("测试商品", out_trade_no, {"total": 888})
    return merchant.alipay().api_alipay_trade_precreate("测试商品", out_trade_no, "8.88")


def exists(server: Running, out_trade_no: str) -> bool:
    """Whether the gateway has a record of the number."""
    answer = requests.get(f"{server.url}/admin/trades/{out_trade_no}", timeout=20)
    return answer.status_code == 200


both_channels = pytest.mark.parametrize("channel", ["wechatpay", "alipay"])


@both_channels
@pytest.mark.parametrize(
    ("kind", "effect"),
    [("drop_after_effect", True), ("drop_before_effect", False), ("hang", False)],
)
def test_a_lost_answer_looks_alike_whether_the_effect_happened_or_not(
    server: Running, merchant: Merchant, channel: str, kind: str, *, effect: bool
) -> None:
    out_trade_no = number()
    server.fault(channel, "prepay", kind, delay_ms=50 if kind == "hang" else 0)
    # requests raises ConnectionError, urllib RemoteDisconnected: both are OSError.
    with pytest.raises(OSError, match=r"(?i)remote end closed|connection"):
        prepay(merchant, channel, out_trade_no)
    assert exists(server, out_trade_no) is effect
    prepay(merchant, channel, out_trade_no)
    assert exists(server, out_trade_no)


def test_an_http_500_of_wechat_pay_is_a_system_error_without_effect(
    server: Running, merchant: Merchant
) -> None:
    out_trade_no = number()
    server.fault("wechatpay", "prepay", "http500", times=2)
    for _ in range(2):
        status, text = prepay(merchant, "wechatpay", out_trade_no)
        assert (status, json.loads(text)["code"]) == (500, "SYSTEM_ERROR")
    assert not exists(server, out_trade_no)
    assert prepay(merchant, "wechatpay", out_trade_no)[0] == 200


def test_an_http_500_of_alipay_raises_in_the_library_and_has_no_effect(
    server: Running, merchant: Merchant
) -> None:
    out_trade_no = number()
    server.fault("alipay", "prepay", "http500")
    with pytest.raises(OSError, match="500"):
        prepay(merchant, "alipay", out_trade_no)
    assert not exists(server, out_trade_no)


@both_channels
def test_a_slow_answer_comes_in_the_end_and_is_right(
    server: Running, merchant: Merchant, channel: str
) -> None:
    out_trade_no = number()
    server.fault(channel, "prepay", "slow", delay_ms=100)
    answer = prepay(merchant, channel, out_trade_no)
    assert answer[0] == 200 if channel == "wechatpay" else answer["code"] == "10000"


def test_a_client_that_gives_up_on_a_hanging_call_does_not_hold_the_server(
    server: Running, merchant: Merchant
) -> None:
    server.fault("wechatpay", "query", "hang", delay_ms=120_000)
    client = merchant.wechatpay()
    client._core._timeout = (5, 0.3)
    # Other servers of this process may still talk to somebody.
    before = set(threading.enumerate())
    with pytest.raises(requests.ReadTimeout):
        client.query(out_trade_no=number())
    wait_until(lambda: set(threading.enumerate()) <= before, "the handler's thread ends")


def test_each_operation_has_faults_of_its_own(server: Running, merchant: Merchant) -> None:
    client, out_trade_no = merchant.wechatpay(), number()
    for op in ("close", "refund", "refund_query", "query"):
        server.fault("wechatpay", op, "http500")
    assert prepay(merchant, "wechatpay", out_trade_no)[0] == 200
    amount = {"refund": 1, "total": 888, "currency": "CNY"}
    calls: list[Callable[[], Any]] = [
        lambda: client.query(out_trade_no=out_trade_no),
        lambda: client.refund("R1", amount, out_trade_no=out_trade_no),
        lambda: client.query_refund("R1"),
        lambda: client.close(out_trade_no),
    ]
    assert [call()[0] for call in calls] == [500, 500, 500, 500]
    assert [call()[0] for call in calls] == [200, 404, 404, 204]


@pytest.mark.parametrize(
    "order",
    [
        None,
        [],
        {},
        {"channel": "wechatpay", "op": "prepay", "kind": "explode"},
        {"channel": "paypal", "op": "prepay", "kind": "hang"},
        {"channel": "wechatpay", "op": "all", "kind": "hang"},
        {"channel": "wechatpay", "op": "prepay", "kind": "hang", "times": 0},
        {"channel": "wechatpay", "op": "prepay", "kind": "hang", "times": 1_000_001},
        {"channel": "wechatpay", "op": "prepay", "kind": "hang", "delay_ms": 120_001},
        {"channel": "wechatpay", "op": ["prepay"], "kind": "hang"},
        {"channel": "wechatpay", "op": "cancel", "kind": "http500"},
        {"channel": "wechatpay", "op": "prepay", "kind": "duplicate"},
        {"channel": "wechatpay", "op": "notice", "kind": "http500"},
        {"channel": "alipay", "op": "prepay", "kind": "clock_off"},
        {"channel": "wechatpay", "op": "prepay", "kind": "hang", "merchant": "nobody"},
        {"channel": "wechatpay", "op": "prepay", "kind": "hang", "probability": 0},
        {"channel": "wechatpay", "op": "prepay", "kind": "hang", "often": 3},
    ],
)
def test_an_order_that_makes_no_sense_is_refused(server: Running, order: object) -> None:
    refused = requests.post(f"{server.url}/admin/faults", json=order, timeout=20)
    assert refused.status_code == 400
    assert refused.json()["error"]


def test_orders_are_bounded_and_can_be_cleared(server: Running) -> None:
    order = {"channel": "alipay", "op": "query", "kind": "http500"}
    for _ in range(100):
        server.post("/admin/faults", order)
    refused = requests.post(f"{server.url}/admin/faults", json=order, timeout=20)
    assert refused.status_code == 400
    cleared = requests.delete(f"{server.url}/admin/faults", timeout=20)
    assert cleared.json() == {"faults": []}


def test_a_downloaded_file_has_no_signature_to_spoil(server: Running, merchant: Merchant) -> None:
    out_trade_no = number()
    prepay(merchant, "wechatpay", out_trade_no)
    server.post(f"/admin/trades/{out_trade_no}/pay")
    server.fault("wechatpay", "bill", "wrong_signature", times=2)
    asked = f"/v3/bill/tradebill?bill_date={beijing()[:10]}"
    found = merchant.wechatpay_request("GET", asked).json()["download_url"]
    file = merchant.wechatpay_request("GET", found.removeprefix(server.url))
    assert (file.status_code, out_trade_no in file.text) == (200, True)


def test_many_members_paying_one_trade_at_once_pay_it_once(
    server: Running, merchant: Merchant
) -> None:
    out_trade_no = number()
    prepay(merchant, "wechatpay", out_trade_no)
    statuses: list[int] = []
    start = threading.Barrier(16)

    def pay() -> None:
        start.wait()
        url = f"{server.url}/admin/trades/{out_trade_no}/pay"
        statuses.append(requests.post(url, timeout=60).status_code)

    threads = [threading.Thread(target=pay) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [409] * 15
    charges = server.get("/admin/charges")["charges"]
    assert [c["amount_fen"] for c in charges if c["out_trade_no"] == out_trade_no] == [888]
