"""Epochs begin once each, whoever comes first and however many at the same instant."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import redis
from flask import Flask, current_app
from sqlalchemy import inspect, select

from locks import LockUnavailable, from_url
from shop.clock import SystemClock
from shop.db import db
from shop.locking.models import LockEpoch
from shop.locking.service import Adopted, adopt, begin_first
from shop.locking.store import Epoch, current_epoch
from tests.faults.yes_lock_wsgi import YesLock
from tests.integration.payments_support import DATABASES, Buyer, Shop, migrate, shop_inside
from tests.processes import free_port
from tests.services import RedisServer
from tests.shopclient import all_at_once
from tests.shopkit import Sandbox

RACERS = 8


class Service(YesLock):
    """A lock service of which nothing but its realm is wanted."""

    def __init__(self, realm: str) -> None:
        super().__init__()
        self._realm = realm

    def realm(self) -> str:
        """See LeaseLock."""
        return self._realm


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@pytest.fixture(params=DATABASES)
def shop(request: pytest.FixtureRequest, tmp_path: Path, sandbox: Sandbox) -> Iterator[Shop]:
    with shop_inside(request.param, tmp_path, request, sandbox) as made:
        yield made


def rows() -> list[tuple[int, str]]:
    db.session.rollback()
    found = db.session.execute(select(LockEpoch.epoch, LockEpoch.realm).order_by(LockEpoch.epoch))
    return [(row.epoch, row.realm) for row in found]


def race(works: list[Callable[[], object]]) -> list[object]:
    """All at the same instant, each with a session of its own."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]

    def run(work: Callable[[], object]) -> object:
        with app.app_context():
            try:
                return work()
            finally:
                db.session.remove()

    return all_at_once([partial(run, work) for work in works])


def test_epochs_begin_once_each(shop: Shop) -> None:
    clock = SystemClock()
    services = [Service(f"realm-{number}") for number in range(RACERS)]

    race([partial(begin_first, one, clock) for one in services])
    [(first, realm)] = rows()
    assert first == 1
    winner = next(one for one in services if one.realm() == realm)

    # Adopting what is believed changes nothing, unless it is meant to begin anew.
    assert adopt(winner, clock) == Adopted(
        epoch=Epoch(number=1, realm=realm), before=Epoch(number=1, realm=realm)
    )
    assert rows() == [(1, realm)]
    assert adopt(winner, clock, anew=True).epoch == Epoch(number=2, realm=realm)

    # Many operators at once, each for the same service: one epoch.
    other = next(one for one in services if one is not winner)
    adopted = race([partial(adopt, other, clock) for _ in range(RACERS)])
    assert [one.is_new for one in adopted if isinstance(one, Adopted)].count(True) == 1
    assert rows() == [(1, realm), (2, realm), (3, other.realm())]
    assert current_epoch() == Epoch(number=3, realm=other.realm())


def test_a_service_that_answers_but_grants_nothing_is_not_adopted(shop: Shop) -> None:
    clock = SystemClock()
    begin_first(Service("realm"), clock)
    with RedisServer() as server:
        with redis.Redis(port=server.port) as client:
            client.replicaof("127.0.0.1", str(free_port()))
        lock = from_url(server.url)
        lock.ping()
        with pytest.raises(LockUnavailable, match="replica"):
            adopt(lock, clock)
        lock.close()
    assert rows() == [(1, "realm")]


def test_operators_who_want_different_services_get_an_epoch_each(shop: Shop) -> None:
    clock = SystemClock()
    services = [Service(f"realm-{number}") for number in range(3)]
    race([partial(adopt, one, clock) for one in services])
    assert [number for number, _ in rows()] == [1, 2, 3]
    assert {realm for _, realm in rows()} == {one.realm() for one in services}


def test_an_order_in_payment_from_before_there_were_epochs_is_paid_once(shop: Shop) -> None:
    buyer = Buyer(shop)
    code = buyer.order()
    buyer.pay(code, "wechatpay")
    db.session.rollback()
    migrate("downgrade", "0001")
    assert "lock_epochs" not in inspect(db.engine).get_table_names()
    migrate("upgrade")
    db.engine.dispose()  # a server's plans of statements do not outlive its tables' columns

    assert buyer.pay(code, "wechatpay").attempt_state == "pending"
    assert buyer.pay_at_phone(buyer.number(code))
    buyer.sweep()
    assert buyer.state(code) == "paid"
    assert buyer.charges(code) == 1
    assert rows() == [(1, "clock")]
    assert shop.broken() == []
