"""The guard before real gateways at a server that hangs, fails or answers as told.

How long a circuit rests is real time here: long where nothing may pass, short where the rest must
end.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from inspect import get_annotations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.clock import SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.base import Cancelling, Gateway, LoginRefused, Outcome, Product
from shop.gateways.guard import BUSY, RESTING, Guard, Places, is_resting
from shop.gateways.guard_circuit import Circuit
from shop.gateways.guard_observe import GatewayObserver
from shop.gateways.guard_retry import TRIES_MAX
from shop.gateways.guards import Guards
from shop.gateways.wechatpay import WeChatPay
from tests.integration.gateway_server import (
    GatewayServer,
    Reply,
    Seen,
    alipay_reply,
    gateway_server,
    wechatpay_error,
    wechatpay_reply,
)
from tests.integration.keys import alipay_keys, wechatpay_keys
from tests.integration.test_gateway_wechatpay import NUMBER, REFUND, prepay_request
from tests.integration.third_party import wechatpay_transaction
from tests.processes import free_port, wait_until

KEYS = wechatpay_keys()
FAILURES = 3
FOREVER_MS = 600_000
PATIENCE_S = 30


@pytest.fixture
def server() -> Iterator[GatewayServer]:
    with gateway_server() as running:
        yield running


class Told(GatewayObserver):
    """What an observer hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def answered(self, channel: str, call: str, outcome: str, took_ns: int) -> None:
        self.heard.append((call, outcome))

    def repeated(self, channel: str, call: str) -> None:
        self.heard.append((call, "again"))

    def turned_away(self, channel: str, call: str, why: str) -> None:
        self.heard.append((call, why))

    def rests(self, channel: str, resting: bool) -> None:
        self.heard.append(("rests", resting))


class Shop:
    """One process's guards, and merchants whose gateway is the server."""

    def __init__(self, url: str, *, concurrency: int = 4, rest_ms: int = FOREVER_MS) -> None:
        self.url = url
        self.told = Told()
        self.guards = Guards(
            concurrency=concurrency,
            concurrency_of_all=2 * concurrency,
            failures=FAILURES,
            rest_ms=rest_ms,
            observer=self.told,
        )

    def merchant(
        self, name: str = "default", *, url: str = "", read_timeout_ms: int = 20_000
    ) -> Guard:
        """Its gateway, made anew as after a change of its keys."""
        url = url or self.url
        gateway = WeChatPay(
            KEYS.settings(url),
            connect_timeout_ms=5_000,
            read_timeout_ms=read_timeout_ms,
            clock=SystemClock(),
        )
        return self.guards.around(gateway, merchant=name, base_url=url)


def paid(_seen: Seen) -> Reply:
    return wechatpay_reply(KEYS, wechatpay_transaction(KEYS, NUMBER, 8_888))


def unwell(_seen: Seen) -> Reply:
    return wechatpay_error(503, "SERVICE_UNAVAILABLE")


def too_often(_seen: Seen) -> Reply:
    return wechatpay_error(429, "FREQUENCY_LIMITED")


def not_there(_seen: Seen) -> Reply:
    return wechatpay_error(404, "ORDER_NOT_EXIST")


def code_of(gateway: Gateway) -> str:
    fault = gateway.query(NUMBER).fault
    return fault.code if fault else ""


@pytest.fixture
def hanging(server: GatewayServer) -> Iterator[threading.Event]:
    """The server answers nobody until the event is set."""
    let_go = threading.Event()

    def hang(_seen: Seen) -> Reply:
        let_go.wait(60)
        return paid(_seen)

    server.script = hang
    yield let_go
    let_go.set()


# Circuits


def test_a_gateway_that_fails_again_and_again_is_asked_no_more(server: GatewayServer) -> None:
    shop = Shop(server.url)
    gateway = shop.merchant()
    server.script = unwell
    said = [code_of(gateway) for _ in range(FAILURES + 2)]
    assert said == ["SERVICE_UNAVAILABLE"] * FAILURES + [RESTING] * 2
    assert len(server.requests) == FAILURES * TRIES_MAX
    assert is_resting(gateway)
    assert shop.told.heard[-3:] == [("rests", True), ("query", RESTING), ("query", RESTING)]


def test_of_many_that_ask_after_the_rest_one_gets_through_and_its_answer_ends_it(
    server: GatewayServer,
) -> None:
    shop = Shop(server.url, rest_ms=200)
    gateway = shop.merchant()
    server.script = unwell
    for _ in range(FAILURES):
        gateway.query(NUMBER)
    wait_until(lambda: not is_resting(gateway), "its rest is over")
    server.requests.clear()
    let_go = threading.Event()

    def slowly(seen: Seen) -> Reply:
        let_go.wait(60)
        return paid(seen)

    server.script = slowly
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(code_of, gateway) for _ in range(8)]
        wait_until(lambda: sum(one.done() for one in asked) == 7, "seven are turned away")
        let_go.set()
        said = sorted(one.result(PATIENCE_S) for one in asked)
    assert said == ["", *[RESTING] * 7]
    assert len(server.requests) == 1
    assert code_of(gateway) == ""
    assert shop.told.heard.count(("rests", False)) == 1


def test_who_is_still_away_after_a_rest_is_given_another_at_once() -> None:
    circuit = Circuit(failures=FAILURES, rest_s=1)
    for _ in range(FAILURES):
        turn = circuit.enter()
        assert turn is not None
        circuit.leave(turn, failed=True)
    wait_until(lambda: not circuit.resting, "the rest is over")
    probe = circuit.enter()
    assert probe is not None
    circuit.leave(probe, failed=True)
    assert circuit.resting


@pytest.mark.parametrize("script", [not_there, paid])
def test_a_gateway_that_answers_is_well_whatever_it_says(
    server: GatewayServer, script: Callable[[Seen], Reply]
) -> None:
    gateway = Shop(server.url).merchant()
    server.script = script
    for _ in range(3 * FAILURES):
        gateway.query(NUMBER)
    assert len(server.requests) == 3 * FAILURES
    assert not is_resting(gateway)


def test_a_host_that_is_away_is_away_for_every_merchant_and_their_new_keys(
    server: GatewayServer,
) -> None:
    shop = Shop(server.url)
    first = shop.merchant("press")
    server.script = unwell
    for _ in range(FAILURES):
        first.query(NUMBER)
    assert code_of(shop.merchant("garden")) == RESTING
    assert code_of(shop.merchant("press")) == RESTING


def test_too_many_questions_of_one_merchant_are_no_trouble_of_another(
    server: GatewayServer,
) -> None:
    shop = Shop(server.url)
    eager, other = shop.merchant("press"), shop.merchant("garden")
    server.script = too_often
    said = [code_of(eager) for _ in range(FAILURES + 1)]
    assert said == ["FREQUENCY_LIMITED"] * FAILURES + [RESTING]
    assert len(server.requests) == FAILURES, "none was repeated"
    server.script = paid
    assert code_of(other) == ""
    assert code_of(shop.merchant("press")) == RESTING, "new keys change nothing of it"


@pytest.mark.parametrize("sub_code", ["isv.app-call-limited", "isv.method-call-limited"])
def test_too_many_questions_at_alipay_rest_the_account_whatever_was_too_many(
    server: GatewayServer, sub_code: str
) -> None:
    keys = alipay_keys()
    told = {"code": "40005", "msg": "Call Limited", "sub_code": sub_code}
    server.script = lambda _seen: alipay_reply(keys, "alipay.trade.query", told)
    gateway = Alipay(
        keys.settings(f"{server.url}/gateway.do"),
        connect_timeout_ms=5_000,
        read_timeout_ms=20_000,
        clock=SystemClock(),
    )
    guarded = Shop(server.url).guards.around(gateway, merchant="default", base_url=server.url)
    said = [code_of(guarded) for _ in range(FAILURES + 1)]
    assert said == [sub_code] * FAILURES + [RESTING]
    assert len(server.requests) == FAILURES, "none was repeated"


# Places


def test_a_gateway_that_hangs_keeps_its_places_and_no_thread_more(
    server: GatewayServer, hanging: threading.Event
) -> None:
    shop = Shop(server.url, concurrency=2)
    gateway = shop.merchant()
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(code_of, gateway) for _ in range(8)]
        wait_until(lambda: sum(one.done() for one in asked) == 6, "six have their answer")
        assert {one.result() for one in asked if one.done()} == {BUSY}
        assert len(server.requests) == 2
        hanging.set()
        assert [one.result(PATIENCE_S) for one in asked].count("") == 2
    assert code_of(gateway) == "", "to find no place is no failure"


def test_several_gateways_that_hang_keep_the_places_of_all_and_no_thread_more() -> None:
    let_go = threading.Event()

    def hang(seen: Seen) -> Reply:
        let_go.wait(60)
        return paid(seen)

    with ExitStack() as running, ThreadPoolExecutor(12) as threads:
        servers = [running.enter_context(gateway_server()) for _ in range(3)]
        running.callback(let_go.set)
        shop = Shop(servers[0].url, concurrency=2)  # hence four of all
        asked = []
        for number, server in enumerate(servers):
            server.script = hang
            gateway = shop.merchant(f"shop{number}", url=server.url)
            asked += [threads.submit(code_of, gateway) for _ in range(4)]
        wait_until(lambda: sum(one.done() for one in asked) == 8, "eight have their answer")
        assert {one.result() for one in asked if one.done()} == {BUSY}
        assert sum(len(server.requests) for server in servers) == 4
        let_go.set()
        assert [one.result(PATIENCE_S) for one in asked].count("") == 4
        for number, server in enumerate(servers):
            assert code_of(shop.merchant(f"shop{number}", url=server.url)) == ""


def test_a_prepay_that_finds_no_place_was_not_sent(
    server: GatewayServer, hanging: threading.Event
) -> None:
    gateway = Shop(server.url, concurrency=1).merchant()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(code_of, gateway)
        wait_until(lambda: len(server.requests) == 1, "the place is taken")
        result = gateway.prepay(prepay_request())
        assert result.fault is not None
        assert (result.outcome, result.sent) == (Outcome.UNKNOWN, False)
        assert result.fault.code == BUSY
        hanging.set()
        assert first.result(PATIENCE_S) == ""
    assert len(server.requests) == 1


def test_a_place_that_is_soon_free_is_waited_for() -> None:
    places = Places(1, patience_s=PATIENCE_S)
    taken = places.take()
    assert taken is not None
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(places.take)
        places.give_back(taken)
        assert waiting.result(PATIENCE_S) is not None


def test_a_call_that_was_wrongly_asked_frees_its_place_and_counts_as_nothing(
    server: GatewayServer,
) -> None:
    gateway = Shop(server.url, concurrency=1).merchant()
    for _ in range(FAILURES + 1):
        with pytest.raises(ValueError, match="product"):
            gateway.prepay(prepay_request(product=Product.WAP))
    server.script = paid
    assert code_of(gateway) == ""


# Trying again


def first_unwell(then: Callable[[Seen], Reply]) -> Callable[[Seen], Reply]:
    """The first request meets a 503."""
    met: list[Seen] = []

    def script(seen: Seen) -> Reply:
        met.append(seen)
        return unwell(seen) if len(met) == 1 else then(seen)

    return script


def test_a_question_is_asked_again_until_it_has_its_answer(server: GatewayServer) -> None:
    shop = Shop(server.url)
    server.script = first_unwell(paid)
    assert shop.merchant().query(NUMBER).outcome is Outcome.SUCCEEDED
    assert shop.told.heard == [("query", "again"), ("query", "succeeded")]


def test_a_closing_is_asked_again(server: GatewayServer) -> None:
    server.script = first_unwell(lambda _seen: wechatpay_reply(KEYS, status=204))
    assert Shop(server.url).merchant().close(NUMBER).outcome is Outcome.SUCCEEDED


def test_a_refund_and_a_prepay_that_may_have_arrived_are_never_sent_twice(
    server: GatewayServer,
) -> None:
    gateway = Shop(server.url).merchant()
    server.script = unwell
    results: list[Any] = [gateway.prepay(prepay_request()), gateway.refund(REFUND)]
    assert {one.outcome for one in results} == {Outcome.UNKNOWN}
    assert len(server.requests) == 2


def test_a_prepay_that_never_left_is_tried_again_and_says_so() -> None:
    shop = Shop(f"http://127.0.0.1:{free_port()}")
    result = shop.merchant().prepay(prepay_request())
    assert (result.outcome, result.sent) == (Outcome.UNKNOWN, False)
    assert shop.told.heard.count(("prepay", "again")) == TRIES_MAX - 1


def test_what_timed_out_is_not_asked_again(server: GatewayServer, hanging: threading.Event) -> None:
    gateway = Shop(server.url).merchant(read_timeout_ms=100)
    assert code_of(gateway) == "timeout"
    assert len(server.requests) == 1


# The rest


def test_the_guard_has_every_call_of_a_gateway_itself() -> None:
    """An inherited one would be the protocol's own, which does nothing."""
    calls = {name for name, one in vars(Gateway).items() if callable(one) and name[0] != "_"}
    assert calls >= {"prepay", "query", "refund"}
    assert calls - set(vars(Guard)) == set()


def test_the_guard_has_every_property_of_its_gateway(server: GatewayServer) -> None:
    jsapi = replace(
        KEYS.settings(server.url),
        products=("native", "jsapi"),
        app_secret="s" * 32,
        openid_url=f"http://127.0.0.1:{free_port()}/sns/oauth2/access_token",
    )
    guards = Guards(concurrency=2, concurrency_of_all=2, failures=FAILURES, rest_ms=FOREVER_MS)
    real = WeChatPay(jsapi, connect_timeout_ms=500, read_timeout_ms=500, clock=SystemClock())
    guarded = guards.around(real, merchant="default", base_url=server.url)
    assert set(get_annotations(Gateway)) == {"channel", "products", "account", "payer_login"}
    assert (guarded.channel, guarded.products) == (real.channel, real.products)
    assert real.payer_login is not None
    login, back = guarded.payer_login, ("http://x/back", "state")
    assert login is not None
    assert login.appid == real.payer_login.appid
    assert login.authorize_url(*back) == real.payer_login.authorize_url(*back)
    said = []
    for _ in range(FAILURES + 1):
        with pytest.raises(LoginRefused) as refused:
            login.openid_of("code")
        said.append(refused.value.code)
    assert said == ["unreachable"] * FAILURES + [RESTING]
    assert not is_resting(guarded), "who tells the openid is another host"


def test_who_cannot_cancel_cannot_cancel_when_guarded_either(server: GatewayServer) -> None:
    assert not isinstance(Shop(server.url).merchant(), Cancelling)


@given(calls=st.lists(st.sampled_from([True, False, None]), max_size=30))
def test_a_circuit_opens_exactly_when_so_many_calls_in_a_row_failed(
    calls: list[bool | None],
) -> None:
    changes: list[bool] = []
    circuit = Circuit(failures=FAILURES, rest_s=600, changed=changes.append)
    in_a_row = 0
    for failed in calls:
        turn = circuit.enter()
        assert (turn is None) is (in_a_row >= FAILURES) is circuit.resting
        if turn is None:
            break
        circuit.leave(turn, failed=failed)
        if failed is not None:
            in_a_row = in_a_row + 1 if failed else 0
    assert changes == ([True] if in_a_row >= FAILURES else [])


@given(late=st.lists(st.sampled_from([True, False, None]), max_size=10))
def test_what_was_asked_before_a_circuit_opened_neither_closes_it_nor_prolongs_its_rest(
    late: list[bool | None],
) -> None:
    changes: list[bool] = []
    circuit = Circuit(failures=1, rest_s=0.001, changed=changes.append)
    before = [circuit.enter() for _ in range(len(late) + 1)]
    turns = [turn for turn in before if turn is not None]
    assert len(turns) == len(late) + 1
    circuit.leave(turns.pop(), failed=True)
    for turn, failed in zip(turns, late, strict=True):
        circuit.leave(turn, failed=failed)
    assert changes == [True]
    while (probe := circuit.enter()) is None:
        time.sleep(0.0005)
    assert circuit.enter() is None, "one alone is let through"
    circuit.leave(probe, failed=None)
    probe = circuit.enter()
    assert probe is not None, "a call that was not made after all makes room for another"
    circuit.leave(probe, failed=False)
    assert changes == [True, False]
    assert not circuit.resting
