"""T6: with its lock service away the shop says so clearly, does nothing by halves, and recovers."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.books import books, notices_in
from tests.faults.conftest import KitMaker
from tests.faults.notices import trade_at
from tests.faults.storm import Storm
from tests.processes import wait_http, wait_until
from tests.services import RedisServer, ZooKeeperServer
from tests.shopclient import Answer, Call

pytestmark = pytest.mark.faults


@dataclass(frozen=True, kw_only=True)
class Outage:
    """A lock service, and a way for it to be away: killed, or stopped with its port still open."""

    server: RedisServer | ZooKeeperServer
    stopped: bool

    @property
    def lock_url(self) -> str:
        server = self.server
        return server.url if isinstance(server, RedisServer) else server.url("payonce")

    def begin(self) -> None:
        if self.stopped:
            self.server.process.sigstop()
        else:
            self.server.process.kill9()

    def end(self) -> None:
        if self.stopped:
            self.server.process.sigcont()
        else:
            self.server.start()


OUTAGES = [
    (RedisServer, False),
    (RedisServer, True),
    (ZooKeeperServer, False),
    (ZooKeeperServer, True),
]


@pytest.fixture(
    params=OUTAGES, ids=["redis-killed", "redis-stopped", "zookeeper-killed", "zookeeper-stopped"]
)
def outage(request: pytest.FixtureRequest) -> Iterator[Outage]:
    kind, stopped = request.param
    with kind() as server:
        yield Outage(server=server, stopped=stopped)


def assert_refused_for_now(answer: Answer) -> None:
    assert (answer.status, answer.code) == (503, "lock-service-unavailable"), answer
    assert int(answer.headers["retry-after"]) > 0


def test_payments_pause_while_the_lock_service_is_away_and_go_on_when_it_is_back(
    make_kit: KitMaker, outage: Outage
) -> None:
    kit = make_kit("sqlite-files")
    kit.lock_url = outage.lock_url
    storm = Storm(kit=kit, urls=kit.webs(1))
    member = storm.member()
    code, key, pending = member.order(), uuid.uuid4().hex, member.order()
    assert member.client.pay(pending, "wechatpay", key=uuid.uuid4().hex).send().status == 200

    outage.begin()
    before = books(kit.database_url)
    assert_refused_for_now(member.client.pay(code, "wechatpay", key=key).send())
    assert_refused_for_now(member.client.post(f"/orders/{pending}/cancel"))
    ready = Call(url=f"{kit.url}/readyz", method="GET").send()
    assert (ready.status, ready.json["database"]) == (503, "ok")
    assert ready.json["lock"].startswith("down")
    assert Call(url=f"{kit.url}/healthz", method="GET").send().status == 200

    # Money that comes in meanwhile is written down and acknowledged.
    number = member.pay_at_phone(pending)
    wait_until(lambda: bool(deliveries(storm, number)), "the notice was answered")
    assert deliveries(storm, number) == ["acknowledged"]
    [stored] = notices_in(kit.database_url, number)
    assert stored["state"] == "verified"
    assert books(kit.database_url) == before

    outage.end()
    wait_http(f"{kit.url}/readyz")
    assert member.client.pay(code, "wechatpay", key=key).send().status == 200
    member.pay_at_phone(code)
    member.wait_until_order_is(code, "paid")
    with storm.parts() as parts:

        def is_swept() -> bool:
            parts.sweeper.run_once()
            return member.state_of(pending) == "paid"

        wait_until(is_swept, "the sweeper applies the stored notice")
    assert len(kit.sandbox.charges(code)) == len(kit.sandbox.charges(pending)) == 1
    assert kit.broken() == []


def deliveries(storm: Storm, number: str) -> list[str]:
    """What the gateway heard each time it told of the payment."""
    [notice] = trade_at(storm.kit.sandbox, number)["notices"]
    return [one["result"] for one in notice["deliveries"]]
