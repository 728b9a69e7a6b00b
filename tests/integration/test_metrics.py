"""`/metrics` of a running shop: workers and the sweeper add up, and only who may see it does."""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from locks import from_url, hold
from shop.errors import LockServiceUnavailable, Superseded
from shop.metrics import instruments
from shop.orders.moves import Claim, fenced_transaction
from shop.payments import store
from shop.payments.contract import PayCommand
from shop.wiring import Parts, build_parts
from tests.faults.storm import Storm
from tests.processes import free_port, process_exists, wait_until
from tests.shopclient import Answer, Call
from tests.shopkit import Sandbox, ShopKit, make_member, make_order, make_product

TOKEN = "a metrics token of at least 32 characters"


class Measured:
    """A shop of two workers whose metrics are on."""

    def __init__(self, kit: ShopKit, folder: Path) -> None:
        self.kit = kit
        self.folder = folder
        self.web = kit.web(workers=2)
        self.storm = Storm(kit=kit, urls=[kit.url])

    def ask(self, token: str | None = TOKEN) -> Answer:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return Call(url=f"{self.kit.url}/metrics", method="GET", headers=headers).send()

    def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        answer = self.ask()
        assert answer.status == 200, answer
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.samples().get((name, frozenset(labels.items())), 0.0)

    def workers(self) -> set[int]:
        """The PIDs of those that have counted something and live."""
        found = {
            int(path.stem.rpartition("_")[2])
            for path in self.folder.glob("*.db")
            # It begins with how many bytes are in use.
            if path.read_bytes()[:4].strip(b"\0")
        }
        return {pid for pid in found if pid and process_exists(pid)}

    def look_until_both_answered(self) -> int:
        """Open a page until each worker has answered; how often that was."""
        times = 0

        def look() -> bool:
            nonlocal times
            times += 1
            assert Call(url=f"{self.kit.url}/healthz", method="GET").send().status == 200
            return len(self.workers()) >= 2

        wait_until(look, "both workers have answered")
        return times

    def health_checks(self) -> float:
        labels = {"method": "GET", "route": "/healthz", "status": "200"}
        return self.value("payonce_http_request_duration_seconds_count", **labels)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def shop(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = tmp_path_factory.mktemp("measured")
    kit = ShopKit(
        database_url=f"sqlite:///{folder / 'shop.db'}",
        lock_url=f"file://{folder / 'locks'}",
        sandbox=sandbox,
        folder=folder,
        extra_env={
            "METRICS_TOKEN": TOKEN,
            # Made by the shop itself.
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "new" / "metrics"),
        },
    )
    try:
        yield Measured(kit.migrate(), folder / "new" / "metrics")
    finally:
        kit.stop()


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], f"{TOKEN} "[1:], "密码"])
def test_who_has_not_the_token_is_told_nothing(shop: Measured, token: str | None) -> None:
    if token == "密码":
        headers = {"Authorization": b"Bearer \xff\xfe".decode("latin-1")}
        answer = Call(url=f"{shop.kit.url}/metrics", method="GET", headers=headers).send()
    else:
        answer = shop.ask(token)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert b"payonce_" not in answer.body


def test_prometheus_is_answered_in_its_own_format(shop: Measured) -> None:
    answer = shop.ask()
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert b"# TYPE payonce_http_request_duration_seconds histogram" in answer.body


def test_the_requests_of_all_workers_are_counted_whichever_is_asked(shop: Measured) -> None:
    before = shop.health_checks()
    times = shop.look_until_both_answered()
    assert len(shop.workers()) == 2
    assert {shop.health_checks() for _ in range(8)} == {before + times}


def test_what_a_killed_worker_counted_stays(shop: Measured) -> None:
    shop.look_until_both_answered()
    before = shop.health_checks()
    killed = sorted(shop.workers())[0]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not process_exists(killed), "the worker is gone")
    times = shop.look_until_both_answered()
    assert shop.health_checks() == before + times
    assert not list(shop.folder.glob(f"*_{killed}.db"))


def test_a_payment_is_counted_from_the_lease_to_the_notice(shop: Measured) -> None:
    member = shop.storm.member()
    code = member.order()
    before = shop.samples()
    assert member.client.pay(code, "alipay", key=uuid.uuid4().hex).send().status == 200
    member.pay_at_phone(code)
    member.wait_until_order_is(code, "paid")
    wait_until(lambda: shop.value("payonce_notices_total", **NOTICED) > 0, "the notice is counted")
    after = shop.samples()

    def more(name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return after.get(key, 0.0) - before.get(key, 0.0)

    assert more("payonce_pay_requests_total", channel="alipay", outcome="accepted") == 1
    assert more("payonce_payments_total", channel="alipay", outcome="settled") == 1
    assert more("payonce_notices_total", **NOTICED) == 1
    # One lease to begin the payment, one to apply the notice.
    assert more("payonce_lock_wait_seconds_count", backend="file", outcome="granted") == 2
    assert more("payonce_lock_hold_seconds_count", backend="file") == 2
    assert more("payonce_lock_queue_length_bucket", backend="file", le="0.0") == 2
    route = {"method": "POST", "route": "/orders/<order_code>/pay", "status": "200"}
    assert more("payonce_http_request_duration_seconds_count", **route) == 1


NOTICED = {"channel": "alipay", "outcome": "applied"}


def test_a_request_that_waits_in_vain_for_its_lease_is_counted_so(shop: Measured) -> None:
    member = shop.storm.member()
    code = member.order()
    labels = {"backend": "file", "outcome": "timed_out"}
    refused = {"channel": "wechatpay", "outcome": "payment-in-progress"}
    before = shop.value("payonce_lock_wait_seconds_count", **labels)
    with hold(from_url(shop.kit.lock_url), code, lease_ms=60_000, wait_ms=0):
        answer = member.client.pay(code, "wechatpay", key=uuid.uuid4().hex).send()
    assert answer.code == "payment-in-progress"
    assert shop.value("payonce_lock_wait_seconds_count", **labels) == before + 1
    assert shop.value("payonce_pay_requests_total", **refused) >= 1


def test_a_callback_that_is_not_believed_is_counted_with_the_reason(shop: Measured) -> None:
    answer = Call(url=f"{shop.kit.url}/webhooks/wechatpay", body=b"{}").send()
    assert answer.status >= 400
    found = {
        (dict(labels)["channel"], dict(labels)["outcome"])
        for (name, labels) in shop.samples()
        if name == "payonce_notices_total"
    }
    assert found & {("wechatpay", "malformed"), ("wechatpay", "bad_signature")}


def test_the_sweepers_rounds_are_added(shop: Measured) -> None:
    before = shop.value("payonce_sweeper_rounds_total", outcome="done")
    for number in (1, 2):
        shop.kit.sweep_once()
        assert shop.value("payonce_sweeper_rounds_total", outcome="done") == before + number


def test_a_path_that_nobody_serves_becomes_no_label(shop: Measured) -> None:
    path = f"/{uuid.uuid4().hex}"
    assert Call(url=shop.kit.url + path, method="GET").send().status == 404
    assert path.encode() not in shop.ask().body
    labels = {"method": "GET", "route": "none", "status": "404"}
    assert shop.value("payonce_http_request_duration_seconds_count", **labels) >= 1


# Inside the test


@pytest.fixture
def quiet(shop: Measured) -> ShopKit:
    """The same shop with its metrics off."""
    kit = ShopKit(shop.kit.database_url, shop.kit.lock_url, shop.kit.sandbox, shop.kit.folder)
    return kit


def test_without_a_token_there_is_no_such_page(quiet: ShopKit) -> None:
    with quiet.app() as app:
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}"}):
            assert app.test_client().get("/metrics", headers=headers).status_code == 404


def test_the_lock_tells_nobody_where_nobody_counts(shop: Measured, quiet: ShopKit) -> None:
    """Told by the wiring: a lock with an observer counts, one without does not."""

    def granted() -> float:
        labels = {"backend": "file", "outcome": "granted"}
        name = "payonce_lock_wait_seconds_count"
        return instruments.REGISTRY.get_sample_value(name, labels) or 0.0

    for kit, counts in ((quiet, 0), (shop.kit, 1)):
        before = granted()
        lock = build_parts(kit.settings).lock
        with hold(lock, "wired", lease_ms=60_000, wait_ms=0):
            assert granted() == before + counts
        lock.close()


def new_order(parts: Parts) -> PayCommand:
    """A new order, and the wish to pay it."""
    member_id = make_member(parts)
    code = make_order(parts, member_id, make_product(parts))
    return PayCommand(member_id=member_id, order_code=code, channel="alipay")


def pay(parts: Parts) -> None:
    """A new order begins to be paid."""
    parts.payments.pay(new_order(parts))


def test_a_claim_made_without_the_lock_service_is_counted(quiet: ShopKit) -> None:
    def degraded() -> float:
        name = "payonce_claims_degraded_total"
        return instruments.REGISTRY.get_sample_value(name, {"claimed_by": "database"}) or 0.0

    with quiet.app() as app:  # the books believe in files, whose fences are those of Redis
        pay(app.extensions["payonce"])
    before = degraded()
    quiet.lock_url = f"redis://127.0.0.1:{free_port()}/0"
    with quiet.app() as app, pytest.raises(LockServiceUnavailable):
        pay(app.extensions["payonce"])
    assert degraded() == before
    quiet.extra_env["LOCK_UNAVAILABLE"] = "database"
    with quiet.app() as app:
        pay(app.extensions["payonce"])
    assert degraded() > before
    assert quiet.broken() == []


def test_a_write_of_an_overtaken_holder_is_counted_as_refused(quiet: ShopKit) -> None:
    def refused() -> float:
        name = "payonce_fences_refused_total"
        return instruments.REGISTRY.get_sample_value(name, {"overtaken_by": "holder"}) or 0.0

    def write(claim: Claim) -> None:
        order = store.fresh_order(code)
        assert order is not None
        fenced_transaction(claim, lambda: desk.moves.hold_order(order, claim))

    with quiet.app() as app:
        desk = app.extensions["payonce"].desk
        code = new_order(app.extensions["payonce"]).order_code
        before = refused()
        with desk.claim(code, actor="member") as late:
            desk.lock.break_lease(code)
            with desk.claim(code, actor="sweeper") as later:
                write(later)
                assert refused() == before
                with pytest.raises(Superseded):
                    write(late)
        assert refused() == before + 1
