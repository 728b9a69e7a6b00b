"""T4: a holder that is stopped past its lease, and then goes on, changes nothing.

On all three lock services. The frozen process is a real one under SIGSTOP; another takes over when
the lease has run out and brings the order to its end; what the first does after SIGCONT leaves
every row of the books as the second left it.
"""

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from shop.errors import PaymentRefused
from tests.faults.conftest import shop_on
from tests.faults.frozen import Pair, pair_of, pay_refused_by_gateway
from tests.faults.notices import trade_at
from tests.processes import wait_until
from tests.shopkit import Sandbox

pytestmark = pytest.mark.faults

STACKS = ("sqlite-files", "postgresql-redis", "postgresql-zookeeper")
LEASE_MS = "1500"
# Far longer than the lease, so that the second process waits until it has run out.
WAIT_MS = "30000"


@pytest.fixture(scope="module", params=STACKS)
def pair(
    request: pytest.FixtureRequest,
    sandbox_server: Sandbox,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("shop")
    with shop_on(
        request.param,
        sandbox=sandbox_server,
        folder=folder,
        request=request,
        env={"LOCK_LEASE_MS": LEASE_MS, "LOCK_WAIT_MS": WAIT_MS, "WEBHOOK_LOCK_WAIT_MS": "4000"},
    ) as kit:
        if request.param.endswith("zookeeper"):
            # There the lease is the session.
            kit.lock_url += f"?session_ms={LEASE_MS}"
        yield pair_of(kit, folder)


def test_a_prepay_answer_is_not_stored_after_the_order_was_cancelled(pair: Pair) -> None:
    code = pair.member.order()
    with pair.frozen_at("after_prepay", lambda url: pair.pay(code, "wechatpay", url)) as late:
        cancelled = pair.member.client.post(f"/orders/{code}/cancel")
        assert (cancelled.status, cancelled.json["order_state"]) == (200, "closed")
        left = pair.books()
    assert late.result().code == "superseded", late.result()
    assert pair.books() == left
    assert pair.storm.kit.sandbox.charges(code) == []
    assert pair.storm.kit.broken() == []


def test_a_prepay_answer_is_not_stored_after_another_channel_was_paid(pair: Pair) -> None:
    code = pair.member.order()
    with pair.frozen_at("after_prepay", lambda url: pair.pay(code, "wechatpay", url)) as late:
        assert pair.pay(code, "alipay").status == 200
        number = pair.member.pay_at_phone(code)
        pair.member.wait_until_order_is(code, "paid")
        left = pair.books()
    assert late.result().code == "superseded", late.result()
    assert pair.books() == left
    assert [one["out_trade_no"] for one in pair.storm.kit.sandbox.charges(code)] == [number]
    assert pair.storm.kit.broken() == []


def test_a_payment_read_as_unpaid_is_not_closed_after_it_was_paid(pair: Pair) -> None:
    code = pair.member.order()
    number = pair.pay(code, "wechatpay").json["out_trade_no"]
    with pair.frozen_at("after_query", lambda url: pair.pay(code, "alipay", url)) as late:
        pair.storm.kit.sandbox.pay(number)
        pair.member.wait_until_order_is(code, "paid")
        left = pair.books()
    assert late.result().code == "superseded", late.result()
    assert pair.books() == left
    assert trade_at(pair.storm.kit.sandbox, number)["state"] == "paid"
    assert len(pair.storm.kit.sandbox.charges(code)) == 1
    assert pair.storm.kit.broken() == []


def test_a_holder_frozen_before_its_first_read_is_refused_by_its_fence(pair: Pair) -> None:
    """The order may be paid again, so that its state (L1) would let the late holder in."""
    code = pair.member.order()
    with pair.frozen_at("leased", lambda url: pair.pay(code, "wechatpay", url)) as late:
        with pytest.raises(PaymentRefused):
            pay_refused_by_gateway(pair.storm.kit, pair.member.id, code)
        assert pair.member.state_of(code) == "failed"
        left = pair.books()
    assert late.result().code == "superseded", late.result()
    assert pair.books() == left
    assert pair.storm.kit.broken() == []

    assert pair.pay(code, "wechatpay").status == 200
    number = pair.member.pay_at_phone(code)
    pair.member.wait_until_order_is(code, "paid")
    assert [one["out_trade_no"] for one in pair.storm.kit.sandbox.charges(code)] == [number]
    assert pair.storm.kit.broken() == []


# Not on SQLite, where a frozen writer keeps every other writer out until it goes on.
@pytest.mark.parametrize("pair", STACKS[1:], indirect=True)
def test_a_holder_frozen_between_reading_and_writing_writes_nothing(pair: Pair) -> None:
    code = pair.member.order()
    with pair.frozen_at("begin", lambda url: pair.pay(code, "wechatpay", url)) as late:
        assert pair.pay(code, "alipay").status == 200
        number = pair.member.pay_at_phone(code)
        pair.member.wait_until_order_is(code, "paid")
        left = pair.books()
    assert late.result().code == "superseded", late.result()
    assert pair.books() == left
    assert [one["out_trade_no"] for one in pair.storm.kit.sandbox.charges(code)] == [number]
    assert pair.storm.kit.broken() == []


# That MariaDB is told the same is seen in tests/integration/test_database_bounds.py.
@pytest.mark.parametrize("pair", ["postgresql-redis"], indirect=True)
def test_a_holder_frozen_with_a_row_locked_loses_its_session_and_the_order_can_be_paid(
    pair: Pair,
) -> None:
    code = pair.member.order()
    with pair.frozen_at("begun", lambda url: pair.pay(code, "wechatpay", url)) as late:
        refused: list[str] = []

        def is_begun() -> bool:
            answer = pair.pay(code, "alipay")
            refused.append(answer.code)
            return answer.status == 200

        wait_until(is_begun, "another process begins the payment")
        assert set(refused[:-1]) <= {"database-unavailable"}, refused
        number = pair.member.pay_at_phone(code)
        pair.member.wait_until_order_is(code, "paid")
        left = pair.books()
    assert late.result().code in {"superseded", "order-already-paid"}, late.result()
    assert pair.books() == left
    assert [one["out_trade_no"] for one in pair.storm.kit.sandbox.charges(code)] == [number]
    assert pair.storm.kit.broken() == []


@pytest.mark.parametrize("pair", ["postgresql-redis"], indirect=True)
@pytest.mark.parametrize(
    ("point", "first", "then"),
    [("after_prepay", None, "wechatpay"), ("after_query", "wechatpay", "alipay")],
)
def test_no_transaction_is_open_while_a_gateway_is_asked(
    pair: Pair, point: str, first: str | None, then: str
) -> None:
    code = pair.member.order()
    if first is not None:
        assert pair.pay(code, first).status == 200
    with pair.frozen_at(point, lambda url: pair.pay(code, then, url)):
        assert open_transactions(pair.storm.kit.database_url) == []
    assert pair.storm.kit.broken() == []


def open_transactions(database_url: str) -> list[str]:
    """The last statement of every session that sits in a transaction."""
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT query FROM pg_stat_activity WHERE datname = current_database()"
                " AND state LIKE 'idle in transaction%'"
            )
        )
        return [str(row.query) for row in found]


def test_a_second_code_of_the_same_payment_stays_the_one_to_scan(pair: Pair) -> None:
    code = pair.member.order()
    with pair.frozen_at("after_prepay", lambda url: pair.pay(code, "wechatpay", url)) as late:
        resumed = pair.pay(code, "wechatpay")
        assert resumed.status == 200
        left = pair.books()
    answer = late.result()
    assert answer.code == "superseded" or answer.json == resumed.json
    assert pair.books() == left
    [stored] = [one for one in left["payment_attempts"] if one["order_code"] == code]
    number = pair.member.pay_at_phone(code)
    assert number == stored["out_trade_no"]
    assert trade_at(pair.storm.kit.sandbox, number)["cashier_url"] == stored["ticket"]
    pair.member.wait_until_order_is(code, "paid")
    assert len(pair.storm.kit.sandbox.charges(code)) == 1
    assert pair.storm.kit.broken() == []
