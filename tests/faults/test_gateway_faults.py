"""A gateway that dies, lies or hangs at any call leaves every order resolvable.

Each fault that the sandbox can be ordered to make, at each call that opens, asks after or closes a
payment; then the gateway is well again, the sweeper goes round, and every order must have come to
a true end: what was charged is booked, and what was not is closed.
"""

import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from shop.errors import ShopError
from shop.gateways.guard import is_resting
from shop.gateways.guard_retry import TRIES_MAX
from tests.faults.storm import Storm
from tests.integration.payments_support import EXPIRY_S, Buyer, Shop, shop_inside
from tests.processes import wait_until
from tests.shopclient import Answer, Call
from tests.shopkit import Sandbox, ShopKit

pytestmark = pytest.mark.faults

FAULTS = (
    *("http500", "drop_before_effect", "frequency_limit", "system_error", "unavailable"),
    *("drop_after_effect", "system_error_after_effect", "unavailable_after_effect"),
    *("html", "half_json", "wrong_shape", "huge", "wrong_signature", "no_signature"),
)
# `hang` and `slow` cost the read time-out: one of them for each gateway.
OF_ONE = {"wechatpay": ("hang", "clock_off", "other_serial"), "alipay": ("slow",)}
READ_TIMEOUT_MS = 1_000
FINAL = {"paid", "closed"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture
def unguarded(sandbox: Sandbox, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """A shop whose circuits stay closed, so that each call meets the fault ordered for it."""
    env = {"GATEWAY_READ_TIMEOUT_MS": str(READ_TIMEOUT_MS), "GATEWAY_FAILURES": "1000"}
    with shop_inside("sqlite", tmp_path, request, sandbox, env) as made:
        yield made


@pytest.fixture
def resting(sandbox: Sandbox, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """A shop that leaves a gateway alone after one failure, for a second."""
    env = {"GATEWAY_FAILURES": "1", "GATEWAY_REST_MS": "1000"}
    with shop_inside("sqlite", tmp_path, request, sandbox, env) as made:
        yield made


def order_fault(sandbox: Sandbox, channel: str, op: str, kind: str, **more: int) -> None:
    fault = {"channel": channel, "op": op, "kind": kind, "times": TRIES_MAX, **more}
    sandbox.post("/admin/faults", fault)


def clear_faults(sandbox: Sandbox) -> None:
    request = urllib.request.Request(f"{sandbox.url}/admin/faults", method="DELETE")  # noqa: S310
    with urllib.request.urlopen(request, timeout=20):  # noqa: S310 - an address of our own
        pass


def meet(buyer: Buyer, channel: str, op: str, kind: str, *, paid: bool) -> str:
    """An order one of whose calls meets the fault; `paid`: its member paid what there was to pay,
    the notice lost. Its code."""
    sandbox = buyer.shop.kit.sandbox
    code = buyer.order()
    if op == "prepay":
        order_fault(sandbox, channel, op, kind)
        with suppress(ShopError):
            buyer.pay(code, channel)
    else:
        with suppress(ShopError):
            buyer.pay(code, channel)
    if paid:
        buyer.pay_at_phone(buyer.number(code))
    if op != "prepay":
        order_fault(sandbox, channel, op, kind)
        with suppress(ShopError):
            buyer.cancel(code)
    [fault] = sandbox.get("/admin/faults")["faults"] or [{"times": 0}]
    # What is known to be paid is not closed.
    assert fault["times"] < TRIES_MAX or (op == "close" and paid)
    clear_faults(sandbox)
    return code


@pytest.mark.parametrize("op", ["prepay", "query", "close"])
@pytest.mark.parametrize("channel", ["wechatpay", "alipay"])
def test_every_order_comes_to_a_true_end_whatever_its_gateway_did(
    unguarded: Shop, channel: str, op: str
) -> None:
    buyer = Buyer(unguarded)
    kinds = [*FAULTS, *OF_ONE[channel], *(["paid_on_close"] if op == "close" else [])]
    # Paid and unpaid orders by turns: what is paid at one gateway is not at the other.
    first = channel == "wechatpay"
    met = {}
    for number, kind in enumerate(kinds):
        paid = (number % 2 == 0) is first
        met[meet(buyer, channel, op, kind, paid=paid)] = (kind, paid)
    for after_s in (60, 600, EXPIRY_S + 60, EXPIRY_S + 600, 3 * EXPIRY_S, 6 * EXPIRY_S):
        buyer.sweep(after_s=after_s)
    ends = {met[code]: (buyer.state(code), buyer.charges(code)) for code in met}
    untrue = {
        what: (state, charges)
        for what, (state, charges) in ends.items()
        if state not in FINAL or (state == "paid") is not (charges == 1)
    }
    assert untrue == {}
    booked = sum(
        attempt.role in {"settling", "surplus"} for code in met for attempt in buyer.attempts(code)
    )
    assert booked == sum(charges for _, charges in ends.values()) > 0
    assert unguarded.broken() == []


def test_the_sweeper_leaves_a_resting_gateway_alone_and_returns_when_it_is_rested(
    resting: Shop,
) -> None:
    buyer = Buyer(resting)
    silent, other = buyer.order(), buyer.order()
    buyer.pay(silent, "wechatpay")
    buyer.pay(other, "alipay")
    for code in (silent, other):
        assert buyer.pay_at_phone(buyer.number(code))
    order_fault(resting.kit.sandbox, "wechatpay", "query", "unavailable")
    gateway = resting.parts.gateways["wechatpay"]
    gateway.query(buyer.number(silent))
    while is_resting(gateway):
        buyer.sweep(after_s=60)
        if is_resting(gateway):
            asked = buyer.attempts(silent)[0].asked_count
            assert asked == 0, "what would be turned away is not taken on"
            assert buyer.state(other) == "paid"
    buyer.sweep(after_s=61)
    assert buyer.state(silent) == "paid"
    assert resting.broken() == []


def test_a_gateway_that_hangs_takes_neither_the_pages_nor_the_other_gateway_with_it(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    places, threads = 3, 8
    kit = ShopKit(
        database_url=f"sqlite:///{tmp_path / 'shop.db'}",
        lock_url=f"file://{tmp_path / 'locks'}",
        sandbox=sandbox,
        folder=tmp_path,
        extra_env={"GATEWAY_CONCURRENCY": str(places), "GATEWAY_READ_TIMEOUT_MS": "60000"},
    )
    try:
        web = kit.migrate().web(threads=threads)
        storm = Storm(kit=kit, urls=[kit.url])
        hurt, well = storm.member(), storm.member()
        orders, fine = [hurt.order() for _ in range(2 * threads)], well.order()
        order_fault(sandbox, "wechatpay", "prepay", "hang", times=100, delay_ms=60_000)

        def pay(code: str) -> Answer:
            return hurt.client.pay(code, "wechatpay", key=uuid.uuid4().hex).send()

        with ThreadPoolExecutor(len(orders)) as clients:
            asked = [clients.submit(pay, code) for code in orders]
            turned_away = len(orders) - places
            wait_until(lambda: sum(one.done() for one in asked) >= turned_away, "turned away")
            # Its places are held now, and for long.
            for _ in range(5):
                assert Call(url=f"{kit.url}/", method="GET").send().status == 200
            answer = well.client.pay(fine, "alipay", key=uuid.uuid4().hex).send()
            assert answer.status == 200
            assert sum(one.done() for one in asked) == turned_away
            said = {one.result().code for one in asked if one.done()}
            assert said == {"gateway-away"}
            hanging = [code for code, one in zip(orders, asked, strict=True) if not one.done()]
            assert {hurt.state_of(code) for code in hanging} == {"paying"}
            well.pay_at_phone(fine)
            well.wait_until_order_is(fine, "paid")
            # Who waits for the gateway need not wait here.
            web.kill9()
        assert kit.broken() == []
    finally:
        clear_faults(sandbox)
        kit.stop()
