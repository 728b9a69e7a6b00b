"""WeChat Pay's three modes: whose signatures are believed, and when certificates are asked for."""

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from config.settings import SettingsError, WeChatPaySettings
from shop.gateways.base import NoticeRefused, Outcome, PrepayRequest, Product, QueryResult
from shop.gateways.wechatpay import WeChatPay
from shop.gateways.wechatpay_keys import EXPIRY_MARGIN, MIN_INTERVAL, REFRESH_EVERY
from tests.integration.gateway_server import (
    GatewayServer,
    Reply,
    Seen,
    gateway_server,
    wechatpay_envelope,
    wechatpay_error,
    wechatpay_reply,
)
from tests.integration.keys import wechatpay_keys
from tests.integration.third_party import wechatpay_transaction
from tests.integration.wechatpay_platform import (
    Platform,
    certificate_list,
    listed,
    platform,
)

KEYS = wechatpay_keys()
NUMBER = "PO20260101000001"
CERTIFICATES = "/v3/certificates"
OLD, NEW = platform(1), platform(2)


@pytest.fixture(scope="module")
def running() -> Iterator[GatewayServer]:
    with gateway_server() as server:
        yield server


@pytest.fixture
def server(running: GatewayServer) -> GatewayServer:
    running.reset()
    return running


@dataclass
class MovedClock:
    """The machine's clock, moved by `ahead`."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Gate:
    """The gateway's side: what is in the list, and what signs the other answers."""

    server: GatewayServer
    clock: MovedClock
    certificates: tuple[Platform, ...] = (OLD,)
    signer: Platform | None = OLD
    list_down: bool = False

    def answer(self, seen: Seen) -> Reply:
        now = self.clock.now()
        if seen.target == CERTIFICATES:
            if self.list_down:
                return wechatpay_error(500, "SYSTEM_ERROR")
            entries = [listed(KEYS, one) for one in self.certificates]
            return certificate_list(KEYS, entries, signer=self.certificates[0], now=now)
        paid = wechatpay_transaction(KEYS, NUMBER, 8_888)
        if self.signer is None:
            return wechatpay_reply(KEYS, paid)
        return self.signer.reply(KEYS, paid, now=now)

    def asked_for_certificates(self) -> int:
        return sum(seen.target == CERTIFICATES for seen in self.server.requests)


def settings(url: str, **changes: Any) -> WeChatPaySettings:
    by_certificates = {"public_key_id": "", "public_key_pem": "", "fetch_certs": True}
    return replace(KEYS.settings(url), **{**by_certificates, **changes})


def build(chosen: WeChatPaySettings, clock: MovedClock) -> WeChatPay:
    return WeChatPay(chosen, connect_timeout_ms=5_000, read_timeout_ms=30_000, clock=clock)


@pytest.fixture
def gate(server: GatewayServer) -> Gate:
    found = Gate(server, MovedClock())
    server.script = found.answer
    return found


@pytest.fixture
def gateway(gate: Gate) -> WeChatPay:
    return build(settings(gate.server.url), gate.clock)


def migrating(gate: Gate) -> WeChatPay:
    return build(replace(KEYS.settings(gate.server.url), fetch_certs=True), gate.clock)


def read(result: QueryResult) -> tuple[Outcome, str | None]:
    return result.outcome, result.fault.code if result.fault else None


def sealed_notice(signer: Platform | None, clock: MovedClock) -> tuple[dict[str, str], bytes]:
    """A payment's notice: signed under a certificate, or by the public key."""
    nonce = "0123456789ab"
    text = json.dumps(wechatpay_transaction(KEYS, NUMBER, 8_888)).encode()
    content = AESGCM(KEYS.apiv3_key.encode()).encrypt(nonce.encode(), text, b"transaction")
    body = json.dumps(
        {
            "id": "EV-1",
            "resource_type": "encrypt-resource",
            "event_type": "TRANSACTION.SUCCESS",
            "resource": {
                "original_type": "transaction",
                "algorithm": "AEAD_AES_256_GCM",
                "ciphertext": base64.b64encode(content).decode(),
                "associated_data": "transaction",
                "nonce": nonce,
            },
        }
    ).encode()
    if signer is None:
        return wechatpay_envelope(KEYS, body), body
    return signer.envelope(KEYS, body, now=clock.now()), body


def reason(gateway: WeChatPay, headers: dict[str, str], body: bytes) -> str:
    with pytest.raises(NoticeRefused) as refused:
        gateway.read_notice(headers, body)
    return refused.value.reason


def test_making_a_gateway_asks_nobody_and_its_first_call_asks_for_certificates_once(
    gate: Gate, gateway: WeChatPay
) -> None:
    assert gate.server.requests == []
    for _ in range(3):
        assert read(gateway.query(NUMBER)) == (Outcome.SUCCEEDED, None)
    assert gate.asked_for_certificates() == 1
    assert len(gate.server.requests) == 4
    # Without it the gateway signs under a certificate.
    assert not any("Wechatpay-Serial" in seen.headers for seen in gate.server.requests)


def test_certificates_given_beforehand_need_no_list(gate: Gate) -> None:
    given = settings(
        gate.server.url, fetch_certs=False, platform_certs_pem=NEW.pem + "\r\n" + OLD.pem
    )
    gateway = build(given, gate.clock)
    assert read(gateway.query(NUMBER)) == (Outcome.SUCCEEDED, None)
    gate.signer = platform(3)
    assert read(gateway.query(NUMBER)) == (Outcome.UNKNOWN, "bad_signature")
    assert gate.asked_for_certificates() == 0


def test_while_a_merchant_migrates_answers_follow_the_key_and_notices_may_come_by_either(
    gate: Gate,
) -> None:
    gateway, gate.signer = migrating(gate), None
    assert read(gateway.query(NUMBER)) == (Outcome.SUCCEEDED, None)
    assert gate.server.requests[0].headers["Wechatpay-Serial"] == KEYS.public_key_id
    assert gate.asked_for_certificates() == 0
    for signer in (None, OLD, None, OLD):
        notice = gateway.read_notice(*sealed_notice(signer, gate.clock))
        assert notice.out_trade_no == NUMBER
    assert gate.asked_for_certificates() == 1


def test_in_public_key_mode_a_certificates_serial_asks_for_nothing(gate: Gate) -> None:
    gateway = build(KEYS.settings(gate.server.url), gate.clock)
    assert reason(gateway, *sealed_notice(OLD, gate.clock)) == "unknown_serial"
    assert gate.server.requests == []


def test_a_certificate_under_another_serial_is_not_its_key(gate: Gate, gateway: WeChatPay) -> None:
    gate.certificates = (OLD, NEW)
    headers, body = sealed_notice(OLD, gate.clock)
    assert gateway.read_notice(headers, body).notice_id == "EV-1"
    assert reason(gateway, {**headers, "Wechatpay-Serial": NEW.serial}, body) == "bad_signature"


def test_strange_serials_cause_one_request_a_minute_however_many_come(
    gate: Gate, gateway: WeChatPay
) -> None:
    def stranger(number: int) -> str:
        headers, body = sealed_notice(OLD, gate.clock)
        return reason(gateway, {**headers, "Wechatpay-Serial": f"{number:040X}"}, body)

    start = threading.Barrier(8)

    def together(number: int) -> str:
        start.wait()
        return stranger(number)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(together, range(1, 9))) == {"unknown_serial"}
    assert {stranger(number) for number in range(10, 30)} == {"unknown_serial"}
    assert gate.asked_for_certificates() == 1
    gate.clock.ahead += MIN_INTERVAL + timedelta(seconds=1)
    assert {stranger(number) for number in range(30, 40)} == {"unknown_serial"}
    assert gate.asked_for_certificates() == 2


def test_threads_that_need_the_first_certificates_wait_for_the_one_that_fetches(
    gate: Gate, gateway: WeChatPay
) -> None:
    start = threading.Barrier(8)

    def asked(_number: int) -> Outcome:
        start.wait()
        return gateway.query(NUMBER).outcome

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(asked, range(8))) == {Outcome.SUCCEEDED}
    assert gate.asked_for_certificates() == 1


def test_a_slow_list_holds_one_caller_and_no_stranger_beside_it(gate: Gate) -> None:
    gateway, gate.signer = migrating(gate), None
    asked, answered = threading.Event(), threading.Event()

    def slow(seen: Seen) -> Reply:
        if seen.target == CERTIFICATES:
            asked.set()
            answered.wait(60)
        return gate.answer(seen)

    gate.server.script = slow
    notice = sealed_notice(OLD, gate.clock)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.read_notice, *notice)
        assert asked.wait(30)
        try:
            # None of these can have waited for the list: it has not come.
            assert reason(gateway, *notice) == "unknown_serial"
            assert read(gateway.query(NUMBER)) == (Outcome.SUCCEEDED, None)
            assert not first.done()
        finally:
            answered.set()
        assert first.result().out_trade_no == NUMBER
    assert gate.asked_for_certificates() == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"Wechatpay-Timestamp": "1"},
        {"Wechatpay-Signature": "WECHATPAY/SIGNTEST/AAAA"},
        {"Wechatpay-Signature-Type": "HMAC"},
        {"Wechatpay-Serial": "../certificates"},
        {"Wechatpay-Serial": "A" * 41},
    ],
)
def test_a_callback_that_cannot_be_true_asks_for_nothing(
    gate: Gate, gateway: WeChatPay, changes: dict[str, str]
) -> None:
    headers, body = sealed_notice(OLD, gate.clock)
    reason(gateway, {**headers, **changes}, body)
    assert gate.server.requests == []


def test_a_new_certificate_is_known_as_soon_as_something_is_signed_under_it(
    gate: Gate, gateway: WeChatPay
) -> None:
    assert read(gateway.query(NUMBER)) == (Outcome.SUCCEEDED, None)
    gate.certificates, gate.signer = (NEW, OLD), NEW
    gate.clock.ahead += MIN_INTERVAL + timedelta(seconds=1)
    assert read(gateway.query(NUMBER)) == (Outcome.SUCCEEDED, None)
    # What was under way is still believed under the old one, while that is in the list.
    assert gateway.read_notice(*sealed_notice(OLD, gate.clock)).notice_id == "EV-1"
    assert gate.asked_for_certificates() == 2


def test_certificates_are_asked_for_anew_in_time_and_what_is_gone_from_the_list_is_not_believed(
    gate: Gate, gateway: WeChatPay
) -> None:
    gateway.query(NUMBER)
    gate.certificates, gate.signer = (NEW,), NEW
    gate.clock.ahead += REFRESH_EVERY + timedelta(seconds=1)
    assert read(gateway.query(NUMBER)) == (Outcome.SUCCEEDED, None)
    assert gate.asked_for_certificates() == 2
    gate.clock.ahead += MIN_INTERVAL + timedelta(seconds=1)
    assert reason(gateway, *sealed_notice(OLD, gate.clock)) == "unknown_serial"


def test_the_next_certificate_is_there_before_the_present_one_ends(gate: Gate) -> None:
    ending = platform(1, ends_at=datetime.now(UTC) + EXPIRY_MARGIN + timedelta(hours=2))
    gate.certificates, gate.signer = (ending,), ending
    gateway = build(settings(gate.server.url), gate.clock)
    gateway.query(NUMBER)
    gate.clock.ahead += timedelta(hours=1, minutes=59)
    gateway.query(NUMBER)
    assert gate.asked_for_certificates() == 1
    gate.certificates = (NEW, ending)
    gate.clock.ahead += timedelta(minutes=2)
    gateway.query(NUMBER)
    assert gate.asked_for_certificates() == 2
    gate.signer, gate.list_down = NEW, True
    gate.clock.ahead += timedelta(hours=5)
    assert read(gateway.query(NUMBER)) == (Outcome.SUCCEEDED, None)


def test_a_failed_refresh_keeps_what_there_was_but_never_beyond_its_end(gate: Gate) -> None:
    ending = platform(1, ends_at=datetime.now(UTC) + timedelta(days=3))
    gate.certificates, gate.signer = (ending,), ending
    gateway = build(settings(gate.server.url), gate.clock)
    gateway.query(NUMBER)
    gate.list_down = True
    gate.clock.ahead += timedelta(days=2)
    assert read(gateway.query(NUMBER)) == (Outcome.SUCCEEDED, None)
    assert gate.asked_for_certificates() == 2
    gate.clock.ahead += timedelta(days=2)
    assert read(gateway.query(NUMBER)) == (Outcome.UNKNOWN, "no_certificates")
    assert reason(gateway, *sealed_notice(ending, gate.clock)) == "unknown_serial"


def test_without_any_certificate_nothing_is_sent_and_the_fault_says_so(
    gate: Gate, gateway: WeChatPay
) -> None:
    gate.list_down = True
    prepay = gateway.prepay(
        PrepayRequest(
            out_trade_no=NUMBER,
            amount_fen=1,
            subject="保温杯",
            expires_at=datetime.now(UTC) + timedelta(minutes=30),
            notify_url="http://127.0.0.1:9/",
            product=Product.NATIVE,
        )
    )
    assert (prepay.outcome, prepay.sent) == (Outcome.UNKNOWN, False)
    assert prepay.fault is not None
    assert prepay.fault.code == "no_certificates"
    assert read(gateway.query(NUMBER)) == (Outcome.UNKNOWN, "no_certificates")
    assert [seen.target for seen in gate.server.requests] == [CERTIFICATES]
    gate.list_down = False
    gate.clock.ahead += MIN_INTERVAL + timedelta(seconds=1)
    assert read(gateway.query(NUMBER)) == (Outcome.SUCCEEDED, None)


def long_ago(days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


@pytest.mark.parametrize(
    "entry",
    [
        listed(KEYS, OLD, serial_no=NEW.serial),
        listed(KEYS, OLD, expire_time="2020-01-01T00:00:00+08:00"),
        listed(KEYS, platform(1, starts_at=long_ago(9), ends_at=long_ago(1))),
        listed(KEYS, platform(1, starts_at=long_ago(-1), ends_at=long_ago(-9))),
        listed(replace(KEYS, apiv3_key="0" * 32), OLD),
        listed(KEYS, OLD, encrypt_certificate={"algorithm": "AEAD_SM4_GCM"}),
        listed(KEYS, OLD, encrypt_certificate=None),
        {},
    ],
    ids=[
        "other serial",
        "retired",
        "ended",
        "not begun",
        "other key",
        "other cipher",
        "none",
        "{}",
    ],
)
def test_a_certificate_that_does_not_hold_is_not_taken(
    server: GatewayServer, entry: dict[str, Any]
) -> None:
    clock = MovedClock()
    server.script = lambda _seen: certificate_list(KEYS, [entry], signer=OLD)
    gateway = build(settings(server.url), clock)
    assert read(gateway.query(NUMBER)) == (Outcome.UNKNOWN, "no_certificates")
    assert len(server.requests) == 1


def test_one_entry_that_cannot_be_read_does_not_spoil_the_rest(server: GatewayServer) -> None:
    clock = MovedClock()

    def answer(seen: Seen) -> Reply:
        if seen.target == CERTIFICATES:
            return certificate_list(KEYS, [{}, listed(KEYS, OLD)], signer=OLD)
        return OLD.reply(KEYS, wechatpay_transaction(KEYS, NUMBER, 1))

    server.script = answer
    assert build(settings(server.url), clock).query(NUMBER).outcome is Outcome.SUCCEEDED


def test_a_list_that_is_not_signed_by_the_platform_is_not_taken(server: GatewayServer) -> None:
    good = certificate_list(KEYS, [listed(KEYS, OLD)], signer=OLD)
    forged = certificate_list(KEYS, [listed(KEYS, OLD)], signer=NEW)
    by_name = {**forged.headers, "Wechatpay-Serial": OLD.serial}
    for said in (
        forged,
        replace(forged, headers=by_name),
        replace(good, headers={}),
        replace(good, body=good.body + b" "),
    ):
        server.script = partial(lambda said, _seen: said, said)
        gateway = build(settings(server.url), MovedClock())
        assert read(gateway.query(NUMBER)) == (Outcome.UNKNOWN, "no_certificates")


@pytest.mark.parametrize(
    ("pem", "told"),
    [
        ("MIIC", "not PEM"),
        (KEYS.merchant.private_pem, "private key"),
        (KEYS.platform.public_pem, "not a readable certificate"),
        (platform(pair=KEYS.merchant).pem, "your own merchant certificate"),
    ],
    ids=["bare base64", "private key", "public key", "own certificate"],
)
def test_a_wrong_file_of_certificates_stops_the_start(pem: str, told: str) -> None:
    chosen = settings("http://127.0.0.1:9", fetch_certs=False, platform_certs_pem=pem)
    with pytest.raises(SettingsError, match=f"WECHATPAY_PLATFORM_CERTS: .*{told}"):
        build(chosen, MovedClock())
