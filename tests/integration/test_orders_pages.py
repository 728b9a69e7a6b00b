"""The pages over HTTP: sign-in, forms' protection, errors for people and for programs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from shop.catalog.models import Product
from shop.commands.seed_data import DEMO_PASSWORD
from shop.db import db
from shop.pages.security import CONTENT_SECURITY_POLICY
from tests.integration.orders_support import shop_app

ENGLISH = {"Accept-Language": "en", "Accept": "text/html"}
JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    folder: Path = tmp_path_factory.mktemp("pages")
    with shop_app(f"sqlite:///{folder / 'shop.db'}", folder) as app:
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def alice(client: FlaskClient) -> FlaskClient:
    sign_in(client, "alice")
    return client


def csrf(page: TestResponse) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert found is not None
    return found.group(1)


def sign_in(client: FlaskClient, login: str, **fields: str) -> TestResponse:
    token = csrf(client.get("/sign-in", headers=ENGLISH))
    form = {"login": login, "password": DEMO_PASSWORD, "csrf_token": token, **fields}
    return client.post("/sign-in", data=form, headers=ENGLISH)


def post(client: FlaskClient, path: str, headers: dict[str, str], **form: Any) -> TestResponse:
    token = csrf(client.get("/", headers=ENGLISH))
    return client.post(path, data={**form, "csrf_token": token}, headers=headers)


def item(client: FlaskClient, sku: str, quantity: int = 1) -> str:
    with client.application.app_context():
        found = db.session.scalars(select(Product.id).where(Product.sku == sku)).one()
    return f"{found}:{quantity}"


def test_every_answer_carries_the_policy_and_pages_are_kept_by_nobody(client: FlaskClient) -> None:
    for path in ("/", "/sign-in", "/nothing"):
        answer = client.get(path)
        assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
    style = re.search(r'href="(/static/base\.css[^"]+)"', client.get("/").text)
    assert style is not None
    assert "max-age=31536000" in client.get(style.group(1)).headers["Cache-Control"]


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(client: FlaskClient) -> None:
    cookie = sign_in(client, "alice").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_a_sign_in_throws_away_the_visitor_s_session(client: FlaskClient) -> None:
    before = csrf(client.get("/sign-in"))
    sign_in(client, "alice")
    answer = client.post("/sign-out", data={"csrf_token": before}, headers=ENGLISH)
    assert answer.status_code == 400
    assert 'data-code="form-expired"' in answer.text


def test_a_wrong_password_and_an_unknown_name_look_the_same(client: FlaskClient) -> None:
    def page(login: str) -> tuple[int, str]:
        answer = sign_in(client, login, password="wrong")
        return answer.status_code, re.sub(r'value="[^"]*"', "", answer.text)

    assert page("alice") == page("nobody-of-this-name")
    assert page("alice")[0] == 422
    assert page("al\x00ice")[0] == 422


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_a_sign_in_never_leads_to_another_host(client: FlaskClient, target: str) -> None:
    assert sign_in(client, "alice", next=target).headers["Location"] == "/"


def test_visitors_are_led_to_the_sign_in_and_back(client: FlaskClient) -> None:
    answer = client.get("/orders?page=2", headers=ENGLISH)
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/sign-in?next=/orders?page%3D2"
    assert sign_in(client, "alice", next="/orders?page=2").headers["Location"] == "/orders?page=2"


def test_a_program_without_a_member_is_told_401(client: FlaskClient) -> None:
    answer = client.get("/orders/P1/status", headers=JSON)
    assert answer.status_code == 401
    assert answer.mimetype == "application/problem+json"
    assert answer.get_json()["code"] == "sign-in-needed"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("DELETE", "/orders", 405), ("GET", "/goods/none", 404)],
)
def test_errors_are_pages_for_people_and_problems_for_programs(
    alice: FlaskClient, method: str, path: str, status: int
) -> None:
    token = {"X-CSRFToken": csrf(alice.get("/", headers=ENGLISH))}
    page = alice.open(path, method=method, headers={**ENGLISH, **token})
    assert (page.status_code, page.mimetype) == (status, "text/html")
    assert page.headers["X-Request-Id"] in page.text
    problem = alice.open(path, method=method, headers={**JSON, **token})
    assert (problem.status_code, problem.mimetype) == (status, "application/problem+json")
    said = problem.get_json()
    assert said["status"] == status
    assert {"type", "title", "detail", "instance", "code"} <= said.keys()
    if status == 405:
        assert "GET" in page.headers["Allow"]


def test_a_form_without_its_token_is_refused_and_says_how_to_go_on(alice: FlaskClient) -> None:
    answer = alice.post("/orders", data={}, headers=ENGLISH)
    assert answer.status_code == 400
    assert "This page was open for too long" in answer.text
    assert alice.post("/orders", data={}, headers=JSON).get_json()["code"] == "form-expired"


def test_too_much_at_once_is_refused(alice: FlaskClient) -> None:
    token = csrf(alice.get("/"))
    form = {"csrf_token": token, "item": "x" * 300_000}
    answer = alice.post("/orders", data=form, headers={**ENGLISH, "X-CSRFToken": token})
    assert answer.status_code == 413
    assert "That was too much at once" in answer.text


def test_errors_speak_the_reader_s_language(alice: FlaskClient) -> None:
    form = {"item": item(alice, "silk-fan", 4), "points": "48000", "submit_token": "t-lang"}
    chinese = post(alice, "/orders", {"Accept-Language": "zh-CN", "Accept": "text/html"}, **form)
    assert "“苏绣团扇”库存不足。" in chinese.text
    english = post(alice, "/orders", ENGLISH, **form)
    assert "Embroidered silk fan is out of stock." in english.text


def test_an_order_placed_without_a_channel_waits_for_its_payment(alice: FlaskClient) -> None:
    form = {"item": item(alice, "longjing-tea"), "points": "0", "submit_token": "t-wait"}
    placed = post(alice, "/orders", JSON, **form)
    assert placed.status_code == 201
    code = placed.get_json()["order_code"]
    assert post(alice, "/orders", JSON, **form).get_json()["order_code"] == code
    page = alice.get(f"/orders/{code}", headers=ENGLISH)
    assert 'id="pay-wechatpay"' in page.text
    assert 'id="pay-alipay"' in page.text
    status = alice.get(f"/orders/{code}/status", headers=JSON)
    assert status.get_json()["order_state"] == "created"
    assert status.headers["Cache-Control"] == "no-store"


def test_a_payment_by_points_is_answered_again_and_marked_as_replayed(alice: FlaskClient) -> None:
    form = {"item": item(alice, "canvas-tote"), "points": "1800", "submit_token": "t-points"}
    code = post(alice, "/orders", JSON, **form).get_json()["order_code"]
    pay = {"channel": "points", "idempotency_key": "key-of-the-page"}
    first = post(alice, f"/orders/{code}/pay", JSON, **pay)
    again = post(alice, f"/orders/{code}/pay", JSON, **pay)
    assert first.status_code == again.status_code == 200
    assert first.get_json()["order_state"] == "paid"
    assert first.data == again.data
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    other = post(alice, f"/orders/{code}/pay", JSON, channel="points", idempotency_key="another")
    assert (other.status_code, other.get_json()["code"]) == (409, "order-already-paid")
    page = post(alice, f"/orders/{code}/pay", ENGLISH, channel="points", idempotency_key="third")
    assert f'href="/orders/{code}"' in page.text


def test_a_payment_without_a_key_is_refused(alice: FlaskClient) -> None:
    form = {"item": item(alice, "canvas-tote"), "points": "1800", "submit_token": "t-nokey"}
    code = post(alice, "/orders", JSON, **form).get_json()["order_code"]
    answer = post(alice, f"/orders/{code}/pay", JSON, channel="points")
    assert (answer.status_code, answer.get_json()["code"]) == (400, "idempotency-key-missing")


def test_cancelling_twice_is_no_error(alice: FlaskClient) -> None:
    form = {"item": item(alice, "canvas-tote"), "points": "1800", "submit_token": "t-cancel"}
    code = post(alice, "/orders", JSON, **form).get_json()["order_code"]
    for _ in range(2):
        answer = post(alice, f"/orders/{code}/cancel", JSON)
        assert (answer.status_code, answer.get_json()["order_state"]) == (200, "closed")
    page = alice.get(f"/orders/{code}", headers=ENGLISH)
    assert "You cancelled the order. Nothing was charged." in page.text


def test_nobody_sees_or_touches_another_member_s_order(app: Flask, alice: FlaskClient) -> None:
    form = {"item": item(alice, "canvas-tote"), "points": "1800", "submit_token": "t-mine"}
    code = post(alice, "/orders", JSON, **form).get_json()["order_code"]
    bob = app.test_client()
    sign_in(bob, "bob")
    for path in ("", "/pay", "/status"):
        assert bob.get(f"/orders/{code}{path}", headers=JSON).status_code == 404
    for path in ("/pay", "/cancel"):
        answer = post(bob, f"/orders/{code}{path}", JSON, channel="points", idempotency_key="k")
        assert answer.get_json()["code"] == "order-not-found"
    found = alice.get(f"/orders/{code}/status", headers=JSON).get_json()
    assert found["order_state"] == "created"


@pytest.mark.parametrize("points", ["", "-1", "1e3", "٣", "99999999999999999999", "0x10"])
def test_nonsense_for_points_is_refused_kindly(alice: FlaskClient, points: str) -> None:
    form = {"item": item(alice, "coffee-voucher"), "points": points, "submit_token": "t-nonsense"}
    answer = post(alice, "/orders", JSON, **form)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "points-out-of-bounds")


@pytest.mark.parametrize("text", ["", "x", "1:", ":1", "1:x", "1:-1", "9" * 40 + ":1"])
def test_nonsense_for_goods_is_refused_kindly(alice: FlaskClient, text: str) -> None:
    answer = post(alice, "/orders", JSON, item=text, points="0", submit_token="t-goods")
    assert answer.status_code in {404, 422}


def test_the_language_switch_leads_back_and_only_into_the_shop(client: FlaskClient) -> None:
    answer = post(client, "/language", ENGLISH, language="zh", next="/goods/silk-fan")
    assert answer.headers["Location"] == "/goods/silk-fan"
    assert "苏绣团扇" in client.get("/goods/silk-fan", headers=ENGLISH).text
    answer = post(client, "/language", ENGLISH, language="en", next="//evil.example")
    assert answer.headers["Location"] == "/"
    assert "Embroidered silk fan" in client.get("/goods/silk-fan", headers=ENGLISH).text


def test_an_order_that_cannot_be_paid_is_led_to_from_the_checkout(app: Flask) -> None:
    bob = app.test_client()
    sign_in(bob, "bob")
    tote = {"points": "7200", "item": item(bob, "canvas-tote", 4)}
    placed = [post(bob, "/orders", JSON, **tote, submit_token=f"b-{n}") for n in (1, 2)]
    first, second = (one.get_json()["order_code"] for one in placed)
    pay = {"channel": "points", "idempotency_key": "b"}
    assert post(bob, f"/orders/{first}/pay", JSON, **pay).status_code == 200
    poor = post(bob, "/orders", ENGLISH, **tote, submit_token="b-2", channel="points")
    assert poor.status_code == 409
    assert "You have not enough points for this." in poor.text
    assert f'href="/orders/{second}"' in poor.text


def test_a_database_that_is_away_is_a_page_that_asks_it_nothing(tmp_path: Path) -> None:
    with shop_app(f"sqlite:///{tmp_path / 'shop.db'}", tmp_path) as app:
        client = app.test_client()
        sign_in(client, "alice")
        with app.app_context():
            db.engine.dispose()
        for file in tmp_path.glob("shop.db*"):
            file.unlink()
        (tmp_path / "shop.db").mkdir()
        page = client.get("/orders", headers=ENGLISH)
        problem = client.get("/orders", headers=JSON)
        # A page that would lead to an order still shows a head that reads the database.
        of_an_order = client.get("/orders/P261124AMF8PEHMNX7/pay", headers=ENGLISH)
    assert page.status_code == problem.status_code == of_an_order.status_code == 503
    assert "Our books cannot be reached for a moment." in of_an_order.text
    assert "Our books cannot be reached for a moment." in page.text
    assert page.headers["Retry-After"]
    assert problem.get_json()["code"] == "database-unavailable"


def test_a_fault_of_ours_shows_its_number_and_nothing_of_its_inside(tmp_path: Path) -> None:
    def fail() -> str:
        raise RuntimeError("the inside of the shop")

    with shop_app(f"sqlite:///{tmp_path / 'shop.db'}", tmp_path) as app:
        app.add_url_rule("/fail", view_func=fail)
        page = app.test_client().get("/fail", headers=ENGLISH)
    assert page.status_code == 500
    assert "the inside of the shop" not in page.text
    assert page.headers["X-Request-Id"] in page.text
