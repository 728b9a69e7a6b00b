"""Payments in an order that nobody thought of: after every step the books balance and are true.

A member, the phone, the gateways (with their faults), late notices and the sweeper act in turns
chosen by Hypothesis, against the real sandbox.
"""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from shop.errors import ShopError
from shop.payments.settle import Applied
from tests.integration.payments_support import EXPIRY_S, Buyer, Shop, shop_inside
from tests.shopkit import Sandbox

pytestmark = pytest.mark.slow

CHANNELS = ("wechatpay", "alipay")
# SQLite is quick enough for many tries; the others see fewer, as their statements are the same.
EXAMPLES = {"sqlite": 25, "postgresql": 8, "mariadb": 8}
STEPS = 14


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module", params=list(EXAMPLES))
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("anything")
    with shop_inside(request.param, folder, request, sandbox) as made:
        yield made


class Life(RuleBasedStateMachine):
    """One member with few points and few goods, and all that can happen to the orders."""

    shop: Shop
    orders = Bundle("orders")

    def __init__(self) -> None:
        super().__init__()
        self.shop.kit.sandbox.clear_faults()
        self.buyer = Buyer(self.shop, points=700, stock=3)
        self.codes: list[str] = []
        self.swept_s = 0

    @rule(target=orders, points=st.sampled_from([0, 100, 500]))
    def place(self, points: int) -> str:
        code = self.buyer.order(points=points, amount_fen=1_000 - 2 * points)
        self.codes.append(code)
        return code

    @rule(code=orders, channel=st.sampled_from([*CHANNELS, "points"]))
    def pay(self, code: str, channel: str) -> None:
        with suppress(ShopError):
            self.buyer.pay(code, channel)

    @rule(code=orders)
    def cancel(self, code: str) -> None:
        with suppress(ShopError):
            self.buyer.cancel(code)

    @rule(code=orders, which=st.integers(0, 3))
    def phone_pays(self, code: str, which: int) -> None:
        """Any code that was ever shown, as long as the gateway takes money for it."""
        attempts = [one for one in self.buyer.attempts(code) if one.channel != "points"]
        if attempts:
            self.buyer.pay_at_phone(attempts[which % len(attempts)].out_trade_no)

    @rule(code=orders)
    def notice_comes(self, code: str) -> None:
        """For everything that was paid, in time or late, once more or for the first time."""
        for charge in self.shop.kit.sandbox.charges(code):
            applied = self.buyer.hear_of_money(code, charge["out_trade_no"])
            assert applied in {Applied.SETTLED, Applied.SURPLUS, Applied.ALREADY}

    @rule(
        channel=st.sampled_from(CHANNELS),
        op=st.sampled_from(["prepay", "query", "close"]),
        kind=st.sampled_from(["http500", "drop_before_effect", "drop_after_effect"]),
    )
    def gateway_stumbles(self, channel: str, op: str, kind: str) -> None:
        fault = {"channel": channel, "op": op, "kind": kind}
        self.shop.kit.sandbox.post("/admin/faults", fault)

    @rule()
    def sweep(self) -> None:
        """A minute later each time."""
        self.swept_s += 60
        self.buyer.sweep(after_s=self.swept_s)

    @invariant()
    def the_books_balance(self) -> None:
        assert self.shop.broken() == []

    @invariant()
    def no_order_is_paid_without_money_or_points(self) -> None:
        for code in self.codes:
            if self.buyer.state(code) == "paid":
                settling = [one for one in self.buyer.attempts(code) if one.role == "settling"]
                charged = {one["out_trade_no"] for one in self.shop.kit.sandbox.charges(code)}
                assert settling[0].channel == "points" or settling[0].out_trade_no in charged

    def teardown(self) -> None:
        """When the gateways answer again and all time is over, every order has come to its end."""
        self.shop.kit.sandbox.clear_faults()
        for code in self.codes:
            self.notice_comes(code)
        for late_s in (EXPIRY_S + 3_600, EXPIRY_S + 7_200):
            self.buyer.sweep(after_s=self.swept_s + late_s)
        paid_points = paid_orders = 0
        for code in self.codes:
            state, attempts = self.buyer.state(code), self.buyer.attempts(code)
            assert state in {"paid", "closed"}
            assert all(one.state in {"succeeded", "failed", "closed"} for one in attempts)
            booked = {one.out_trade_no for one in attempts if one.state == "succeeded"}
            for charge in self.shop.kit.sandbox.charges(code):
                assert charge["out_trade_no"] in booked
            if state == "paid":
                paid_orders += 1
                paid_points += attempts[0].points
        assert self.buyer.points() == self.buyer.given - paid_points
        assert self.buyer.on_hand() == self.buyer.brought - paid_orders
        assert self.shop.broken() == []


def test_whatever_happens_the_books_are_true(shop: Shop, request: pytest.FixtureRequest) -> None:
    life = type("LifeOfOneShop", (Life,), {"shop": shop})
    run_state_machine_as_test(
        life,
        settings=settings(
            max_examples=EXAMPLES[request.node.callspec.params["shop"]],
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
