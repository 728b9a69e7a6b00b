"""T1 and T3: 64 requests for one order at the same instant, over four server processes.

On every pair of database and lock service that the shop is promised to run on, and once more on
each database with a lock that always says yes: then L1 to L3 stand alone.
"""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
from flask import Flask
from sqlalchemy import select

from shop.db import db
from shop.orders.models import Order
from shop.payments.models import PaymentAttempt
from shop.webhooks.models import StoredNotice
from tests.faults.conftest import STACKS, shop_on
from tests.faults.notices import Callbacks, is_acknowledged, trade_at
from tests.faults.storm import (
    LOST_RACE,
    PROCESSES,
    RACERS,
    YES_LOCK,
    Member,
    Storm,
    assert_all_clear,
)
from tests.processes import wait_until
from tests.shopclient import Answer, Call, all_at_once, at_once
from tests.shopkit import Sandbox

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("third_party")]

SHOPS = [
    *(pytest.param((stack, False), id=stack) for stack in STACKS),
    *(
        pytest.param((stack, True), id=f"{stack.partition('-')[0]}-lock-says-yes")
        for stack in ("sqlite-files", "postgresql-redis", "mariadb-redis")
    ),
]

# What one may be told besides who changes the channel while others do.
BUSY_CHANGING = frozenset({"gateway-unsure", "too-many-attempts"})


@pytest.fixture(scope="module", params=SHOPS)
def storm(
    request: pytest.FixtureRequest,
    sandbox_server: Sandbox,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Storm]:
    """One shop of four processes for all tests of this file, on each of `SHOPS`."""
    stack, says_yes = request.param
    with shop_on(
        stack,
        sandbox=sandbox_server,
        folder=tmp_path_factory.mktemp(stack),
        request=request,
        env={"SWEEP_FIRST_MS": "100"},
    ) as kit:
        urls = kit.webs(PROCESSES, module=YES_LOCK if says_yes else "wsgi:app")
        yield Storm(kit=kit, urls=urls, says_yes=says_yes)


@pytest.fixture(scope="module")
def member(storm: Storm) -> Member:
    """Who storms the shop."""
    return storm.member()


def attempts_of(storm: Storm, order_code: str) -> list[PaymentAttempt]:
    with storm.parts():
        return list(
            db.session.scalars(
                select(PaymentAttempt).where(PaymentAttempt.order_code == order_code)
            )
        )


def assert_one_charge(storm: Storm, order_code: str, number: str) -> None:
    charges = storm.kit.sandbox.charges(order_code)
    assert [(charge["out_trade_no"], charge["amount_fen"]) for charge in charges] == [(number, 900)]


def notices_of(storm: Storm, number: str, count: int) -> list[Call]:
    """One notice of a payment that the sandbox did not tell of, so often, to all processes."""
    trade = trade_at(storm.kit.sandbox, number)
    notice = Callbacks(storm.kit.sandbox, storm.kit.url).wechatpay(
        number, trade["amount_fen"], transaction_id=trade["transaction_id"]
    )
    return [replace(notice, url=f"{storm.url(one)}/webhooks/wechatpay") for one in range(count)]


def is_taken(answer: Answer) -> bool:
    return is_acknowledged("wechatpay", answer.status, answer.body)


def sweep(app: Flask) -> None:
    with app.app_context():
        app.extensions["payonce"].sweeper.run_once()


def test_64_pays_with_keys_of_their_own_make_one_attempt_and_one_charge(
    storm: Storm, member: Member
) -> None:
    code = member.order()
    answers = at_once(
        [
            member.client.pay(code, "wechatpay", key=uuid.uuid4().hex, url=storm.url(racer))
            for racer in range(RACERS)
        ]
    )
    [attempt] = attempts_of(storm, code)
    assert attempt.state == "pending"
    assert_all_clear(answers, number=attempt.out_trade_no)

    number = member.pay_at_phone(code)
    member.wait_until_order_is(code, "paid")
    assert number == attempt.out_trade_no
    assert_one_charge(storm, code, number)
    assert len(attempts_of(storm, code)) == 1
    assert storm.kit.broken() == []


def test_64_pays_with_one_key_have_one_effect_and_one_answer(storm: Storm, member: Member) -> None:
    code, key = member.order(), uuid.uuid4().hex
    answers = at_once(
        [
            member.client.pay(code, "alipay", key=key, url=storm.url(racer))
            for racer in range(RACERS)
        ]
    )
    [attempt] = attempts_of(storm, code)
    told = [answer for answer in answers if answer.status == 200]
    assert told, answers
    assert len({answer.body for answer in told}) == 1
    first = [answer for answer in told if "idempotent-replayed" not in answer.headers]
    assert len(first) == 1
    for answer in answers:
        assert answer.status == 200 or answer.code == "payment-in-progress", answer

    again = member.client.pay(code, "alipay", key=key, url=storm.url(1)).send()
    assert (again.status, again.body) == (200, first[0].body)
    assert again.headers["idempotent-replayed"] == "true"

    number = member.pay_at_phone(code)
    member.wait_until_order_is(code, "paid")
    assert number == attempt.out_trade_no
    assert_one_charge(storm, code, number)
    assert storm.kit.broken() == []


def test_64_pays_by_points_alone_take_the_points_once(storm: Storm, member: Member) -> None:
    before = member.points_gone()
    code = member.order(points=700, amount_fen=0)
    answers = at_once(
        [
            member.client.pay(code, "points", key=uuid.uuid4().hex, url=storm.url(racer))
            for racer in range(RACERS)
        ]
    )
    [attempt] = attempts_of(storm, code)
    assert_all_clear(answers, number=attempt.out_trade_no, codes=LOST_RACE | {"order-already-paid"})
    assert sum(answer.status == 200 for answer in answers) == 1
    assert member.state_of(code) == "paid"
    assert member.points_gone() - before == 700
    assert storm.kit.broken() == []


def test_64_pays_on_two_channels_leave_one_way_to_pay(storm: Storm, member: Member) -> None:
    """Each change of channel closes the other's payment first; what is paid at the end is paid."""
    code = member.order()
    answers = at_once(
        [
            member.client.pay(
                code,
                ("wechatpay", "alipay")[racer // PROCESSES % 2],
                key=uuid.uuid4().hex,
                url=storm.url(racer),
            )
            for racer in range(RACERS)
        ]
    )
    for answer in answers:
        assert answer.status == 200 or answer.code in LOST_RACE | BUSY_CHANGING, answer
    open_ones = [one for one in attempts_of(storm, code) if one.open_key is not None]
    assert len(open_ones) <= 1
    assert storm.kit.broken() == []

    with storm.app() as app:

        def is_payable() -> bool:
            sweep(app)
            return member.client.status(code)["attempt_state"] == "pending" or (
                member.client.pay(code, "wechatpay", key=uuid.uuid4().hex).send().status == 200
            )

        wait_until(is_payable, "the order can be paid")
    number = member.pay_at_phone(code)
    member.wait_until_order_is(code, "paid")
    assert_one_charge(storm, code, number)
    assert storm.kit.broken() == []


def test_64_submits_of_one_order_form_place_one_order(storm: Storm, member: Member) -> None:
    token = uuid.uuid4().hex
    form = {"item": f"{member.product_id}:1", "points": "100", "submit_token": token}
    answers = at_once(
        [member.client.call("/orders", form, url=storm.url(racer)) for racer in range(RACERS)]
    )
    with storm.parts():
        placed = list(db.session.scalars(select(Order.code).where(Order.submit_token == token)))
    assert len(placed) == 1
    for answer in answers:
        assert answer.status == 201, answer
        assert answer.json["order_code"] == placed[0]
    assert storm.kit.broken() == []


def test_64_deliveries_of_one_notice_pay_the_order_once(storm: Storm, member: Member) -> None:
    code = member.order()
    assert member.client.pay(code, "wechatpay", key=uuid.uuid4().hex).send().status == 200
    number = member.pay_at_phone(code, notice=False)
    answers = at_once(notices_of(storm, number, RACERS))

    assert all(is_taken(answer) for answer in answers), answers
    with storm.parts():
        stored = list(
            db.session.scalars(select(StoredNotice).where(StoredNotice.out_trade_no == number))
        )
    assert [(notice.received_count, notice.outcome) for notice in stored] == [(RACERS, "settled")]
    member.wait_until_order_is(code, "paid")
    assert_one_charge(storm, code, number)
    assert storm.kit.broken() == []


def test_notices_and_sweepers_at_once_pay_the_order_once(storm: Storm, member: Member) -> None:
    code = member.order()
    assert member.client.pay(code, "wechatpay", key=uuid.uuid4().hex).send().status == 200
    number = member.pay_at_phone(code, notice=False)
    deliveries = [call.send for call in notices_of(storm, number, 16)]
    with storm.app() as app:
        found = all_at_once([*deliveries, *[partial(sweep, app)] * 4])
    answers = [answer for answer in found if isinstance(answer, Answer)]
    assert all(is_taken(answer) for answer in answers), answers
    member.wait_until_order_is(code, "paid")
    assert_one_charge(storm, code, number)
    assert storm.kit.broken() == []
