"""What the tests with SIGKILL share: one shop whose web worker dies on order and is replaced.

The worker is killed in the middle of a request; gunicorn's master starts a fresh one, as a process
supervisor would. The sweeper runs in the test, its clock some seconds ahead, so that nobody waits
for what falls due.
"""

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from sqlalchemy import select

from locks import hold
from shop.db import db
from shop.locking.service import begin_first
from shop.payments.models import PaymentAttempt
from shop.wiring import Parts
from tests.faults.killer_wsgi import RECORD, AheadClock
from tests.processes import ManagedProcess, wait_until
from tests.shopclient import Call, MemberClient
from tests.shopkit import ROOT, ShopKit, make_member, make_order, make_product, order_state

KILLER = "tests.faults.killer_wsgi:app"
PASSWORD = "a password of the tests"
# The first look (SWEEP_FIRST_MS below) and the first retry of a stored notice (2 s) are then due.
SWEEPER_AHEAD_S = 4
ENV = {
    "SWEEP_FIRST_MS": "100",
    # Short, as a killed holder keeps its order from the others for so long (not with files).
    "LOCK_LEASE_MS": "1000",
    "LOCK_WAIT_MS": "10000",
}


def commits(first: int, last: int) -> list[str]:
    """Both sides of these commits."""
    return [f"{side}_commit:{n}" for n in range(first, last + 1) for side in ("before", "after")]


def calls(*names: str) -> list[str]:
    """Both sides of these gateway calls, each given as `query:1`."""
    return [f"{side}_{name}" for name in names for side in ("before", "after")]


@dataclass(frozen=True, kw_only=True)
class Gallows:
    """A running shop, one member, and the means to kill."""

    kit: ShopKit
    web: ManagedProcess
    parts: Parts
    client: MemberClient
    member_id: int
    product_id: int

    @property
    def order_file(self) -> Path:
        """Where the web process looks for its order to die."""
        return self.kit.folder / "kill-order"

    @property
    def log(self) -> Path:
        """The points that were passed."""
        return self.kit.folder / "kill-log"

    def order(self, *, points: int = 100, amount_fen: int = 900) -> str:
        """A new order of the member."""
        return make_order(
            self.parts, self.member_id, self.product_id, points=points, amount_fen=amount_fen
        )

    def pay(self, code: str, channel: str, key: str | None = None) -> Call:
        """A pay request, under a new key unless one is given."""
        return self.client.pay(code, channel, key=key or uuid.uuid4().hex)

    def cancel(self, code: str) -> Call:
        """A request to give the order up."""
        return self.client.call(f"/orders/{code}/cancel")

    def arm(self, path: str, at: str) -> None:
        """The next request whose path begins so dies at this point."""
        self.log.write_text("")
        new = self.order_file.with_suffix(".new")
        new.write_text(json.dumps({"path": path, "at": at}))
        new.rename(self.order_file)

    def passed(self) -> list[str]:
        """The points passed since the last `arm`."""
        return self.log.read_text().split()

    def wait_for_death(self, at: str) -> None:
        """The armed request has come to its point."""
        wait_until(lambda: at in self.passed(), f"the process dies at {at}")

    def kill_in(self, call: Call, at: str) -> None:
        """Send the call and see the process die under it: no answer comes."""
        self.arm(call.url.removeprefix(self.kit.url), at)
        try:
            answer = call.send()
        except (ConnectionError, HTTPException):
            assert self.passed()[-1] == at
        else:
            raise AssertionError(f"answered {answer} and passed only {self.passed()}")

    def points_of(self, call: Call) -> list[str]:
        """All points that this call passes when it is let live."""
        self.arm(call.url.removeprefix(self.kit.url), RECORD)
        answer = call.send()
        assert answer.status == 200, answer
        return self.passed()

    def wait_until_free(self, code: str) -> None:
        """The killed holder's lease is over."""
        with hold(self.parts.lock, code, lease_ms=1_000, wait_ms=30_000):
            pass

    def sweep(self, code: str) -> None:
        """One round of the sweeper, once the order is free."""
        self.wait_until_free(code)
        self.parts.sweeper.run_once()

    def numbers(self, code: str) -> list[str]:
        """The numbers under which the order was tried to be paid, the newest first."""
        db.session.rollback()
        return list(
            db.session.scalars(
                select(PaymentAttempt.out_trade_no)
                .where(PaymentAttempt.order_code == code)
                .order_by(PaymentAttempt.id.desc())
            )
        )

    def pay_silently(self, code: str) -> bool:
        """The phone pays what can be paid, and the gateway never tells. Whether it took money."""
        for number in self.numbers(code):
            try:
                self.kit.sandbox.pay(number, notice=False)
                return True
            except HTTPError as error:
                if error.code not in {404, 409}:  # never heard of it; closed it
                    raise
        return False

    def charges(self, code: str) -> int:
        """How often the gateways took money for this order."""
        return len(self.kit.sandbox.charges(code))

    def assert_true_state(self, code: str) -> None:
        """The books say of the order what the gateways say, and balance."""
        charged = self.charges(code)
        assert charged <= 1
        assert (order_state(code) == "paid") == (charged == 1)
        assert self.kit.broken() == []

    def wait_until_paid(self, code: str) -> None:
        """The order turns to paid."""
        wait_until(lambda: order_state(code) == "paid", f"{code} is paid")

    def wait_until_surplus(self, number: str) -> None:
        """The attempt's money is booked as surplus."""
        role = select(PaymentAttempt.role).where(PaymentAttempt.out_trade_no == number)

        def look() -> bool:
            db.session.rollback()
            return db.session.scalars(role).one() == "surplus"

        wait_until(look, f"{number} is surplus")


def assert_is_found_paid(gallows: Gallows, code: str, channel: str) -> None:
    """The sweeper asks and hears of the money; the member is not charged again."""
    gallows.sweep(code)
    gallows.assert_true_state(code)
    assert order_state(code) == "paid"
    again = gallows.pay(code, channel).send()
    assert again.code == "order-already-paid", again
    assert gallows.charges(code) == 1
    assert gallows.kit.broken() == []


def assert_can_be_paid_once(gallows: Gallows, code: str, channel: str, key: str) -> None:
    """The member repeats the request that died, and pays: one charge."""
    again = gallows.pay(code, channel, key).send()
    assert again.status == 200 or again.code == "payment-in-progress", again
    fresh = gallows.pay(code, channel).send()
    assert fresh.status == 200, fresh
    gallows.kit.sandbox.pay(fresh.json["out_trade_no"])
    gallows.wait_until_paid(code)
    assert gallows.charges(code) == 1
    late = gallows.pay(code, channel).send()
    assert late.code == "order-already-paid", late
    assert gallows.kit.broken() == []


@contextmanager
def gallows_on(kit: ShopKit) -> Iterator[Gallows]:
    """A web process of one worker that dies on order, and a signed-in member."""
    env = {
        # The master loads the shop once, and a new worker is there within milliseconds.
        "GUNICORN_CMD_ARGS": "--preload",
        "KILL_FILE": str(kit.folder / "kill-order"),
        "KILL_LOG": str(kit.folder / "kill-log"),
    }
    web = kit.web(module=KILLER, env=env)
    parts = kit.parts(clock=AheadClock(SWEEPER_AHEAD_S))
    with kit.app(parts):
        # Otherwise the very first request would pass one commit more than all others.
        begin_first(parts.lock, parts.clock)
        login = f"m-{uuid.uuid4().hex[:12]}"
        member_id = make_member(parts, login=login, password=PASSWORD)
        yield Gallows(
            kit=kit,
            web=web,
            parts=parts,
            client=MemberClient(kit.url, login, PASSWORD),
            member_id=member_id,
            product_id=make_product(parts),
        )


def sweeper_process(kit: ShopKit, at: str, *, ahead_s: int = 0) -> ManagedProcess:
    """`flask sweep --once` that dies at this point, run to its end."""
    process = ManagedProcess(
        "sweeper",
        [sys.executable, "-m", "flask", "--app", KILLER, "sweep", "--once"],
        log=kit.folder / "sweeper.log",
        cwd=ROOT,
        env={
            **kit.env,
            "KILL_AT": at,
            "KILL_LOG": str(kit.folder / "kill-log"),
            "CLOCK_AHEAD_S": str(ahead_s),
        },
    )
    process.start()
    process.wait()
    return process
