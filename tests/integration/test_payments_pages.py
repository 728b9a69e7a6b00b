"""The payment's pages where not everything can be paid everywhere, and where proxies stand before.

The shop offers what the member's own browser opens, so that no gateway is asked.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, update
from sqlalchemy.pool import QueuePool

from shop.catalog.models import Product
from shop.db import changed_rows, db, transaction
from shop.payments.models import PaymentAttempt
from shop.payments.payer_views import ASK_AGAIN_AFTER_S, ASKED_KEY
from shop.payments.settle import Applied, Money, apply_money, end_unpaid
from tests.integration.gateway_server import GatewayServer, Reply, Seen, gateway_server
from tests.integration.orders_support import shop_app
from tests.integration.test_orders_pages import ENGLISH, JSON, item, post, sign_in

PHONE = {**ENGLISH, "User-Agent": "Mozilla/5.0 (Linux; Android 14) Chrome/130.0 Mobile Safari"}
WECHAT = {**ENGLISH, "User-Agent": "Mozilla/5.0 (iPhone) Mobile/15E148 MicroMessenger/8.0.50"}
PROXY, STRANGER = "10.0.0.1", "192.0.2.9"


@pytest.fixture(scope="module")
def login_server() -> Iterator[GatewayServer]:
    with gateway_server() as server:
        yield server


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, login_server: GatewayServer) -> Iterator[Flask]:
    folder: Path = tmp_path_factory.mktemp("payment-pages")
    offered = {"ALIPAY_PRODUCTS": "page,wap", "WECHATPAY_PRODUCTS": "h5,jsapi"}
    proxies = {"FORWARDED_ALLOW_IPS": f"{PROXY},2001:db8:1::/48"}
    login = {"WECHATPAY_OPENID_URL": f"{login_server.url}/openid"}
    database = f"sqlite:///{folder / 'shop.db'}"
    with shop_app(database, folder, **offered, **proxies, **login) as app:
        yield app


@pytest.fixture
def alice(app: Flask) -> FlaskClient:
    client = app.test_client()
    sign_in(client, "alice")
    return client


@pytest.fixture
def order(alice: FlaskClient) -> str:
    form = {"item": item(alice, "longjing-tea"), "points": "0", "submit_token": ""}
    page = alice.get("/checkout?product=" + form["item"].partition(":")[0], headers=ENGLISH)
    form["submit_token"] = parse_qs(urlsplit(page.headers["Location"]).query)["token"][0]
    return str(post(alice, "/orders", JSON, **form).get_json()["order_code"])


@contextmanager
def sold_out(sku: str) -> Iterator[None]:
    """For the length of a block, there is none of it: an order cannot have its goods back."""
    goods = update(Product).where(Product.sku == sku)
    left = db.session.scalars(select(Product.stock_on_hand).where(Product.sku == sku)).one()
    assert transaction(lambda: changed_rows(goods.values(stock_on_hand=0))) == 1
    yield
    assert transaction(lambda: changed_rows(goods.values(stock_on_hand=left))) == 1


def key(order: str, count: int = 1) -> str:
    return f"{order}-{count}"


def attempts(app: Flask, order: str) -> list[PaymentAttempt]:
    with app.app_context():
        mine = PaymentAttempt.order_code == order
        return list(db.session.scalars(select(PaymentAttempt).where(mine)))


def test_only_what_this_device_can_pay_is_offered_and_the_rest_is_refused_with_a_reason(
    app: Flask, alice: FlaskClient, order: str
) -> None:
    for path in (f"/orders/{order}", f"/orders/{order}/pay"):
        page = alice.get(path, headers=ENGLISH).text
        assert ('id="pay-alipay"' in page, 'id="pay-wechatpay"' in page) == (True, False)
        page = alice.get(path, headers=PHONE).text
        assert ('id="pay-alipay"' in page, 'id="pay-wechatpay"' in page) == (True, True)
    form = {"channel": "wechatpay", "idempotency_key": key(order)}
    answer = post(alice, f"/orders/{order}/pay", JSON, **form)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "channel-not-here")
    told = post(alice, f"/orders/{order}/pay", ENGLISH, **form)
    assert told.status_code == 422
    assert "cannot be paid by WeChat Pay on this device" in told.text
    assert attempts(app, order) == []


def test_alipays_page_is_the_desktops_where_there_is_no_code_and_its_address_is_signed_on_the_click(
    app: Flask, alice: FlaskClient, order: str
) -> None:
    form = {"channel": "alipay", "idempotency_key": key(order)}
    assert post(alice, f"/orders/{order}/pay", ENGLISH, **form).status_code == 303
    assert [one.product for one in attempts(app, order)] == ["page"]
    page = alice.get(f"/orders/{order}/pay", headers=ENGLISH).text
    assert f'href="/orders/{order}/pay/go"' in page
    assert "sign=" not in page
    onward = alice.get(f"/orders/{order}/pay/go", headers=ENGLISH)
    asked = parse_qs(urlsplit(onward.headers["Location"]).query)
    assert (onward.status_code, asked["method"]) == (303, ["alipay.trade.page.pay"])
    assert asked["sign"]
    # Somebody else is not led there.
    bob = app.test_client()
    sign_in(bob, "bob")
    assert bob.get(f"/orders/{order}/pay/go", headers=ENGLISH).status_code == 404


def test_a_payment_by_a_product_that_was_given_up_has_a_page_that_says_what_to_do(
    app: Flask, alice: FlaskClient, order: str
) -> None:
    form = {"channel": "alipay", "idempotency_key": key(order)}
    post(alice, f"/orders/{order}/pay", ENGLISH, **form)
    with app.app_context():
        mine = update(PaymentAttempt).where(PaymentAttempt.order_code == order)
        assert transaction(lambda: changed_rows(mine.values(product="precreate"))) == 1
    page = alice.get(f"/orders/{order}/pay", headers=ENGLISH)
    assert (page.status_code, 'id="withdrawn"' in page.text) == (200, True)
    assert 'id="pay-here"' in page.text
    assert alice.get(f"/orders/{order}/pay/go", headers=ENGLISH).status_code == 303
    assert alice.get(f"/orders/{order}/status").status_code == 200


@pytest.mark.parametrize("order_event", ["close", "fail"])
def test_money_beyond_what_an_order_owes_is_told_on_its_pages(
    app: Flask, alice: FlaskClient, order: str, order_event: str
) -> None:
    form = {"channel": "alipay", "idempotency_key": key(order)}
    post(alice, f"/orders/{order}/pay", ENGLISH, **form)
    [attempt] = attempts(app, order)
    desk = app.extensions["payonce"].desk
    money = Money(
        channel="alipay",
        merchant=attempt.merchant,
        out_trade_no=attempt.out_trade_no,
        transaction_id=f"t-{order}",
        amount_fen=attempt.amount_fen,
        currency="CNY",
        paid_at=None,
        cause="a late notice",
    )
    number = attempt.out_trade_no
    with app.app_context(), desk.claim(order, actor="gateway") as claim:
        end_unpaid(
            desk, claim, number, attempt_event="close", order_event=order_event, cause="ended"
        )
    watch = alice.get(f"/orders/{order}/status").get_json()["watch"]
    with app.app_context(), desk.claim(order, actor="gateway") as claim, sold_out("longjing-tea"):
        assert apply_money(desk, claim, money) is Applied.SURPLUS
    amount = f"{attempt.amount_fen // 100}.{attempt.amount_fen % 100:02d}"
    for path in (f"/orders/{order}", f"/orders/{order}/pay"):
        page = alice.get(path, headers=ENGLISH).text
        assert page.count('id="surplus"') == 1
        assert amount in page[page.index('id="surplus"') :]
        assert "Nothing was charged" not in page.partition('class="timeline')[0]
    assert alice.get(f"/orders/{order}/status").get_json()["watch"] != watch


@pytest.mark.parametrize(
    ("peer", "forwarded", "kept"),
    [
        (PROXY, "198.51.100.66, 203.0.113.7", "203.0.113.7"),
        (PROXY, "2001:db8::7, 2001:db8:1::5", "2001:db8::7"),
        (STRANGER, "203.0.113.7", STRANGER),
    ],
)
def test_the_payers_address_is_believed_from_the_named_proxies_alone(
    app: Flask, alice: FlaskClient, order: str, peer: str, forwarded: str, kept: str
) -> None:
    form = {"channel": "alipay", "idempotency_key": key(order)}
    alice.environ_base["REMOTE_ADDR"] = peer
    answer = post(alice, f"/orders/{order}/pay", {**PHONE, "X-Forwarded-For": forwarded}, **form)
    assert answer.status_code == 303
    assert [one.client_ip for one in attempts(app, order)] == [kept]


def test_a_login_that_failed_is_tried_again_later_and_nothing_that_needs_it_is_offered_meanwhile(
    alice: FlaskClient, order: str
) -> None:
    path = f"/orders/{order}/pay"
    # It may be learnt who pays, so it can be paid.
    assert 'id="pay-wechatpay"' in alice.get(f"/orders/{order}", headers=WECHAT).text
    assert 'id="go-on"' in alice.get(path, headers=WECHAT).text
    with alice.session_transaction() as session:
        state = session[ASKED_KEY]["state"]
    # The gateway is away: nobody can say whose code this is.
    assert alice.get(f"/pay/wechat/openid?code=x&state={state}", headers=WECHAT).status_code == 303
    page = alice.get(path, headers=WECHAT).text
    assert ('id="go-on"' in page, 'id="pay-wechatpay"' in page) == (False, False)
    assert 'id="no-way-here"' in page
    with alice.session_transaction() as session:
        asked = session[ASKED_KEY]
        session[ASKED_KEY] = {**asked, "at": asked["at"] - ASK_AGAIN_AFTER_S}
    assert 'id="go-on"' in alice.get(path, headers=WECHAT).text


def test_nothing_of_the_database_is_held_while_wechat_is_asked_who_pays(
    app: Flask, alice: FlaskClient, order: str, login_server: GatewayServer
) -> None:
    with app.app_context():
        pool = db.engine.pool
    assert isinstance(pool, QueuePool)
    held = []

    def answer(_seen: Seen) -> Reply:
        held.append(pool.checkedout())
        return Reply(body=b'{"openid": "o-alice"}')

    path = f"/orders/{order}/pay"
    assert 'id="go-on"' in alice.get(path, headers=WECHAT).text
    with alice.session_transaction() as session:
        state = session[ASKED_KEY]["state"]
    login_server.script = answer
    try:
        back = alice.get(f"/pay/wechat/openid?code=x&state={state}", headers=WECHAT)
    finally:
        login_server.reset()
    assert (back.status_code, held) == (303, [0])
    assert 'id="pay-wechatpay"' in alice.get(path, headers=WECHAT).text
