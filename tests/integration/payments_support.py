"""What the payment tests share: one shop inside the test, on each kind of database.

The gateways are the real sandbox over HTTP; the shop's clock can be set ahead of theirs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError

import flask_migrate
import pytest
from sqlalchemy import select

from shop.catalog.models import Product
from shop.clock import SystemClock
from shop.db import db
from shop.orders.models import Transition
from shop.orders.moves import Claim
from shop.payments import store
from shop.payments.contract import PayCommand, PaymentView
from shop.payments.models import PaymentAttempt
from shop.payments.settle import Applied, Money, apply_money
from shop.points.service import available
from shop.wiring import Parts, build_parts
from tests.services import DatabaseServer
from tests.shopkit import ROOT, Sandbox, ShopKit, make_member, make_order, make_product

DATABASES = ("sqlite", "postgresql", "mariadb")
EXPIRY_S = 1_800


class MovableClock(SystemClock):
    """The machine's clock, and so far ahead of it as a test wants."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        """The present moment, as the shop believes it to be."""
        return super().now() + self.ahead

    @contextmanager
    def later(self, seconds: float) -> Iterator[None]:
        """For the length of a block, it is so much later."""
        self.ahead += timedelta(seconds=seconds)
        try:
            yield
        finally:
            self.ahead -= timedelta(seconds=seconds)


@contextmanager
def fresh_database(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database of this kind, dropped afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'shop.db'}"
        return
    fixture = {"postgresql": "postgres_server", "mariadb": "mariadb_server"}[kind]
    server: DatabaseServer = request.getfixturevalue(fixture)
    with server.fresh_database() as url:
        yield url


@dataclass(frozen=True, kw_only=True)
class Shop:
    """One migrated shop and its parts, in an application context."""

    kit: ShopKit
    parts: Parts
    clock: MovableClock

    def broken(self) -> list[str]:
        """The invariants that do not hold."""
        db.session.rollback()
        return self.kit.broken()


@contextmanager
def shop_inside(
    kind: str,
    folder: Path,
    request: pytest.FixtureRequest,
    sandbox: Sandbox,
    env: dict[str, str] | None = None,
) -> Iterator[Shop]:
    """A shop with file locks on a fresh database, migrated and used inside the test."""
    with fresh_database(kind, folder, request) as url:
        kit = ShopKit(
            database_url=url,
            lock_url=f"file://{folder / 'locks'}",
            sandbox=sandbox,
            folder=folder,
            extra_env=env or {},
        )
        clock = MovableClock()
        # The gateways keep the true time, by which their signatures are judged.
        gateways = kit.parts().gateways
        parts = build_parts(kit.settings, clock=clock, gateways=gateways)
        with kit.app(parts):
            migrate("upgrade")
            yield Shop(kit=kit, parts=parts, clock=clock)


def migrate(verb: str, revision: str = "") -> None:
    """Run a migration command inside the test."""
    folder = str(ROOT / "migrations")
    if verb == "upgrade":
        flask_migrate.upgrade(folder)
    elif verb == "downgrade":
        flask_migrate.downgrade(folder, revision)
    else:
        flask_migrate.check(folder)


class Buyer:
    """A member of a shop, with goods that nobody else buys."""

    def __init__(self, shop: Shop, *, points: int = 10_000, stock: int = 100) -> None:
        self.shop = shop
        self.parts = shop.parts
        self.given, self.brought = points, stock
        self.member_id = make_member(shop.parts, points=points)
        self.product_id = make_product(shop.parts, stock=stock)

    def order(self, *, points: int = 100, amount_fen: int = 900, quantity: int = 1) -> str:
        """A new order."""
        return make_order(
            self.parts,
            self.member_id,
            self.product_id,
            points=points,
            amount_fen=amount_fen,
            quantity=quantity,
        )

    def pay(self, code: str, channel: str) -> PaymentView:
        """Pay; raises ShopError."""
        return self.parts.payments.pay(
            PayCommand(member_id=self.member_id, order_code=code, channel=channel)
        )

    def cancel(self, code: str) -> PaymentView:
        """Give the order up; raises ShopError."""
        return self.parts.payments.cancel(self.member_id, code)

    def number(self, code: str) -> str:
        """The number of the newest attempt."""
        return self.attempts(code)[-1].out_trade_no

    def attempts(self, code: str) -> list[PaymentAttempt]:
        """The order's attempts as committed, the oldest first."""
        db.session.rollback()
        return list(
            db.session.scalars(
                select(PaymentAttempt)
                .where(PaymentAttempt.order_code == code)
                .order_by(PaymentAttempt.id)
                .execution_options(populate_existing=True)
            )
        )

    def pay_at_phone(self, number: str) -> bool:
        """Pay what the QR code asks for, the notice dropped. Whether the gateway took money."""
        try:
            self.shop.kit.sandbox.pay(number, notice=False)
        except HTTPError as error:
            if error.code not in {404, 409}:
                raise
            return False
        return True

    def hear_of_money(self, code: str, number: str) -> Applied:
        """Book what the gateway says of this number, as its notice would."""
        attempt = next(one for one in self.attempts(code) if one.out_trade_no == number)
        # Not by asking: an ordered fault may stand in the way.
        (charge,) = [
            one for one in self.shop.kit.sandbox.charges(code) if one["out_trade_no"] == number
        ]
        money = Money(
            channel=attempt.channel,
            merchant=attempt.merchant,
            out_trade_no=number,
            transaction_id=charge["transaction_id"],
            amount_fen=charge["amount_fen"],
            currency="CNY",
            paid_at=datetime.fromisoformat(charge["at"]).astimezone(UTC),
            cause="a notice",
        )
        with self.claim(code) as claim:
            return apply_money(self.parts.desk, claim, money)

    @contextmanager
    def claim(self, code: str) -> Iterator[Claim]:
        """The order's lease."""
        with self.parts.desk.claim(code, actor="gateway") as claim:
            yield claim

    def sweep(self, *, after_s: int = 3_600) -> None:
        """One round of the sweeper, that much later. Nothing that can fall due is left out."""
        with self.shop.clock.later(after_s):
            self.parts.sweeper.run_once()

    def state(self, code: str) -> str:
        """The order's state as committed."""
        db.session.rollback()
        order = store.fresh_order(code)
        assert order is not None
        return order.state

    def points(self) -> int:
        """What the member can spend."""
        db.session.rollback()
        return available(self.member_id)

    def on_hand(self) -> int:
        """Goods on the shelf."""
        db.session.rollback()
        return db.session.scalars(
            select(Product.stock_on_hand).where(Product.id == self.product_id)
        ).one()

    def moves(self, code: str) -> list[tuple[str, str]]:
        """The order's recorded moves: event and actor."""
        db.session.rollback()
        found = db.session.execute(
            select(Transition.event, Transition.actor)
            .where(Transition.subject_no == code)
            .order_by(Transition.version)
        )
        return [(event, actor) for event, actor in found]

    def charges(self, code: str) -> int:
        """How often gateways took money for the order."""
        return len(self.shop.kit.sandbox.charges(code))
