"""LOCK_UNAVAILABLE=database: while the lock service is away, orders are claimed by their rows.

Every such answer is marked, the money is as safe as with leases (L1 to L3), and when the service is
back its leases count again, above whatever was written without it.
"""

import json
import socket
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from locks import LeaseLost, LockObserver, from_url
from shop.clock import SystemClock
from shop.errors import LockServiceUnavailable, Superseded
from shop.locking.service import adopt
from shop.locking.store import current_epoch
from shop.locking.watch import NS_PER_MS, ServiceWatch
from shop.payments.contract import PayCommand
from shop.payments.service import close_order
from shop.payments.store import fresh_attempt, lock_mark
from shop.wiring import Parts, build_parts
from tests.books import books
from tests.faults.conftest import KitMaker, shop_on
from tests.faults.frozen import freezing_pair
from tests.faults.storm import RACERS, Storm, assert_all_clear
from tests.faults.test_lock_unreachable import Outage
from tests.faults.yes_lock_wsgi import YesLock
from tests.processes import free_port, wait_until
from tests.services import RedisServer, ZooKeeperServer
from tests.shopclient import Answer, Call, at_once
from tests.shopkit import Sandbox, make_member, make_order, make_product, order_state

pytestmark = pytest.mark.faults

MARK = "payonce-lock"
GO_ON = {"LOCK_UNAVAILABLE": "database"}


def new_key() -> str:
    return uuid.uuid4().hex


def by_database(answer: Answer) -> bool:
    return answer.headers.get(MARK) == "database"


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The address of a Redis that is not there, and that nobody else can take."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{taken.getsockname()[1]}/0"


OUTAGES = [(RedisServer, False), (ZooKeeperServer, True)]


@pytest.fixture(params=OUTAGES, ids=["redis-killed", "zookeeper-stopped"])
def outage(request: pytest.FixtureRequest) -> Iterator[Outage]:
    kind, stopped = request.param
    with kind() as server:
        yield Outage(server=server, stopped=stopped)


def test_payments_go_on_without_the_lock_service_and_under_its_leases_when_it_is_back(
    make_kit: KitMaker, outage: Outage
) -> None:
    kit = make_kit("sqlite-files", SWEEP_FIRST_MS="100", **GO_ON)
    kit.lock_url = outage.lock_url
    web = kit.web()
    member = Storm(kit=kit, urls=[kit.url]).member()
    client = member.client
    before, during, across = member.order(), member.order(), member.order()
    for code in (before, across):
        opened = client.pay(code, "wechatpay", key=new_key()).send()
        assert opened.status == 200
        assert not by_database(opened)

    outage.begin()
    paid = client.pay(during, "wechatpay", key=new_key()).send()
    assert (paid.status, by_database(paid)) == (200, True)
    # Its code is shown again, the other channel closes it, and a notice is applied at once.
    again = client.pay(before, "wechatpay", key=new_key()).send()
    assert (again.status, by_database(again)) == (200, True)
    changed = client.pay(across, "alipay", key=new_key()).send()
    assert (changed.status, by_database(changed)) == (200, True)
    for code in (before, during):
        member.pay_at_phone(code)
        member.wait_until_order_is(code, "paid")
    ready = Call(url=f"{kit.url}/readyz", method="GET").send()
    assert (ready.status, ready.json["database"]) == (200, "ok")
    assert ready.json["lock"].startswith("away")
    assert not by_database(Call(url=f"{kit.url}/orders", method="GET").send())
    noted = [line for line in logged(web.log) if line["event"] == "lock_degraded"]
    assert {before, during, across} == {line["order_code"] for line in noted}
    with kit.app():
        written = lock_mark(across)
        assert written is not None

    outage.end()

    def is_back() -> bool:
        answer = client.pay(across, "alipay", key=new_key()).send()
        assert answer.status == 200
        return not by_database(answer)

    wait_until(is_back, "orders are claimed by leases again")
    back = client.pay(across, "wechatpay", key=new_key()).send()
    assert (back.status, by_database(back)) == (200, False)
    with kit.app():
        above = lock_mark(across)
        assert above is not None
        assert above.epoch == written.epoch
        assert above.pair > written.pair
    member.pay_at_phone(across)
    member.wait_until_order_is(across, "paid")
    for code in (before, during, across):
        assert len(kit.sandbox.charges(code)) == 1
    assert kit.broken() == []


def logged(file: Path) -> Iterator[dict[str, str]]:
    """The JSON lines of a process's log."""
    for line in file.read_text().splitlines():
        if line.startswith("{"):
            yield json.loads(line)


@pytest.mark.parametrize("stack", ["sqlite-redis", "postgresql-redis", "mariadb-redis"])
def test_64_pays_half_of_them_through_a_process_cut_off_from_the_lock_make_one_charge(
    request: pytest.FixtureRequest,
    sandbox_server: Sandbox,
    tmp_path: Path,
    nowhere: str,
    stack: str,
) -> None:
    with shop_on(stack, sandbox=sandbox_server, folder=tmp_path, request=request) as kit:
        port = free_port()
        kit.web()
        kit.web(port=port, env={"LOCK_URL": nowhere, **GO_ON})
        storm = Storm(kit=kit, urls=[kit.url, f"http://127.0.0.1:{port}"])
        member = storm.member()
        code = member.order()
        calls = [
            member.client.pay(code, "wechatpay", key=new_key(), url=storm.url(racer))
            for racer in range(RACERS)
        ]
        answers = at_once(calls)
        number = f"{code}01"
        with storm.parts() as parts:
            attempt = fresh_attempt(number)
            assert attempt is not None
            assert attempt.state == "pending"
            assert fresh_attempt(f"{code}02") is None
            assert parts.payments.view(member.id, code).order_state == "paying"
        assert_all_clear(answers, number=number)
        # Who won may have been of either half; nobody was marked who had a lease.
        assert not any(by_database(answer) for answer in answers[::2])
        assert all(by_database(answer) for answer in answers[1::2] if answer.status == 200)
        assert member.pay_at_phone(code) == number
        member.wait_until_order_is(code, "paid")
        assert [one["out_trade_no"] for one in kit.sandbox.charges(code)] == [number]
        assert kit.broken() == []


class Outages(LockObserver):
    """Counts how often the service was asked in vain."""

    def __init__(self) -> None:
        self.count = 0

    def unavailable(self, backend: str, wait_ns: int) -> None:
        """See LockObserver."""
        self.count += 1


class Buyer:
    """A member of a shop inside the test."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.member_id = make_member(parts)
        self.product_id = make_product(parts)

    def order(self) -> str:
        return make_order(self.parts, self.member_id, self.product_id)

    def pay(self, code: str) -> str | None:
        command = PayCommand(member_id=self.member_id, order_code=code, channel="wechatpay")
        return self.parts.payments.pay(command).attempt_state


def test_a_service_found_away_is_not_asked_again_for_each_order(
    make_kit: KitMaker, nowhere: str
) -> None:
    kit = make_kit("sqlite-files", **GO_ON)
    kit.lock_url = nowhere
    outages, moment = Outages(), [1]
    parts = build_parts(
        kit.settings,
        lock=from_url(kit.lock_url, outages),
        watch=ServiceWatch(lambda: moment[0]),
    )
    with kit.app(parts):
        buyer = Buyer(parts)
        asked = []
        # Milliseconds between two orders. Those that go on without do not put the next look off.
        for pause_ms in (0, 1_000, 900, 200, 0, 1_900, 200):
            moment[0] += pause_ms * NS_PER_MS
            assert buyer.pay(buyer.order()) == "pending"
            asked.append(outages.count)
        assert asked == [1, 1, 1, 2, 2, 2, 3]
    assert kit.broken() == []


class StillClock(SystemClock):
    """A host's clock that stands still."""

    def __init__(self) -> None:
        self._now = super().now()

    def now(self) -> datetime:
        """Always the same moment."""
        return self._now


@pytest.mark.parametrize("clock", [SystemClock, StillClock])
def test_who_claims_an_order_last_without_the_service_supersedes_who_did_before(
    make_kit: KitMaker, nowhere: str, clock: type[SystemClock]
) -> None:
    kit = make_kit("sqlite-files", **GO_ON)
    kit.lock_url = nowhere
    with kit.app(kit.parts(clock=clock())) as app:
        parts: Parts = app.extensions["payonce"]
        code = Buyer(parts).order()
        with parts.desk.claim(code, actor="member") as first:
            first.lease.ensure_held()
            with parts.desk.claim(code, actor="sweeper") as second:
                assert second.epoch == first.epoch
                assert second.fence > first.fence
                with pytest.raises(LeaseLost):
                    first.lease.ensure_held()
                with pytest.raises(Superseded):
                    close_order(parts.desk, first, code, cause="late")
                assert order_state(code) == "created"
                close_order(parts.desk, second, code, cause="in time")
        assert order_state(code) == "closed"
    assert kit.broken() == []


def test_a_holder_that_has_not_written_yet_is_superseded_by_a_claim_without_the_service(
    make_kit: KitMaker, nowhere: str
) -> None:
    """A process is cut off from the service, and the other one holds its lease all the time."""
    kit = make_kit("sqlite-files")
    with kit.app() as app:
        parts: Parts = app.extensions["payonce"]
        code = Buyer(parts).order()
        cut_off = build_parts(
            replace(kit.settings, lock_url=nowhere, lock_unavailable="database"),
            gateways=parts.gateways,
        )
        with parts.desk.claim(code, actor="member") as held:
            with cut_off.desk.claim(code, actor="sweeper") as taken:
                assert taken.fence > held.fence
            held.lease.ensure_held()
            with pytest.raises(Superseded):
                close_order(parts.desk, held, code, cause="late")
            assert order_state(code) == "created"
        with parts.desk.claim(code, actor="member") as later:
            assert later.fence > taken.fence
            close_order(parts.desk, later, code, cause="in time")
        assert order_state(code) == "closed"
        cut_off.close()
    assert kit.broken() == []


def test_a_frozen_holder_writes_nothing_after_a_process_without_the_service_ended_its_payment(
    make_kit: KitMaker, nowhere: str, tmp_path: Path
) -> None:
    """Its lease stands all the time, by its own clock and by the service's."""
    kit = make_kit("postgresql-redis")
    cut_off = build_parts(replace(kit.settings, lock_url=nowhere, lock_unavailable="database"))
    with freezing_pair(kit, tmp_path) as pair:
        code = pair.member.order()
        pay = partial(pair.pay, code, "wechatpay")
        with pair.frozen_at("after_prepay", pay) as late:
            with kit.app(cut_off):
                cut_off.payments.cancel(pair.member.id, code)
                assert order_state(code) == "closed"
            left = books(kit.database_url)
        assert late.result().code == "superseded", late.result()
        assert books(kit.database_url) == left
    assert kit.sandbox.charges(code) == []
    assert kit.broken() == []


def test_a_process_of_another_lock_service_does_not_go_on_by_the_database(
    make_kit: KitMaker, nowhere: str
) -> None:
    kit = make_kit("sqlite-files", **GO_ON)
    kit.lock_url = nowhere
    with kit.app() as app:
        parts: Parts = app.extensions["payonce"]
        buyer = Buyer(parts)
        code, other = buyer.order(), buyer.order()
        assert buyer.pay(code) == "pending"
        adopt(OtherRealm(), parts.clock)
        for refused in (code, other):
            with pytest.raises(LockServiceUnavailable):
                buyer.pay(refused)
        assert order_state(other) == "created"
        epoch = current_epoch()
        assert epoch is not None
        assert epoch.number == 2
    assert kit.broken() == []


class OtherRealm(YesLock):
    """Names a realm of its own; nothing is acquired of it."""

    def realm(self) -> str:
        """See LeaseLock."""
        return "zookeeper:of-the-tests"
