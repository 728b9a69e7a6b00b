"""T7 and T9: each outcome that a gateway tells of is applied once, whenever and however often.

Callbacks come from the sandbox where it can send them, and else are signed with its keys.
"""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from locks import hold
from shop.points import ledger
from tests.books import books, notices_in
from tests.faults.conftest import KitMaker, shop_on
from tests.faults.notices import Callbacks, is_acknowledged, trade_at
from tests.faults.storm import Member, Storm
from tests.processes import wait_until
from tests.services import PostgresServer
from tests.shopclient import Answer, Call
from tests.shopkit import Sandbox, ShopKit

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("third_party")]

# The sweeper shall not ask the gateways here: what is paid is paid by a notice.
NEVER_MS = "600000"


@pytest.fixture(scope="module")
def storm(
    request: pytest.FixtureRequest,
    sandbox_server: Sandbox,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Storm]:
    """One shop of one process for the tests of this file."""
    with shop_on(
        "sqlite-files",
        sandbox=sandbox_server,
        folder=tmp_path_factory.mktemp("shop"),
        request=request,
        env={"SWEEP_FIRST_MS": NEVER_MS, "WEBHOOK_LOCK_WAIT_MS": "100"},
    ) as kit:
        yield Storm(kit=kit, urls=kit.webs(1))


@pytest.fixture(scope="module")
def member(storm: Storm) -> Member:
    return storm.member()


def open_payment(member: Member, channel: str) -> tuple[str, str]:
    """An order that waits to be paid on a channel: its code and the payment's number."""
    code = member.order()
    answer = member.client.pay(code, channel, key=uuid.uuid4().hex).send()
    assert answer.status == 200, answer
    return code, answer.json["out_trade_no"]


def change_channel(member: Member, code: str, channel: str) -> str:
    answer = member.client.pay(code, channel, key=uuid.uuid4().hex).send()
    assert answer.status == 200, answer
    return str(answer.json["out_trade_no"])


def success(storm: Storm, channel: str, number: str) -> Call:
    """The notice of a payment that the sandbox took but did not tell of."""
    transaction_id = trade_at(storm.kit.sandbox, number)["transaction_id"]
    callbacks = Callbacks(storm.kit.sandbox, storm.kit.url)
    if channel == "wechatpay":
        return callbacks.wechatpay(number, 900, transaction_id=transaction_id)
    return callbacks.alipay(number, "9.00", trade_no=transaction_id)


def assert_acknowledged(channel: str, answer: Answer) -> None:
    assert is_acknowledged(channel, answer.status, answer.body), answer


def outcomes(kit: ShopKit, number: str) -> list[tuple[str, str | None, int]]:
    """State, outcome and count of every stored notice about a payment."""
    return [
        (notice["state"], notice["outcome"], notice["received_count"])
        for notice in notices_in(kit.database_url, number)
    ]


def role_of(kit: ShopKit, number: str) -> str:
    attempts = books(kit.database_url)["payment_attempts"]
    [role] = [one["role"] for one in attempts if one["out_trade_no"] == number]
    return str(role)


@contextmanager
def balance_grows(storm: Storm, account: str, by: int) -> Iterator[None]:
    """What happens inside books this much on an account."""
    with storm.parts():
        before = ledger.balance(account)
    yield
    with storm.parts():
        assert ledger.balance(account) - before == by


@pytest.mark.parametrize("channel", ["wechatpay", "alipay"])
def test_a_notice_pays_the_order_once_however_often_it_comes(
    storm: Storm, member: Member, channel: str
) -> None:
    code, number = open_payment(member, channel)
    storm.kit.sandbox.pay(number, notice=False)
    notice = success(storm, channel, number)
    assert_acknowledged(channel, notice.send())
    assert member.state_of(code) == "paid"

    before = books(storm.kit.database_url)
    assert_acknowledged(channel, notice.send())
    again = success(storm, channel, number)  # the same money under another notice id
    assert_acknowledged(channel, again.send())
    assert books(storm.kit.database_url) == before
    assert outcomes(storm.kit, number) == [
        ("applied", "settled", 2),
        ("applied", "already_applied", 1),
    ]
    assert storm.kit.broken() == []


def test_the_sandbox_takes_our_answers_for_acknowledgements(storm: Storm, member: Member) -> None:
    for channel in ("wechatpay", "alipay"):
        code, number = open_payment(member, channel)
        storm.kit.sandbox.pay(number)
        member.wait_until_order_is(code, "paid")
        sandbox = storm.kit.sandbox

        def is_delivered(number: str = number, sandbox: Sandbox = sandbox) -> bool:
            [notice] = trade_at(sandbox, number)["notices"]
            return [one["result"] for one in notice["deliveries"]] == ["acknowledged"]

        wait_until(is_delivered, f"the {channel} notice is acknowledged at its first delivery")
    assert storm.kit.broken() == []


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_notice_is_believed_for_its_signature_and_not_for_its_content_type(
    storm: Storm, member: Member, content_type: str
) -> None:
    code, number = open_payment(member, "wechatpay")
    storm.kit.sandbox.pay(number, notice=False)
    notice = success(storm, "wechatpay", number)
    odd = replace(notice, headers={**notice.headers, "Content-Type": content_type})
    assert_acknowledged("wechatpay", odd.send())
    assert member.state_of(code) == "paid"
    assert storm.kit.broken() == []


def test_a_payment_of_the_other_channel_too_is_booked_as_surplus(
    storm: Storm, member: Member
) -> None:
    # An Alipay code that nobody scanned cannot be closed; it can still be paid afterwards.
    code, alipay_no = open_payment(member, "alipay")
    wechatpay_no = change_channel(member, code, "wechatpay")
    storm.kit.sandbox.pay(wechatpay_no)
    member.wait_until_order_is(code, "paid")
    spent = member.points_gone()

    with (
        balance_grows(storm, ledger.CASH_SURPLUS, -900),
        balance_grows(storm, ledger.gateway_account("alipay"), 900),
    ):
        storm.kit.sandbox.pay(alipay_no)
        wait_until(
            lambda: outcomes(storm.kit, alipay_no) == [("applied", "surplus", 1)],
            "the second payment is booked",
        )
    assert len(storm.kit.sandbox.charges(code)) == 2
    assert member.state_of(code) == "paid"
    assert role_of(storm.kit, wechatpay_no) == "settling"
    assert role_of(storm.kit, alipay_no) == "surplus"
    assert member.points_gone() == spent
    assert storm.kit.broken() == []


def test_a_payment_of_a_closed_order_is_booked_as_surplus(storm: Storm, member: Member) -> None:
    points_before = member.points_gone()
    code, number = open_payment(member, "alipay")
    answer = member.client.post(f"/orders/{code}/cancel")
    assert (answer.status, answer.json["order_state"]) == (200, "closed")

    with balance_grows(storm, ledger.CASH_SURPLUS, -900):
        storm.kit.sandbox.pay(number)
        wait_until(
            lambda: outcomes(storm.kit, number) == [("applied", "surplus", 1)],
            "the late payment is booked",
        )
    assert member.state_of(code) == "closed"
    assert role_of(storm.kit, number) == "surplus"
    assert member.points_gone() == points_before
    assert storm.kit.broken() == []


def test_a_notice_during_anothers_lease_is_acknowledged_and_applied_by_the_sweeper(
    storm: Storm, member: Member
) -> None:
    code, number = open_payment(member, "wechatpay")
    storm.kit.sandbox.pay(number, notice=False)
    notice = success(storm, "wechatpay", number)
    with storm.parts() as parts:
        with hold(parts.lock, code, lease_ms=60_000, wait_ms=5_000):
            assert_acknowledged("wechatpay", notice.send())
            assert outcomes(storm.kit, number) == [("verified", None, 1)]
            assert member.state_of(code) == "paying"

        def is_swept() -> bool:
            parts.sweeper.run_once()
            return outcomes(storm.kit, number) == [("applied", "settled", 1)]

        wait_until(is_swept, "the sweeper applies the stored notice")
    assert member.state_of(code) == "paid"
    assert storm.kit.broken() == []


def test_a_notice_that_tells_of_no_money_moves_nothing(storm: Storm, member: Member) -> None:
    code, number = open_payment(member, "alipay")
    before = books(storm.kit.database_url)["orders"]
    callbacks = Callbacks(storm.kit.sandbox, storm.kit.url)
    assert_acknowledged(
        "alipay", callbacks.alipay(number, "9.00", trade_status="WAIT_BUYER_PAY").send()
    )
    assert books(storm.kit.database_url)["orders"] == before
    assert outcomes(storm.kit, number) == [("applied", "noted WAIT_BUYER_PAY", 1)]
    assert member.state_of(code) == "paying"
    assert storm.kit.broken() == []


def refund_notice(storm: Storm, channel: str, number: str, status: str) -> Call:
    """A gateway's word of a refund of a payment of 9 yuan."""
    callbacks = Callbacks(storm.kit.sandbox, storm.kit.url)
    if channel == "wechatpay":
        return callbacks.wechatpay_refund(number, 900, status)
    return callbacks.alipay(
        number,
        "9.00",
        trade_status=status,
        refund_fee="9.00",
        gmt_refund="2026-01-01 13:00:00.320",
        out_biz_no=f"RF{number}",
    )


@pytest.mark.parametrize(
    ("channel", "statuses"),
    [
        ("wechatpay", ("SUCCESS", "ABNORMAL", "CLOSED")),
        ("alipay", ("TRADE_SUCCESS", "TRADE_CLOSED")),
    ],
)
def test_a_notice_of_a_refund_is_kept_and_acknowledged_and_is_no_payment(
    storm: Storm, member: Member, channel: str, statuses: tuple[str, ...]
) -> None:
    code, number = open_payment(member, channel)
    notices = [refund_notice(storm, channel, number, status) for status in statuses]
    kept = [("applied", f"noted {status}", 1) for status in statuses]
    before = books(storm.kit.database_url)["orders"]
    for notice in notices:
        assert_acknowledged(channel, notice.send())
    assert books(storm.kit.database_url)["orders"] == before
    assert outcomes(storm.kit, number) == kept
    assert member.state_of(code) == "paying"

    storm.kit.sandbox.pay(number, notice=False)
    assert_acknowledged(channel, success(storm, channel, number).send())
    assert member.state_of(code) == "paid"
    settled = books(storm.kit.database_url)
    for notice in notices:
        assert_acknowledged(channel, notice.send())
    assert books(storm.kit.database_url) == settled
    assert storm.kit.broken() == []


def test_a_notice_is_refused_while_the_database_is_away_and_applied_when_sent_again(
    sandbox_server: Sandbox, make_kit: KitMaker
) -> None:
    kit = make_kit("sqlite-files", SWEEP_FIRST_MS=NEVER_MS)
    with PostgresServer() as server, server.fresh_database() as database_url:
        kit.database_url = database_url
        kit.migrate()
        storm = Storm(kit=kit, urls=kit.webs(1))
        member = storm.member()
        code, number = open_payment(member, "wechatpay")

        server.process.kill9()
        sandbox_server.pay(number)

        def answers(result: str) -> list[str]:
            [notice] = trade_at(sandbox_server, number)["notices"]
            return [one["detail"] for one in notice["deliveries"] if one["result"] == result]

        wait_until(lambda: bool(answers("refused")), "a delivery is refused")
        assert json.loads(answers("refused")[0])["code"] == "FAIL"
        server.start()
        wait_until(lambda: bool(answers("acknowledged")), "the gateway sends it again")
        assert outcomes(kit, number)[0][:2] == ("applied", "settled")
        assert member.state_of(code) == "paid"
        assert kit.broken() == []
        kit.stop()
