"""Paying on Alipay's own page: the address that the member's browser is sent to."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from config.settings import AlipaySettings
from shop.clock import SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.alipay_chain import cert_sn
from shop.gateways.base import Outcome, PrepayRequest, Product
from shop.gateways.guard import RESTING
from shop.gateways.guards import Guards
from tests.integration.alipay_certificates import certified
from tests.integration.gateway_server import GatewayServer, gateway_server
from tests.integration.keys import alipay_keys
from tests.integration.third_party import alipay_request_is_valid, third_party

__all__ = ["third_party"]

KEYS = alipay_keys()
NUMBER = "PO20260101000001"
BACK = "https://shop.example/orders/1?paid=maybe"
METHODS = {
    Product.PAGE: ("alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
    Product.WAP: ("alipay.trade.wap.pay", "QUICK_WAP_WAY"),
}
PAGES = list(METHODS)
MODES = ["public key", "certificates"]


class ClockAt:
    """A clock that is set by hand."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment


@pytest.fixture(scope="module")
def server() -> Iterator[GatewayServer]:
    with gateway_server() as server:
        yield server


def settings(mode: str = MODES[0], **changes: Any) -> AlipaySettings:
    made = KEYS.settings() if mode == MODES[0] else certified().settings()
    return replace(made, **{"products": ("precreate", "page", "wap"), **changes})


def connected(made: AlipaySettings, clock: ClockAt | None = None) -> Alipay:
    return Alipay(
        made, connect_timeout_ms=1_000, read_timeout_ms=1_000, clock=clock or SystemClock()
    )


SHARED = connected(settings())


def request_for(product: Product, **changes: Any) -> PrepayRequest:
    made = PrepayRequest(
        out_trade_no=NUMBER,
        amount_fen=8_888,
        subject="保温杯 & 茶叶 {100%}",
        expires_at=datetime(2030, 1, 1, 12, 30, tzinfo=UTC),
        notify_url="https://shop.example/webhooks/alipay",
        product=product,
        return_url=BACK,
    )
    return replace(made, **changes)


def address_of(gateway: Alipay, request: PrepayRequest, *, return_url: str = "") -> str:
    result = gateway.prepay(request)
    assert (result.outcome, result.sent) == (Outcome.SUCCEEDED, True)
    assert result.ticket is not None
    handed = gateway.hand_over(request.product, result.ticket, return_url=return_url)
    assert handed.qr_text is None
    assert handed.url is not None
    return handed.url


def params_of(address: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(address).query, strict_parsing=True))


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("product", PAGES)
def test_the_official_sdk_finds_the_address_well_signed(product: Product, mode: str) -> None:
    gateway = connected(settings(mode))
    address = address_of(gateway, request_for(product))
    params = params_of(address)
    assert alipay_request_is_valid(KEYS, params)
    assert not alipay_request_is_valid(KEYS, {**params, "return_url": "https://evil.example/"})
    assert address.startswith("http://127.0.0.1:9/gateway.do?")
    assert params.get("app_cert_sn") == (cert_sn(certified().app) if mode == MODES[1] else None)


@pytest.mark.parametrize("product", PAGES)
def test_the_address_says_what_the_gateway_needs(product: Product) -> None:
    params = params_of(address_of(connected(settings()), request_for(product)))
    method, product_code = METHODS[product]
    assert (params["method"], params["app_id"]) == (method, KEYS.app_id)
    assert params["notify_url"] == "https://shop.example/webhooks/alipay"
    assert params["return_url"] == BACK
    content = json.loads(params["biz_content"])
    assert content.pop("quit_url", None) == (BACK if product is Product.WAP else None)
    assert content == {
        "out_trade_no": NUMBER,
        "total_amount": "88.88",
        "subject": "保温杯 ＆ 茶叶 ｛100%｝",
        "product_code": product_code,
        "time_expire": "2030-01-01 20:30:00",
    }


@pytest.mark.parametrize("product", PAGES)
def test_the_address_is_signed_afresh_each_time_it_is_handed_over(product: Product) -> None:
    clock = ClockAt(datetime(2029, 1, 1, tzinfo=UTC))
    gateway = connected(settings(), clock)
    ticket = gateway.prepay(request_for(product)).ticket
    assert ticket is not None
    stamps = []
    for _ in range(2):
        address = gateway.hand_over(product, ticket).url
        assert address is not None
        stamps.append(params_of(address)["timestamp"])
        clock.moment += timedelta(hours=1)
    assert stamps == ["2029-01-01 08:00:00", "2029-01-01 09:00:00"]


@pytest.mark.parametrize("product", PAGES)
def test_opening_and_handing_over_a_page_asks_nobody(
    server: GatewayServer, product: Product
) -> None:
    server.reset()
    gateway = connected(settings(base_url=f"{server.url}/gateway.do"))
    address_of(gateway, request_for(product))
    assert server.requests == []


@pytest.mark.parametrize("product", PAGES)
def test_another_address_to_come_back_to_may_be_given_at_the_end(product: Product) -> None:
    other = "https://shop.example/elsewhere"
    params = params_of(address_of(connected(settings()), request_for(product), return_url=other))
    assert params["return_url"] == other
    assert json.loads(params["biz_content"]).get("quit_url", other) == other


@pytest.mark.parametrize("product", PAGES)
@pytest.mark.parametrize(
    "back", ["javascript:alert(1)", "//evil", "/orders", "https://" + "a" * 300]
)
def test_what_is_no_address_to_come_back_to_is_our_own_mistake(product: Product, back: str) -> None:
    gateway = connected(settings())
    with pytest.raises(ValueError, match="address to come back to"):
        gateway.prepay(request_for(product, return_url=back))
    ticket = gateway.prepay(request_for(product)).ticket
    assert ticket is not None
    with pytest.raises(ValueError, match="address to come back to"):
        gateway.hand_over(product, ticket, return_url=back)


@pytest.mark.parametrize("product", list(Product))
def test_a_product_without_a_contract_is_our_own_mistake(product: Product) -> None:
    gateway = connected(settings(products=()))
    with pytest.raises(ValueError, match="not a product of this merchant"):
        gateway.prepay(request_for(product))


@pytest.mark.parametrize("product", PAGES)
def test_what_was_opened_can_be_paid_though_it_is_not_offered_any_more(product: Product) -> None:
    ticket = SHARED.prepay(request_for(product)).ticket
    assert ticket is not None
    assert connected(settings(products=("precreate",))).hand_over(product, ticket).url is not None


def test_another_gateways_product_cannot_be_handed_over() -> None:
    with pytest.raises(ValueError, match="not paid on a page"):
        SHARED.hand_over(Product.H5, "{}")


@examples(deadline=None, max_examples=50)
@given(st.text() | st.sampled_from(["{}", "[]", '{"content":{}}', '{"content":[]}', "null"]))
def test_any_text_is_no_ticket_of_a_page(ticket: str) -> None:
    for product in PAGES:
        with pytest.raises(ValueError, match=f"not a ticket of {product}"):
            SHARED.hand_over(product, ticket)


@examples(deadline=None, max_examples=50)
@given(st.text(min_size=1, max_size=400), st.integers(1, 10_000_000_000))
def test_no_goods_name_makes_an_address_too_long_for_a_server(subject: str, fen: int) -> None:
    back = "https://shop.example/" + "x" * 230
    request = request_for(
        Product.WAP,
        subject=subject,
        amount_fen=fen,
        out_trade_no="P" * 32,
        return_url=back,
        notify_url=back,
    )
    address = address_of(SHARED, request)
    assert len(address) < 4_094 - len("GET  HTTP/1.1")
    content = json.loads(params_of(address)["biz_content"])
    assert content["subject"]
    assert not set(content["subject"]) & set("/=&{}")


def test_a_page_of_another_product_is_no_ticket_of_this_one() -> None:
    gateway = connected(settings())
    ticket = gateway.prepay(request_for(Product.PAGE)).ticket
    assert ticket is not None
    with pytest.raises(ValueError, match="not a ticket of wap"):
        gateway.hand_over(Product.WAP, ticket)


def test_a_page_that_was_opened_by_asking_nobody_does_not_say_that_the_gateway_is_well() -> None:
    with gateway_server() as gone:
        url = f"{gone.url}/gateway.do"
    guards = Guards(concurrency=4, concurrency_of_all=8, failures=3, rest_ms=600_000)
    guarded = guards.around(connected(settings(base_url=url)), merchant="shop", base_url=url)
    codes = []
    for _ in range(4):
        fault = guarded.query(NUMBER).fault
        codes.append(fault and fault.code)
        guarded.prepay(request_for(Product.WAP))
    assert codes == ["unreachable"] * 3 + [RESTING]
