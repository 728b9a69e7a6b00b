"""The checkout over HTTP: its token stays in its address; what its pages say is true."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from shop.errors import PaymentHeld
from tests.integration.orders_support import hanging_up, shop_app
from tests.integration.test_orders_pages import ENGLISH, JSON, csrf, item, post, sign_in

CHINESE = {"Accept-Language": "zh-CN", "Accept": "text/html"}
TOKEN = "0c6bd2a4-94a2-4b0e-8a7e-{:012d}"


def raise_held() -> str:
    raise PaymentHeld(order_code="P261124AMF8PEHMNX7")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    folder: Path = tmp_path_factory.mktemp("checkout")
    # However often it hangs up: it is not to be left alone.
    env = {"GATEWAY_FAILURES": "100"}
    with shop_app(f"sqlite:///{folder / 'shop.db'}", folder, **env) as app:
        app.add_url_rule("/held", view_func=raise_held)
        address = app.extensions["payonce"].settings.wechatpay.base_url
        with hanging_up(urlsplit(address).port or 0):
            yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def alice(client: FlaskClient) -> FlaskClient:
    sign_in(client, "alice")
    return client


def checkout(client: FlaskClient, sku: str, token: str, quantity: int = 1) -> str:
    product = item(client, sku).partition(":")[0]
    return f"/checkout?product={product}&quantity={quantity}&token={token}"


def placed(client: FlaskClient, sku: str, points: int, token: str) -> str:
    form = {"item": item(client, sku), "points": str(points), "submit_token": token}
    return str(post(client, "/orders", JSON, **form).get_json()["order_code"])


def token_in(address: str) -> str:
    return parse_qs(urlsplit(address).query)["token"][0]


@pytest.mark.parametrize("token", ["", "not-one-of-ours", "x" * 36])
def test_a_checkout_without_a_valid_token_is_led_to_itself_with_one(
    alice: FlaskClient, token: str
) -> None:
    answer = alice.get(checkout(alice, "longjing-tea", token, 2), headers=ENGLISH)
    assert answer.status_code == 303
    address = answer.headers["Location"]
    assert "quantity=2" in address
    page = alice.get(address, headers=ENGLISH)
    assert page.status_code == 200
    assert f'name="submit_token" value="{token_in(address)}"' in page.text


def test_buy_now_takes_the_token_of_its_form_along(alice: FlaskClient) -> None:
    page = alice.get("/goods/longjing-tea", headers=ENGLISH)
    found = re.search(r'name="submit_token" value="([^"]+)"', page.text)
    assert found is not None
    form = {"then": "checkout", "quantity": "2", "submit_token": found.group(1)}
    first = post(alice, "/goods/longjing-tea", ENGLISH, **form)
    again = post(alice, "/goods/longjing-tea", ENGLISH, **form)
    assert token_in(first.headers["Location"]) == found.group(1)
    assert first.headers["Location"] == again.headers["Location"]
    assert found.group(1) not in alice.get("/goods/longjing-tea", headers=ENGLISH).text


def test_a_checkout_that_was_sent_offers_the_same_again_though_points_are_set_aside(
    app: Flask,
) -> None:
    bob = app.test_client()
    sign_in(bob, "bob")
    token = TOKEN.format(1)
    code = placed(bob, "canvas-tote", 1_800, token)
    rest = placed(bob, "coffee-voucher", 3_000, TOKEN.format(2))
    for one in (code, rest):
        pay = {"channel": "points", "idempotency_key": f"pay-{one}"}
        assert post(bob, f"/orders/{one}/pay", JSON, **pay).status_code == 200
    page = bob.get(checkout(bob, "coffee-voucher", TOKEN.format(2)), headers=ENGLISH)
    assert f'href="/orders/{rest}"' in page.text
    assert "nothing is ordered twice" in page.text
    assert re.search(r'id="points"[^>]* value="3000"', page.text)
    assert placed(bob, "coffee-voucher", 3_000, TOKEN.format(2)) == rest


def test_a_token_that_made_another_order_or_a_closed_one_is_replaced(alice: FlaskClient) -> None:
    token = TOKEN.format(3)
    code = placed(alice, "longjing-tea", 0, token)
    other = alice.get(checkout(alice, "longjing-tea", token, 2), headers=ENGLISH)
    assert token_in(other.headers["Location"]) != token
    assert alice.get(checkout(alice, "longjing-tea", token), headers=ENGLISH).status_code == 200
    post(alice, f"/orders/{code}/cancel", JSON)
    closed = alice.get(checkout(alice, "longjing-tea", token), headers=ENGLISH)
    assert token_in(closed.headers["Location"]) != token


def test_other_points_under_the_same_token_are_a_page_that_leads_to_the_order(
    alice: FlaskClient,
) -> None:
    code = placed(alice, "steel-flask", 0, TOKEN.format(4))
    form = {"item": item(alice, "steel-flask"), "points": "5", "submit_token": TOKEN.format(4)}
    answer = post(alice, "/orders", ENGLISH, **form)
    assert answer.status_code == 422
    assert "This form was already sent" in answer.text
    assert f'href="/orders/{code}"' in answer.text


def test_the_cart_s_checkout_keeps_its_token_and_leads_to_its_order_afterwards(
    alice: FlaskClient,
) -> None:
    post(alice, "/goods/longjing-tea", ENGLISH, then="cart", quantity="1")
    link = re.search(r'href="(/checkout\?token=[^"]+)"', alice.get("/cart", headers=ENGLISH).text)
    assert link is not None
    address, token = link.group(1), token_in(link.group(1))
    assert f'name="submit_token" value="{token}"' in alice.get(address, headers=ENGLISH).text
    form = {"item": item(alice, "longjing-tea"), "points": "0", "submit_token": token}
    answer = post(alice, "/orders", JSON, **form, source="cart")
    code = answer.get_json()["order_code"]
    assert alice.get(address, headers=ENGLISH).headers["Location"] == f"/orders/{code}"
    again = post(alice, "/orders", JSON, **form, source="cart")
    assert again.get_json()["order_code"] == code
    # The cart was filled anew: that is another order.
    post(alice, "/goods/longjing-tea", ENGLISH, then="cart", quantity="1")
    assert token_in(alice.get(address, headers=ENGLISH).headers["Location"]) != token


def test_a_visitor_who_buys_comes_to_the_checkout_with_the_quantity_kept(
    client: FlaskClient,
) -> None:
    answer = post(client, "/goods/longjing-tea", ENGLISH, then="checkout", quantity="3")
    wanted = answer.headers["Location"]
    door = client.get(wanted, headers=ENGLISH)
    target = parse_qs(urlsplit(door.headers["Location"]).query)["next"][0]
    assert target == wanted
    onwards = sign_in(client, "alice", next=target).headers["Location"]
    assert "× 3" in client.get(onwards, headers=ENGLISH).text


def test_the_slider_is_there_only_where_there_is_a_choice(app: Flask, alice: FlaskClient) -> None:
    bob = app.test_client()
    sign_in(bob, "bob")
    address = checkout(bob, "steel-flask", TOKEN.format(9))
    assert 'id="points-slider"' in alice.get(address, headers=ENGLISH).text
    rest = re.search(r'id="balance">([0-9,]+)<', bob.get("/", headers=ENGLISH).text)
    assert rest is not None
    left = int(rest.group(1).replace(",", ""))
    # Set all of bob's points aside, in orders that points alone pay.
    for turn, (sku, points) in enumerate(spending(left)):
        code = placed(bob, sku, points, TOKEN.format(100 + turn))
        pay = {"channel": "wechatpay" if sku == "steel-flask" else "points"}
        post(bob, f"/orders/{code}/pay", JSON, **pay, idempotency_key=f"spend-{turn}")
    assert 'id="balance">0<' in bob.get("/", headers=ENGLISH).text
    page = bob.get(address, headers=ENGLISH).text
    assert 'id="points-slider"' not in page
    assert '<input type="hidden" id="points" name="points" value="0">' in page
    assert 'id="place-order"' in page


def spending(points: int) -> Iterator[tuple[str, int]]:
    while points > 0:
        most = min(points, 6_450)
        yield "steel-flask", most
        points -= most


def test_points_out_of_bounds_are_told_in_the_shop_s_numbers(alice: FlaskClient) -> None:
    form = {"item": item(alice, "steel-flask"), "points": "9999", "submit_token": "t-many"}
    answer = post(alice, "/orders", ENGLISH, **form)
    assert "This order can be paid with 0 to 6,450 points." in answer.text


def test_a_price_with_a_least_share_of_points_says_so(client: FlaskClient) -> None:
    for path in ("/", "/goods/folding-umbrella"):
        page = client.get(path, headers=ENGLISH).text
        assert "at least 1,000 in points" in page
        assert "至少使用 1,000 积分" in client.get(path, headers=CHINESE).text
    assert "at least" not in client.get("/goods/steel-flask", headers=ENGLISH).text


def test_the_payment_page_says_what_is_bought_and_its_title_how_it_stands(
    alice: FlaskClient,
) -> None:
    code = placed(alice, "canvas-tote", 1_800, TOKEN.format(20))
    waiting = alice.get(f"/orders/{code}/pay", headers=ENGLISH).text
    assert "Canvas tote" in waiting
    assert "× 1</p>" in waiting
    assert "<title>Payment" in waiting
    post(alice, f"/orders/{code}/pay", JSON, channel="points", idempotency_key="bought")
    assert "<title>Paid" in alice.get(f"/orders/{code}/pay", headers=ENGLISH).text


def test_a_cancellation_that_is_not_confirmed_leads_to_the_order_and_its_button(
    alice: FlaskClient,
) -> None:
    code = placed(alice, "longjing-tea", 0, TOKEN.format(30))
    # The gateway hangs up: whether it has the payment, nobody knows.
    pay = {"channel": "wechatpay", "idempotency_key": "nobody-home"}
    assert post(alice, f"/orders/{code}/pay", ENGLISH, **pay).status_code == 303
    answer = post(alice, f"/orders/{code}/cancel", ENGLISH)
    assert answer.status_code == 503
    assert f"Order {code} is not cancelled yet" in answer.text
    assert "Cancel it again in a few seconds" in answer.text
    assert f'class="main" href="/orders/{code}"' in answer.text
    assert 'id="cancel-order"' in alice.get(f"/orders/{code}", headers=ENGLISH).text
    assert "还没有取消" in post(alice, f"/orders/{code}/cancel", CHINESE).text


def test_a_payment_that_is_held_says_that_nothing_is_lost_and_leads_to_the_order(
    alice: FlaskClient,
) -> None:
    page = alice.get("/held", headers=ENGLISH)
    assert page.status_code == 409
    assert "does not agree with our books" in page.text
    assert "Do not pay again." in page.text
    assert 'href="/orders/P261124AMF8PEHMNX7"' in page.text
    assert csrf(page)
