"""Orders in flight are moved from one lock service to another, and to one that lost its memory.

After each move they are paid exactly once, and a holder of the service before that was frozen
meanwhile changes nothing when it wakes, while its lease still stands by its own clock.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import cycle, pairwise
from pathlib import Path

import pytest

from shop.errors import PaymentRefused, Superseded
from shop.gateways.base import Gateway
from shop.locking.service import adopt
from shop.orders.moves import fenced_transaction
from shop.payments.contract import PayCommand
from shop.payments.store import fresh_order, lock_mark
from shop.wiring import Parts, build_parts
from tests.books import books
from tests.faults.conftest import KitMaker
from tests.faults.frozen import freezing_pair, pay_refused_by_gateway
from tests.faults.guard_support import GuardedShop, guarded_shop
from tests.faults.history.clocked_redis import ClockedRedis
from tests.faults.storm import Storm
from tests.faults.weak_moves import MovesWithoutEpochs
from tests.faults.yes_lock_wsgi import YesLease, YesLock
from tests.processes import wait_until
from tests.services import ZooKeeperServer
from tests.shopclient import Call
from tests.shopkit import Sandbox, ShopKit, make_member, make_order, make_product, order_state

pytestmark = pytest.mark.faults

AN_HOUR_S = 3_600
# What a holder of the service before is told when it wakes.
TOO_LATE = {"superseded", "lock-service-unavailable"}


@dataclass
class Services:
    """The lock services of one test; a step leads to one and gives its URL."""

    folder: Path
    made: ExitStack
    _redis: ClockedRedis | None = field(default=None, init=False)
    _zookeeper: ZooKeeperServer | None = field(default=None, init=False)

    def files(self) -> str:
        return f"file://{self.folder / 'files'}"

    def redis(self) -> str:
        if self._redis is None:
            self._redis = self.made.enter_context(ClockedRedis())
        return self._redis.url

    def zookeeper(self) -> str:
        if self._zookeeper is None:
            self._zookeeper = self.made.enter_context(ZooKeeperServer())
        return self._zookeeper.url("payonce")

    def redis_wiped(self) -> str:
        return self._restart_redis(0)

    def redis_set_back(self) -> str:
        url = self.redis()
        assert self._redis is not None
        self._redis.set_clock(self._redis.offset_s - AN_HOUR_S)
        return url

    def redis_wiped_and_set_back(self) -> str:
        return self._restart_redis(AN_HOUR_S)

    def zookeeper_wiped(self) -> str:
        url = self.zookeeper()
        assert self._zookeeper is not None
        self._zookeeper.process.kill9()
        shutil.rmtree(self._zookeeper.folder / "data")
        self._zookeeper.start()
        return url

    def _restart_redis(self, set_back_s: int) -> str:
        url = self.redis()
        assert self._redis is not None
        self._redis.process.kill9()
        self._redis.set_clock(self._redis.offset_s - set_back_s)
        self._redis.start()
        return url


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with ExitStack() as made:
        yield Services(folder=tmp_path, made=made)


Step = Callable[[Services], str]
JOURNEYS: list[tuple[str, list[Step]]] = [
    ("postgresql", [Services.redis, Services.zookeeper, Services.redis]),
    (
        "mariadb",
        [Services.files, Services.zookeeper, Services.zookeeper_wiped, Services.files],
    ),
    (
        "sqlite",
        [
            Services.redis,
            Services.redis_wiped,
            Services.redis_wiped_and_set_back,
            Services.redis_set_back,
            Services.files,
        ],
    ),
]
# Fences of two of these cannot be compared; an operator adopts the one that was switched to.
REALMS: dict[Step, str] = {Services.zookeeper: "one", Services.zookeeper_wiped: "another"}
# Where they could be compared, and must not: the operator says so.
ADOPTED_ANEW = Services.redis_wiped_and_set_back


@dataclass(frozen=True, kw_only=True)
class Traveller:
    """A member with one order whose code is open, and one that was paid and nobody heard of it."""

    kit: ShopKit
    member_id: int
    opened: str
    unheard: str

    @classmethod
    def of(cls, kit: ShopKit) -> "Traveller":
        with shop(kit) as parts:
            member_id = make_member(parts)
            product_id = make_product(parts)
            new = partial(make_order, parts, member_id, product_id)
            made = cls(kit=kit, member_id=member_id, opened=new(), unheard=new())
            made.pay(parts, made.opened, "wechatpay")
            kit.sandbox.pay(made.pay(parts, made.unheard, "wechatpay"), notice=False)
        return made

    def pay(self, parts: Parts, code: str, channel: str) -> str:
        """Give the number by which the order is open now."""
        command = PayCommand(member_id=self.member_id, order_code=code, channel=channel)
        view = parts.payments.pay(command)
        assert (view.attempt_state, view.channel) == ("pending", channel)
        assert view.out_trade_no is not None
        return view.out_trade_no

    def arrive(self) -> None:
        """Both orders are paid, each by one charge."""
        with shop(self.kit) as parts:
            number = self.pay(parts, self.opened, "wechatpay")
            self.kit.sandbox.pay(number, notice=False)

            def are_paid() -> bool:
                parts.sweeper.run_once()
                return order_state(self.opened) == order_state(self.unheard) == "paid"

            wait_until(are_paid, "the sweeper hears of both payments")
        for code in (self.opened, self.unheard):
            assert len(self.kit.sandbox.charges(code)) == 1


@contextmanager
def shop(kit: ShopKit) -> Iterator[Parts]:
    """The shop inside the test, on the lock service of now."""
    parts = build_parts(kit.settings, gateways=gateways_of(kit.sandbox))
    with kit.app(parts):
        yield parts


@cache
def gateways_of(sandbox: Sandbox) -> Mapping[str, Gateway]:
    """Made once, as they read their keys."""
    kit = ShopKit(
        database_url="sqlite://", lock_url="file:///unused", sandbox=sandbox, folder=sandbox.folder
    )
    return kit.parts().gateways


@pytest.mark.parametrize(
    ("database", "journey"),
    JOURNEYS,
    ids=["-then-".join(step.__name__ for step in journey) for _, journey in JOURNEYS],
)
def test_orders_in_flight_are_paid_exactly_once_across_a_change_of_lock_service(
    make_kit: KitMaker, services: Services, tmp_path: Path, database: str, journey: list[Step]
) -> None:
    kit = make_kit(f"{database}-files", SWEEP_FIRST_MS="100")
    kit.lock_url = journey[0](services)
    traveller = Traveller.of(kit)
    channels = cycle(["alipay", "wechatpay"])
    for here, there in pairwise(journey):
        with freezing_pair(kit, tmp_path) as pair:
            with shop(kit) as parts:
                late_order = make_order(parts, pair.member.id, pair.member.product_id)
            pay_late = partial(pair.pay, late_order, "wechatpay")
            with pair.frozen_at("leased", pay_late) as late:
                if there is Services.redis_set_back:
                    with shop(kit) as parts:
                        assert parts.lock.break_lease(late_order) is not None
                kit.lock_url = there(services)
                with shop(kit) as parts:
                    take_over(parts, here, there)
                    traveller.pay(parts, traveller.opened, next(channels))
                # L1 would let the frozen holder in: this order may be paid again.
                with pytest.raises(PaymentRefused):
                    pay_refused_by_gateway(kit, pair.member.id, late_order)
                left = books(kit.database_url)
            assert late.result().code in TOO_LATE, late.result()
            assert books(kit.database_url) == left
    traveller.arrive()
    assert kit.broken() == []


def take_over(parts: Parts, here: Step, there: Step) -> None:
    """What `locks adopt` does, at the service that was switched to."""
    anew = there is ADOPTED_ANEW
    adopted = adopt(parts.lock, parts.clock, anew=anew)
    assert adopted.is_new == (anew or REALMS.get(here) != REALMS.get(there))
    assert adopt(parts.lock, parts.clock).is_new is False


def test_a_process_of_the_service_before_is_refused_and_says_what_to_do(
    make_kit: KitMaker, services: Services
) -> None:
    kit = make_kit("sqlite-files")
    storm = Storm(kit=kit, urls=kit.webs(1))
    member = storm.member()
    code, closed = member.order(), member.order()
    assert member.client.pay(code, "wechatpay", key="first").send().status == 200
    files, kit.lock_url = kit.lock_url, services.zookeeper()
    with shop(kit) as parts:
        assert adopt(parts.lock, parts.clock).epoch.number == 2
        before = books(kit.database_url)
        refused = member.client.pay(code, "alipay", key="second").send()
        assert (refused.status, refused.code) == (503, "lock-service-unavailable")
        assert member.client.post(f"/orders/{closed}/cancel").status == 503
        ready = Call(url=f"{kit.url}/readyz", method="GET").send()
        assert (ready.status, ready.json["database"]) == (503, "ok")
        assert "flask --app wsgi locks adopt" in ready.json["lock"]
        assert books(kit.database_url) == before
        parts.payments.cancel(member.id, closed)
        assert order_state(closed) == "closed"
    kit.lock_url = files
    with shop(kit) as parts:
        assert adopt(parts.lock, parts.clock).epoch.number == 3
    assert Call(url=f"{kit.url}/readyz", method="GET").send().status == 200
    assert member.client.pay(code, "alipay", key="third").send().status == 200
    member.pay_at_phone(code)
    member.wait_until_order_is(code, "paid")
    assert len(kit.sandbox.charges(code)) == 1
    assert kit.broken() == []


class SwitchedYesLock(YesLock):
    """Says yes to everybody; once switched, as a service that counts from one."""

    def __init__(self) -> None:
        super().__init__()
        self._count: int | None = None

    def switch(self) -> None:
        """From now on another service answers at the same address."""
        self._count = 0

    def acquire(self, key: str, *, lease_ms: int, wait_ms: int, fence_floor: int = 0) -> YesLease:
        """Yes."""
        if self._count is None:
            return super().acquire(key, lease_ms=lease_ms, wait_ms=wait_ms, fence_floor=fence_floor)
        self._count += 1
        return YesLease(key, self._count)

    def realm(self) -> str:
        """That of the service of now."""
        return super().realm() if self._count is None else "zookeeper:of-the-tests"


@pytest.fixture(params=["sqlite-files", "postgresql-files", "mariadb-files"])
def any_kit(request: pytest.FixtureRequest, make_kit: KitMaker) -> ShopKit:
    return make_kit(request.param)


def closed_by_a_holder_of_the_service_before(shop: GuardedShop, lock: SwitchedYesLock) -> str:
    """It froze before its first write; under the new service a payment is begun; it wakes, reads
    what is there now, and closes the order."""
    code = shop.order()
    stale = shop.claim(code)
    lock.switch()
    assert adopt(lock, shop.parts.clock).is_new
    shop.pay(code, "wechatpay")
    mark = lock_mark(code)
    assert mark is not None
    assert mark.pair < (stale.epoch + 1, stale.fence)
    shop.close_by(stale, code)
    return code


def test_l2_refuses_the_service_before_and_without_epochs_its_holder_writes_last(
    any_kit: ShopKit,
) -> None:
    lock = SwitchedYesLock()
    with guarded_shop(any_kit, lock=lock) as shop:
        with pytest.raises(Superseded) as refused:
            closed_by_a_holder_of_the_service_before(shop, lock)
        assert order_state(refused.value.fields["order_code"]) == "paying"
        assert any_kit.broken() == []
    lock = SwitchedYesLock()
    with guarded_shop(any_kit, MovesWithoutEpochs, lock) as shop:
        adopt(lock, shop.parts.clock)
        code = closed_by_a_holder_of_the_service_before(shop, lock)
        assert order_state(code) == "closed"
        assert any("fence fell" in line and code in line for line in any_kit.broken())


def test_l2_refuses_the_service_before_even_where_nobody_wrote_since(any_kit: ShopKit) -> None:
    lock = SwitchedYesLock()
    with guarded_shop(any_kit, lock=lock) as shop:
        fresh, held = shop.order(), shop.order()
        stale, writer = shop.claim(fresh), shop.claim(held)
        order = fresh_order(held)
        assert order is not None
        fenced_transaction(writer, lambda: shop.parts.desk.moves.hold_order(order, writer))
        lock.switch()
        adopt(lock, shop.parts.clock)
        for claim, code in ((stale, fresh), (writer, held)):
            with pytest.raises(Superseded):
                shop.close_by(claim, code)
            assert order_state(code) == "created"
        assert any_kit.broken() == []
