"""What the concurrency tests share: a shop of several processes, and a member who storms it."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flask import Flask

from shop.points.service import available
from shop.wiring import Parts, build_parts
from tests.faults.yes_lock_wsgi import YesLock
from tests.processes import wait_until
from tests.shopclient import Answer, MemberClient
from tests.shopkit import POINTS, ShopKit, make_member, make_order, make_product

RACERS = 64
PROCESSES = 4
YES_LOCK = "tests.faults.yes_lock_wsgi:app"
PASSWORD = "a password of the tests"

# What a racer that did not win may be told: each says what to do, and none is a fault of ours.
LOST_RACE = frozenset({"payment-in-progress", "superseded"})


@dataclass(frozen=True, kw_only=True)
class Storm:
    """One shop with its processes' addresses; `says_yes` where the lock excludes nobody."""

    kit: ShopKit
    urls: list[str]
    says_yes: bool = False

    @contextmanager
    def app(self) -> Iterator[Flask]:
        """The shop inside the test, with the same kind of lock as its processes."""
        parts = build_parts(self.kit.settings, lock=YesLock() if self.says_yes else None)
        with self.kit.app(parts) as app:
            yield app

    @contextmanager
    def parts(self) -> Iterator[Parts]:
        """The same, as its parts."""
        with self.app() as app:
            yield app.extensions["payonce"]

    def member(self) -> "Member":
        """A signed-in member with points."""
        login = f"m-{uuid.uuid4().hex[:12]}"
        with self.parts() as parts:
            member_id = make_member(parts, login=login, password=PASSWORD)
            product_id = make_product(parts)
        client = MemberClient(self.urls[0], login, PASSWORD)
        return Member(storm=self, id=member_id, product_id=product_id, client=client)

    def url(self, number: int) -> str:
        """The process that racer `number` asks: each gets the same share."""
        return self.urls[number % len(self.urls)]


@dataclass(frozen=True, kw_only=True)
class Member:
    """A member and the goods that nobody else buys."""

    storm: Storm
    id: int
    product_id: int
    client: MemberClient

    def order(self, *, points: int = 100, amount_fen: int = 900) -> str:
        """An order that can be paid now."""
        with self.storm.parts() as parts:
            return make_order(parts, self.id, self.product_id, points=points, amount_fen=amount_fen)

    def points_gone(self) -> int:
        """How many of the member's points are gone or held."""
        with self.storm.parts():
            return POINTS - available(self.id)

    def pay_at_phone(self, order_code: str, *, notice: bool = True) -> str:
        """Pay the order's open payment at the sandbox; its number is returned."""
        number = str(self.client.status(order_code)["out_trade_no"])
        self.storm.kit.sandbox.pay(number, notice=notice)
        return number

    def state_of(self, order_code: str) -> str:
        """The order's state, as its page is told."""
        return str(self.client.status(order_code)["order_state"])

    def wait_until_order_is(self, order_code: str, state: str) -> None:
        """Watch the order as its page does."""
        wait_until(lambda: self.state_of(order_code) == state, f"order {order_code} is {state}")


def assert_all_clear(
    answers: Sequence[Answer], *, number: str, codes: frozenset[str] = LOST_RACE
) -> None:
    """Every answer names the one payment, or is a problem that a program can read."""
    for answer in answers:
        if answer.status == 200:
            assert answer.json["out_trade_no"] == number, answer
        else:
            assert answer.code in codes, answer
    assert any(answer.status == 200 for answer in answers), answers
