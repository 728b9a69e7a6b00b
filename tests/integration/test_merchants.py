"""Several merchants in one shop: whose goods, whose money, whose notices, whose keys.

`default` comes from the environment, `press` from a file, `garden` from the database. The gateways
are the real sandbox, which knows all three.
"""

import shutil
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from cryptography.fernet import Fernet
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, text, update
from sqlalchemy.pool import QueuePool
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from sandbox.keys import ensure_merchant
from shop.app import create_app
from shop.db import changed_rows, db, transaction
from shop.merchants.models import MerchantAccount
from shop.merchants.service import tell_at_start
from shop.orders.models import Order
from shop.orders.moves import Moves
from shop.payments.models import PaymentAttempt
from shop.wiring import Parts, build_parts
from tests.books import books, notices_in
from tests.faults.notices import Callbacks
from tests.integration.payments_support import EXPIRY_S, MovableClock
from tests.integration.test_orders_pages import ENGLISH, JSON, item, post, sign_in
from tests.integration.third_party import third_party
from tests.processes import wait_until
from tests.shopclient import Call
from tests.shopkit import Sandbox, ShopKit

__all__ = ["third_party"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("third_party")]

MERCHANTS = ("press", "garden", "spare")
LINES = "tea=garden,devices=press"
TEA, LAMP, TOTE, COFFEE = "longjing-tea", "over-ear-headphones", "canvas-tote", "coffee-voucher"
KEY = Fernet.generate_key().decode()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox()
    for name in MERCHANTS:
        ensure_merchant(made.folder, made.url, name)
    with made as running:
        yield running


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A shop whose application is used inside the test, one context for each step."""

    kit: ShopKit
    app: Flask
    parts: Parts
    clock: MovableClock
    folder: Path

    def run(self, *arguments: str, answer: str | None = None) -> Result:
        """Run `flask merchants …`."""
        return self.app.test_cli_runner().invoke(args=["merchants", *arguments], input=answer)

    def env_file(self, merchant: str) -> str:
        """The file in which the sandbox gives a merchant its accounts."""
        return str(self.kit.sandbox.folder / "merchants" / f"{merchant}.env")

    def give_file(self, name: str, account: str, changes: str = "") -> None:
        """Merchant `name` is to use the accounts of `account` from now on, at one stroke; with
        lines of `changes` to them."""
        new = self.folder / f"{name}.new"
        new.write_text(f"{Path(self.env_file(account)).read_text()}\n{changes}\n")
        new.rename(self.folder / f"{name}.env")

    def callbacks(self, account: str) -> Callbacks:
        """Callbacks signed for an account."""
        return Callbacks(self.kit.sandbox, "", account)

    def buyer(self) -> FlaskClient:
        """Alice at her browser."""
        client = self.app.test_client()
        sign_in(client, "alice")
        return client

    def send(self, call: Call, merchant: str | None = None) -> TestResponse:
        """Deliver a callback, at another merchant's address where one is named."""
        path = call.url
        if merchant is not None:
            path = "/".join(path.split("/")[:3]) + ("" if merchant == "default" else f"/{merchant}")
        return self.app.test_client().post(path, data=call.body, headers=dict(call.headers))

    def order(self, code: str) -> tuple[str, str]:
        """State and merchant of an order."""
        with self.app.app_context():
            found = db.session.execute(
                select(Order.state, Order.merchant).where(Order.code == code)
            ).one()
            return (found.state, found.merchant)

    def number(self, code: str) -> str:
        """The `out_trade_no` of an order's newest attempt."""
        with self.app.app_context():
            return (
                db.session.scalars(
                    select(PaymentAttempt.out_trade_no)
                    .where(PaymentAttempt.order_code == code)
                    .order_by(PaymentAttempt.id.desc())
                ).first()
                or ""
            )


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Path:
    """A database with the demo goods, to be copied."""
    folder = tmp_path_factory.mktemp("seeded")
    path = folder / "shop.db"
    kit = ShopKit(
        database_url=f"sqlite:///{path}",
        lock_url=f"file://{folder / 'locks'}",
        sandbox=sandbox,
        folder=folder,
    ).migrate()
    kit.run("-m", "flask", "--app", "wsgi", "seed")
    return path


@pytest.fixture
def shop(tmp_path: Path, sandbox: Sandbox, seeded: Path) -> Iterator[Shop]:
    shutil.copy(seeded, tmp_path / "shop.db")
    folder = tmp_path / "merchants"
    folder.mkdir()
    kit = ShopKit(
        database_url=f"sqlite:///{tmp_path / 'shop.db'}",
        lock_url=f"file://{tmp_path / 'locks'}",
        sandbox=sandbox,
        folder=tmp_path,
        extra_env={
            "MERCHANTS_DIR": str(folder),
            "MERCHANT_LINES": LINES,
            "CREDENTIALS_KEY": KEY,
        },
    )
    clock = MovableClock()
    # The gateways keep the true time, by which their signatures are judged.
    parts = build_parts(kit.settings, clock=clock, gateways=kit.parts().desk.gateways)
    app = create_app(parts=parts)
    made = Shop(kit=kit, app=app, parts=parts, clock=clock, folder=folder)
    try:
        made.give_file("press", "press")
        assert made.run("add", "garden", "--env-file", made.env_file("garden")).exit_code == 0
        yield made
        assert kit.broken() == []
    finally:
        with app.app_context():
            db.session.remove()
            db.engine.dispose()
        parts.close()
        kit.stop()


def place(client: FlaskClient, *skus: str, points: int = 0, **form: str) -> TestResponse:
    """Place an order of one of each."""
    goods = [item(client, sku) for sku in skus]
    token = str(uuid.uuid4())
    return post(client, "/orders", JSON, item=goods, points=str(points), submit_token=token, **form)


def placed(client: FlaskClient, *skus: str, points: int = 0, **form: str) -> str:
    """The code of a new order."""
    answer = place(client, *skus, points=points, **form)
    assert answer.status_code in {200, 201}, answer.text
    return str(answer.get_json()["order_code"])


def test_an_order_is_paid_to_the_merchant_of_its_product_line(shop: Shop) -> None:
    buyer = shop.buyer()
    for sku, merchant in ((TEA, "garden"), (LAMP, "press"), (COFFEE, "default")):
        code = placed(buyer, sku, channel="wechatpay")
        assert shop.order(code) == ("paying", merchant)
        number = shop.number(code)
        shop.kit.sandbox.pay(number, notice=False)
        trade = shop.kit.sandbox.get(f"/admin/trades/{number}")
        call = shop.callbacks(merchant).wechatpay(
            number, trade["amount_fen"], transaction_id=trade["transaction_id"]
        )
        assert shop.send(call).status_code == 200
        assert shop.order(code) == ("paid", merchant)


def test_goods_for_points_alone_go_with_any_sellers_goods(shop: Shop) -> None:
    code = placed(shop.buyer(), TOTE, TEA, points=1_800)
    assert shop.order(code) == ("created", "garden")


def test_goods_of_two_sellers_are_told_apart_before_anything_is_placed(shop: Shop) -> None:
    buyer = shop.buyer()
    refused = place(buyer, TEA, LAMP)
    assert (refused.status_code, refused.get_json()["code"]) == (422, "several-sellers")
    assert "Longjing spring tea" in refused.get_json()["title"]
    assert "headphones" in refused.get_json()["title"]
    for sku in (TEA, LAMP):
        post(buyer, f"/goods/{sku}", ENGLISH, then="cart", quantity="1")
    cart = buyer.get("/cart", headers=ENGLISH)
    assert "These goods have different sellers" in cart.text
    assert 'id="to-checkout"' not in cart.text
    chinese = buyer.get("/cart", headers={"Accept-Language": "zh-CN", "Accept": "text/html"})
    assert "明前龙井 100 克 | 头戴式降噪耳机" in chinese.text
    checkout = buyer.get("/checkout", headers=ENGLISH, follow_redirects=True)
    assert checkout.status_code == 422
    assert "These goods have different sellers" in checkout.text
    with shop.app.app_context():
        assert db.session.scalars(select(Order.id)).all() == []


def test_one_merchants_well_signed_alipay_notices_move_nothing_of_anothers(shop: Shop) -> None:
    code = placed(shop.buyer(), TEA, channel="alipay")
    number = shop.number(code)
    before = books(shop.kit.database_url)
    # A closed trade pays nothing, but would make us ask its gateway.
    sent = (("press", "TRADE_SUCCESS"), ("press", "TRADE_CLOSED"), ("default", "TRADE_SUCCESS"))
    for thief, status in sent:
        call = shop.callbacks(thief).alipay(number, "88.00", trade_status=status)
        assert shop.send(call).data != b"success"
    assert books(shop.kit.database_url) == before
    assert [
        (one["merchant"], one["state"], one["outcome"])
        for one in notices_in(shop.kit.database_url, number)
    ] == [(thief, "refused", "wrong_merchant") for thief, _ in sent]
    assert shop.order(code) == ("paying", "garden")


def test_one_merchants_well_signed_wechatpay_notice_moves_nothing_of_anothers(shop: Shop) -> None:
    code = placed(shop.buyer(), TEA, channel="wechatpay")
    number = shop.number(code)
    before = books(shop.kit.database_url)
    call = shop.callbacks("press").wechatpay(number, 8_800)
    assert shop.send(call).status_code == 500
    # At the address of the merchant that it would rob, its signature does not hold.
    assert shop.send(call, "garden").status_code == 500
    assert books(shop.kit.database_url) == before
    kept = notices_in(shop.kit.database_url, number)
    assert [(one["merchant"], one["outcome"]) for one in kept] == [("press", "wrong_merchant")]
    [unread] = notices_in(shop.kit.database_url, None)
    assert (unread["merchant"], unread["state"]) == ("garden", "refused")
    assert unread["outcome"] in {"bad_signature", "unknown_serial"}


def test_one_notice_id_of_two_merchants_is_two_notices(shop: Shop) -> None:
    for merchant in ("press", "garden", "press"):
        call = shop.callbacks(merchant).wechatpay("T01", 100, notice_id="EV-1")
        assert shop.send(call).status_code == 500
    kept = notices_in(shop.kit.database_url, "T01")
    assert [(one["merchant"], one["received_count"]) for one in kept] == [
        ("press", 2),
        ("garden", 1),
    ]


def test_a_callback_for_a_merchant_that_is_not_there_is_refused_in_the_gateways_form(
    shop: Shop,
) -> None:
    call = shop.callbacks("press").wechatpay("T01", 100)
    for name in ("nobody", "..", "press%2f..", "PRESS", "x" * 40):
        answer = shop.send(call, name)
        assert answer.status_code in {404, 405, 308}
    answer = shop.send(call, "nobody")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "FAIL")
    answer = shop.send(shop.callbacks("press").alipay("T01", "1.00"), "nobody")
    assert (answer.status_code, answer.data) == (404, b"failure")
    with shop.app.app_context():
        assert db.session.execute(text("SELECT count(*) FROM notices")).scalar() == 0


def test_an_order_whose_merchant_is_gone_waits_and_holds_up_no_other(shop: Shop) -> None:
    buyer = shop.buyer()
    gone = placed(buyer, LAMP, channel="wechatpay")
    other = placed(buyer, TEA, channel="wechatpay")
    shop.kit.sandbox.pay(shop.number(other), notice=False)
    (shop.folder / "press.env").unlink()
    _look_again(shop)
    answer = post(
        buyer,
        f"/orders/{gone}/pay",
        {**JSON, "Idempotency-Key": uuid.uuid4().hex},
        channel="wechatpay",
    )
    assert (answer.status_code, answer.get_json()["code"]) == (503, "merchant-unknown")
    with shop.app.app_context(), shop.clock.later(60), capture_logs() as logs:
        done = shop.parts.sweeper.run_once()
    assert done.errors == 1
    [told] = [one for one in logs if one["event"] == "sweep_item_put_off"]
    assert (told["error"], told["fields"]) == ("merchant-unknown", {"merchant": "press"})
    assert shop.order(gone)[0] == "paying"
    assert shop.order(other)[0] == "paid"
    shop.give_file("press", "press")
    _look_again(shop)
    with shop.app.app_context(), shop.clock.later(EXPIRY_S + 60):
        shop.parts.sweeper.run_once()
    assert shop.order(gone)[0] == "closed"


def test_a_stored_account_is_not_replaced_by_another_one_while_its_payments_are_open(
    shop: Shop,
) -> None:
    number = shop.number(placed(shop.buyer(), TEA, channel="alipay"))
    # A row of before it was kept where payments were begun: the stored account tells.
    for kept in (True, False):
        if not kept:
            with shop.app.app_context():
                transaction(lambda: changed_rows(update(PaymentAttempt).values(account="")))
        again = shop.run("add", "garden", "--replace", "--env-file", shop.env_file("garden"))
        assert again.exit_code == 0, again.output
        other = ("add", "garden", "--replace", "--env-file", shop.env_file("spare"))
        refused = shop.run(*other)
        assert (refused.exit_code, number in refused.output) == (1, True), refused.output
    assert shop.run("check", "garden").exit_code == 0
    with shop.app.app_context():
        transaction(lambda: changed_rows(update(PaymentAttempt).values(account="1/2")))
    checked = shop.run("check", "garden")
    assert (checked.exit_code, number in checked.output) == (1, True), checked.output
    assert shop.run(*other, "--strand-payments").exit_code == 0


def test_a_merchant_that_took_too_much_is_not_forgotten_before_that_was_given_back(
    shop: Shop,
) -> None:
    code = placed(shop.buyer(), TEA, channel="alipay")
    with shop.app.app_context(), shop.clock.later(EXPIRY_S + 60):
        shop.parts.sweeper.run_once()
    assert shop.order(code)[0] == "closed"
    # It was scanned before it expired, and the notice comes late.
    number = shop.number(code)
    assert shop.send(shop.callbacks("garden").alipay(number, "88.00")).data == b"success"
    shop.kit.extra_env["MERCHANT_LINES"] = ""
    app = create_app(parts=build_parts(shop.kit.settings))
    remove = ["merchants", "remove", "garden", "--yes"]
    refused = app.test_cli_runner().invoke(args=remove)
    assert refused.exit_code == 1
    assert f"took more than was owed by {number}" in refused.output
    done = app.test_cli_runner().invoke(args=[*remove, "--surplus-given-back"])
    assert done.exit_code == 0, done.output
    with app.app_context():
        db.engine.dispose()


def test_a_merchant_that_was_removed_and_added_again_is_read_anew(shop: Shop) -> None:
    assert shop.run("add", "fresh", "--env-file", shop.env_file("spare")).exit_code == 0
    with shop.app.app_context():
        before = shop.parts.desk.gateways.of("fresh")["alipay"].account
    assert shop.run("remove", "fresh", "--yes").exit_code == 0
    assert shop.run("add", "fresh", "--env-file", shop.env_file("press")).exit_code == 0
    _look_again(shop, "fresh")
    with shop.app.app_context():
        assert shop.parts.desk.gateways.of("fresh")["alipay"].account != before


def test_a_first_look_at_a_stored_merchant_needs_no_connection_beside_the_threads_own(
    shop: Shop,
) -> None:
    parts = build_parts(shop.kit.settings)
    app = create_app(parts=parts)
    with app.app_context():
        pool = db.engine.pool
        assert isinstance(pool, QueuePool)
        threads = pool.size() + pool._max_overflow
    all_hold_one = threading.Barrier(threads)

    def look() -> set[str]:
        with app.app_context():
            db.session.connection()
            all_hold_one.wait(60)
            found = set(parts.desk.gateways.of("garden"))
            db.session.remove()
            return found

    with ThreadPoolExecutor(threads) as executor:
        looking = [executor.submit(look) for _ in range(threads)]
        assert [one.result(60) for one in looking] == [{"wechatpay", "alipay"}] * threads
    with app.app_context():
        db.engine.dispose()
    parts.close()


@pytest.mark.parametrize(
    ("channel", "other", "now", "changes"),
    [
        ("alipay", "wechatpay", "spare", ""),
        ("wechatpay", "alipay", "press", "WECHATPAY_APPID=wx0000000000000000"),
    ],
)
def test_an_open_payment_is_never_asked_after_at_an_account_that_took_its_merchants_name(
    shop: Shop, channel: str, other: str, now: str, changes: str
) -> None:
    buyer = shop.buyer()
    code = placed(buyer, LAMP, channel=channel)
    number = shop.number(code)
    shop.kit.sandbox.pay(number, notice=False)
    shop.give_file("press", now, changes)
    _look_again(shop)
    before = books(shop.kit.database_url)
    key = {**JSON, "Idempotency-Key": uuid.uuid4().hex}
    for answer in (
        post(buyer, f"/orders/{code}/pay", key, channel=other),
        post(buyer, f"/orders/{code}/cancel", JSON),
    ):
        assert (answer.status_code, answer.get_json()["code"]) == (503, "merchant-moved")
    page = buyer.get(f"/orders/{code}/pay", headers=ENGLISH)
    assert page.status_code == 503
    assert "account was changed while this payment was open" in page.text
    asked = shop.app.test_cli_runner().invoke(args=["gateways", "query", number])
    assert (asked.exit_code, "under a new name" in asked.output) == (1, True), asked.output
    trade = shop.kit.sandbox.get(f"/admin/trades/{number}")
    if channel == "alipay":
        # What the new account says of this number is not about this payment.
        call = shop.callbacks(now).alipay(number, f"{trade['amount_fen'] / 100:.2f}")
        assert shop.send(call, "press").data != b"success"
        [kept] = notices_in(shop.kit.database_url, number)
        assert kept["outcome"] == "wrong_merchant"
    assert books(shop.kit.database_url) == before
    with shop.app.app_context(), shop.clock.later(EXPIRY_S + 60):
        done = shop.parts.sweeper.run_once()
    assert done.errors == 1
    assert shop.order(code)[0] == "paying"
    assert len(shop.kit.sandbox.charges(code)) == 1
    shop.give_file("press", "press")
    _look_again(shop)
    with shop.app.app_context(), shop.clock.later(EXPIRY_S + 3_600):
        shop.parts.sweeper.run_once()
    assert shop.order(code)[0] == "paid"


@pytest.mark.parametrize(
    ("account", "changes", "status"),
    [("spare", "", 503), ("press", "ALIPAY_PRODUCTS=page", 422)],
    ids=["another account", "another product"],
)
def test_an_account_that_is_changed_while_a_payment_begins_is_asked_for_nothing(
    shop: Shop, account: str, changes: str, status: int
) -> None:
    class Changing(Moves):
        """In the moment in which a payment begins, its merchant's file is replaced."""

        def move_order(self, order: Order, event: str, *rest: Any, **more: Any) -> None:
            super().move_order(order, event, *rest, **more)
            if event == "begin_payment" and changed:
                shop.give_file("press", *changed.pop())
                _look_again(shop)

    changed = [(account, changes)]
    gateways = shop.parts.desk.gateways
    parts = build_parts(shop.kit.settings, gateways=gateways, moves=Changing(shop.clock))
    app = create_app(parts=parts)
    buyer = app.test_client()
    sign_in(buyer, "alice")
    refused = place(buyer, LAMP, channel="alipay")
    assert refused.status_code == status, refused.text
    with app.app_context():
        [code] = db.session.scalars(select(Order.code))
        [attempt] = db.session.scalars(select(PaymentAttempt))
        assert (attempt.state, attempt.ticket) == ("failed", None)
        db.session.remove()
    # Nothing was sent, so that it can be paid anew, at the account of now.
    key = {**JSON, "Idempotency-Key": uuid.uuid4().hex}
    assert post(buyer, f"/orders/{code}/pay", key, channel="alipay").status_code == 200
    assert shop.order(code)[0] == "paying"
    with app.app_context():
        db.engine.dispose()
    parts.close()


def test_the_pay_page_of_a_paid_order_is_shown_though_its_merchant_is_gone(shop: Shop) -> None:
    buyer = shop.buyer()
    code = placed(buyer, LAMP, channel="wechatpay")
    shop.kit.sandbox.pay(shop.number(code), notice=False)
    with shop.app.app_context(), shop.clock.later(60):
        shop.parts.sweeper.run_once()
    assert shop.order(code)[0] == "paid"
    (shop.folder / "press.env").unlink()
    _look_again(shop)
    for page in (f"/orders/{code}/pay", f"/orders/{code}", f"/orders/{code}/status"):
        assert buyer.get(page, headers=ENGLISH).status_code == 200


def test_a_gateway_where_the_merchant_has_no_account_is_not_offered(shop: Shop) -> None:
    (shop.folder / "press.env").write_text(
        "".join(
            line
            for line in Path(shop.env_file("press")).read_text().splitlines(keepends=True)
            if line.startswith("ALIPAY_")
        )
    )
    _look_again(shop)
    buyer = shop.buyer()
    code = placed(buyer, LAMP)
    page = buyer.get(f"/orders/{code}", headers=ENGLISH)
    assert 'value="alipay"' in page.text
    assert 'value="wechatpay"' not in page.text
    key = {**JSON, "Idempotency-Key": uuid.uuid4().hex}
    refused = post(buyer, f"/orders/{code}/pay", key, channel="wechatpay")
    assert (refused.status_code, refused.get_json()["code"]) == (422, "wrong-channel")


def test_a_start_tells_of_merchants_that_nobody_knows_and_of_an_address_that_gets_no_notices(
    shop: Shop,
) -> None:
    def told(**changes: object) -> list[tuple[str, str | None]]:
        settings = replace(shop.kit.settings, **changes)  # type: ignore[arg-type]
        with shop.app.app_context(), capture_logs() as logs:
            tell_at_start(settings)
        return [(one["event"], one.get("merchant")) for one in logs]

    public = "https://shop.example"
    real = replace(shop.kit.settings.alipay, base_url="https://openapi.alipay.com/gateway.do")
    assert told(public_url=public, alipay=real) == []
    assert told(public_url=public, merchant_default="pres") == [("merchant_does_not_exist", "pres")]
    for address in (
        "http://shop.example",
        "https://127.0.0.1",
        "https://[::1]:8",
        "https://localhost",
    ):
        assert told(public_url=address, alipay=real) == [("no_notices_will_come", None)]
        # The sandbox, which runs at such an address itself, sends notices to any.
        assert told(public_url=address) == []


def test_an_account_that_cannot_be_opened_is_told_and_everything_else_goes_on(shop: Shop) -> None:
    kept = shop.kit.extra_env.pop("CREDENTIALS_KEY")
    try:
        parts = build_parts(shop.kit.settings)
        app = create_app(parts=parts)
        checked = app.test_cli_runner().invoke(args=["merchants", "check"])
    finally:
        shop.kit.extra_env["CREDENTIALS_KEY"] = kept
    assert checked.exit_code == 1
    lines = {line.split()[0]: line for line in checked.output.splitlines()}
    assert "CREDENTIALS_KEY is not set" in lines["garden"]
    assert lines["press"].endswith("ok")
    buyer = app.test_client()
    sign_in(buyer, "alice")
    refused = place(buyer, TEA, channel="wechatpay")
    assert (refused.status_code, refused.get_json()["code"]) == (503, "merchant-unusable")
    assert placed(buyer, COFFEE, channel="wechatpay")
    # Its notices come again later: they are not refused for good.
    call = shop.callbacks("garden").wechatpay("T01", 100)
    assert app.test_client().post(call.url, data=call.body).status_code == 500
    with app.app_context():
        db.engine.dispose()
    parts.close()


def test_an_operator_stores_shows_checks_and_forgets_a_merchant(shop: Shop) -> None:
    listed = shop.run("list")
    assert listed.exit_code == 0
    found = [line.split()[:3] for line in listed.output.splitlines()[1:]]
    assert found == [
        ["default", "environment", "(all"],
        ["garden", "database", "tea"],
        ["press", "file", "devices"],
    ]
    shown = shop.run("show", "garden")
    assert "PUB_KEY_ID_" in shown.output
    assert "PRIVATE" not in shown.output
    checked = shop.run("check")
    assert checked.exit_code == 0, checked.output
    assert checked.output.count("ok") == 6
    again = shop.run("add", "garden", "--env-file", shop.env_file("garden"))
    assert (again.exit_code, "--replace" in again.output) == (1, True)
    assert shop.run("add", "spare", "--env-file", shop.env_file("spare")).exit_code == 0
    assert "Aborted" in shop.run("remove", "spare", answer="n\n").output
    assert shop.run("remove", "spare", "--yes").exit_code == 0
    for arguments, said in (
        (["show", "nobody"], "There is no merchant 'nobody'"),
        (["remove", "nobody", "--yes"], "no stored merchant nobody"),
        (["remove", "garden", "--yes"], "MERCHANT_LINES"),
        (["add", "Default", "--env-file", shop.env_file("spare")], "small letters"),
        (["add", "press", "--env-file", shop.env_file("press")], "has a file"),
        (["add", "new", "--env-file", "/nowhere"], "cannot be read"),
    ):
        refused = shop.run(*arguments)
        assert (refused.exit_code, said in refused.output) == (1, True), refused.output


def test_a_merchant_with_payments_under_way_is_not_forgotten(shop: Shop) -> None:
    code = placed(shop.buyer(), TEA, channel="wechatpay")
    shop.kit.extra_env["MERCHANT_LINES"] = ""
    app = create_app(parts=build_parts(shop.kit.settings))
    refused = app.test_cli_runner().invoke(args=["merchants", "remove", "garden", "--yes"])
    assert refused.exit_code == 1
    assert f"payments under way: {shop.number(code)}; orders to be paid: {code}" in refused.output
    with shop.app.app_context(), shop.clock.later(EXPIRY_S + 60):
        shop.parts.sweeper.run_once()
    assert shop.order(code)[0] == "closed"
    assert shop.run("list").output.count("garden") == 1
    done = app.test_cli_runner().invoke(args=["merchants", "remove", "garden", "--yes"])
    assert done.exit_code == 0, done.output
    with app.app_context():
        db.engine.dispose()


def test_stored_accounts_are_sealed_anew_and_what_was_altered_is_told(shop: Shop) -> None:
    new = Fernet.generate_key().decode()
    shop.kit.extra_env["CREDENTIALS_KEY"] = f"{new},{KEY}"
    app = create_app(parts=build_parts(shop.kit.settings))
    assert app.test_cli_runner().invoke(args=["merchants", "reencrypt"]).exit_code == 0
    shop.kit.extra_env["CREDENTIALS_KEY"] = new
    app = create_app(parts=build_parts(shop.kit.settings))
    checked = app.test_cli_runner().invoke(args=["merchants", "check", "garden"])
    assert checked.exit_code == 0, checked.output
    with app.app_context():
        sealed = db.session.scalars(select(MerchantAccount.sealed)).one()
        assert "PRIVATE" not in sealed
        altered = sealed[:40] + ("A" if sealed[40] != "A" else "B") + sealed[41:]
        change = update(MerchantAccount).values(sealed=altered)
        transaction(lambda: changed_rows(change))
    checked = app.test_cli_runner().invoke(args=["merchants", "check", "garden"])
    assert checked.exit_code == 1
    assert "do not open with CREDENTIALS_KEY" in checked.output
    with app.app_context():
        db.engine.dispose()


def test_every_process_takes_new_keys_without_a_restart(shop: Shop) -> None:
    urls = shop.kit.webs(2)
    old, new, garden = (shop.callbacks(name) for name in ("press", "spare", "garden"))

    def judged(url: str, callbacks: Callbacks, merchant: str) -> str:
        call = callbacks.wechatpay("T01", 100)
        there = Call(
            url=f"{url}/webhooks/wechatpay/{merchant}", headers=call.headers, body=call.body
        )
        return str(there.send().json["message"])

    assert [judged(url, old, "press") for url in urls] == ["contradicts our books"] * 2

    def is_believed(url: str, callbacks: Callbacks, merchant: str) -> bool:
        return judged(url, callbacks, merchant) == "contradicts our books"

    stored = shop.run("add", "garden", "--replace", "--env-file", shop.env_file("spare"))
    assert stored.exit_code == 0, stored.output
    shop.give_file("press", "spare")
    for url in urls:
        for merchant in ("press", "garden"):
            wait_until(partial(is_believed, url, new, merchant), "the new keys in use")
        assert judged(url, old, "press") in {"bad_signature", "unknown_serial"}
    # Keys that cannot be used change nothing.
    (shop.folder / "press.env").write_text("WECHATPAY_MCHID=1\n")
    shop.run("add", "garden", "--replace", "--env-file", shop.env_file("garden"))
    for url in urls:
        wait_until(partial(is_believed, url, garden, "garden"), "the keys before in use again")
        assert judged(url, new, "press") == "contradicts our books"


def _look_again(shop: Shop, name: str = "press") -> None:
    """Have this process look at a merchant's credentials now rather than within a second."""
    entry = shop.parts.desk.gateways._entries.get(name)  # type: ignore[attr-defined]
    if entry is not None:
        entry.look_at = 0.0
