"""kill -9 of the sweeper at every step of its work: the next round takes it up, once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from locks import hold
from shop.payments.contract import PayCommand
from shop.wiring import Parts, build_parts
from tests.faults.conftest import shop_on
from tests.faults.kill_support import ENV, calls, commits, sweeper_process
from tests.faults.killer_wsgi import RECORD, AheadClock
from tests.processes import wait_until
from tests.shopkit import (
    Sandbox,
    ShopKit,
    make_member,
    make_order,
    make_product,
    order_state,
)

pytestmark = pytest.mark.faults

# Taken on, asked, booked.
SILENT = [*commits(1, 1), *calls("query:1"), *commits(2, 2)]
# Taken on, applied.
STORED = commits(1, 2)
# Taken on; asked, closed and asked again; ended.
EXPIRED_PAYING = [*commits(1, 1), *calls("query:1", "close:1", "query:2"), *commits(2, 2)]
CLOSED_AT_GATEWAY = EXPIRED_PAYING[EXPIRED_PAYING.index("before_close:1") :]
EXPIRED_CREATED = commits(1, 1)

# Every order and payment is past its end for a sweeper whose clock is that far ahead.
PAST_EXPIRY_S = 3_600
# What falls due within seconds is due.
SOON_S = 10


class Shop:
    """A shop without a web process of its own, but for those tests that start one."""

    def __init__(self, kit: ShopKit, parts: Parts) -> None:
        self.kit = kit
        self.parts = parts
        self.member_id = make_member(parts)
        self.product_id = make_product(parts)

    def order(self) -> str:
        """A new order."""
        return make_order(self.parts, self.member_id, self.product_id)

    def pending(self) -> tuple[str, str]:
        """An order whose QR code was shown, and its payment's number."""
        code = self.order()
        view = self.parts.payments.pay(
            PayCommand(member_id=self.member_id, order_code=code, channel="wechatpay")
        )
        assert view.out_trade_no is not None
        return code, view.out_trade_no

    def passed(self) -> list[str]:
        """The points that the sweeper's process passed."""
        return (self.kit.folder / "kill-log").read_text().split()

    def sweep(self, code: str, *, ahead_s: int) -> None:
        """A round in the test, once the killed one's lease is over; its put-off items are due."""
        with hold(self.parts.lock, code, lease_ms=1_000, wait_ms=30_000):
            pass
        build_parts(
            self.kit.settings,
            clock=AheadClock(ahead_s + SOON_S),
            lock=self.parts.lock,
            gateways=self.parts.gateways,
        ).sweeper.run_once()

    def die(self, at: str, *, ahead_s: int) -> None:
        """The sweeper's process comes to this point and no further."""
        (self.kit.folder / "kill-log").write_text("")
        process = sweeper_process(self.kit, at, ahead_s=ahead_s)
        assert process.returncode == -signal.SIGKILL, process.log_tail()
        assert self.passed()[-1] == at


@pytest.fixture(scope="module")
def shop(
    sandbox_server: Sandbox,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("kill-sweeper")
    env = {**ENV, "WEBHOOK_LOCK_WAIT_MS": "0"}
    with (
        shop_on(
            "sqlite-files", sandbox=sandbox_server, folder=folder, request=request, env=env
        ) as kit,
        ExitStack() as stack,
    ):
        parts = kit.parts()
        stack.enter_context(kit.app(parts))
        yield Shop(kit, parts)


def paid_in_silence(shop: Shop) -> str:
    """Paid at the gateway, and no notice sent."""
    code, number = shop.pending()
    shop.kit.sandbox.pay(number, notice=False)
    return code


def stored_notice(shop: Shop) -> str:
    """Paid, the notice stored while somebody held the order."""
    code, number = shop.pending()
    if not shop.kit.processes:
        shop.kit.web()
    with hold(shop.parts.lock, code, lease_ms=60_000, wait_ms=0):
        shop.kit.sandbox.pay(number)

        def acknowledged() -> bool:
            found = shop.kit.sandbox.get(f"/admin/trades/{number}")["notices"]
            return [one["state"] for one in found] == ["delivered"]

        wait_until(acknowledged, "the notice is stored and acknowledged")
    assert order_state(code) == "paying"
    return code


def expired_while_paying(shop: Shop) -> str:
    """Not paid; its time will be over for the sweeper."""
    return shop.pending()[0]


def expired_untried(shop: Shop) -> str:
    """Nobody ever tried to pay it."""
    return shop.order()


Setting = tuple[Callable[[Shop], str], list[str], int, str, int]

# What is prepared, the points of the sweeper, its clock; the order's end and the charges then.
SETTINGS: dict[str, Setting] = {
    "silent": (paid_in_silence, SILENT, SOON_S, "paid", 1),
    "stored": (stored_notice, STORED, SOON_S, "paid", 1),
    "expired-paying": (expired_while_paying, EXPIRED_PAYING, PAST_EXPIRY_S, "closed", 0),
    "expired-created": (expired_untried, EXPIRED_CREATED, PAST_EXPIRY_S, "closed", 0),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_sweep_passes_these_points_and_no_others(shop: Shop, name: str) -> None:
    prepare, points, ahead_s, end, charges = SETTINGS[name]
    code = prepare(shop)
    (shop.kit.folder / "kill-log").write_text("")
    process = sweeper_process(shop.kit, RECORD, ahead_s=ahead_s)
    assert process.returncode == 0, process.log_tail()
    assert shop.passed() == points
    assert (order_state(code), len(shop.kit.sandbox.charges(code))) == (end, charges)
    assert shop.kit.broken() == []


@pytest.mark.parametrize(
    ("name", "at"),
    [
        *(("silent", at) for at in SILENT),
        *(("stored", at) for at in STORED),
        # Up to the close it is as above.
        *(
            ("expired-paying", at)
            for at in EXPIRED_PAYING[EXPIRED_PAYING.index("before_close:1") :]
        ),
        *(("expired-created", at) for at in EXPIRED_CREATED),
    ],
)
def test_a_sweeper_killed_anywhere_is_made_up_for_by_the_next_round(
    shop: Shop, name: str, at: str
) -> None:
    prepare, _points, ahead_s, end, charges = SETTINGS[name]
    code = prepare(shop)
    shop.die(at, ahead_s=ahead_s)
    assert shop.kit.broken() == []
    shop.sweep(code, ahead_s=ahead_s)
    assert (order_state(code), len(shop.kit.sandbox.charges(code))) == (end, charges)
    assert shop.kit.broken() == []
