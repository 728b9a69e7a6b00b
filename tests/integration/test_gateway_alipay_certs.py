"""Alipay in certificate mode: what requests name, whose answers are believed, and how a renewed
certificate comes to be."""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from alipay import DCAliPay
from cryptography import x509
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from config.settings import SettingsError
from shop.clock import SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.alipay_certs import Certificates, UnknownCertificate
from shop.gateways.alipay_chain import cert_sn, certificates_of, chains_to, root_cert_sn
from shop.gateways.base import NoticeRefused, Outcome, PrepayResult, QueryResult
from shop.gateways.keys import private_key
from tests.integration.alipay_certificates import (
    Authority,
    authority,
    certified,
    certified_reply,
    content_of,
    download_reply,
    issue,
    text_of,
)
from tests.integration.gateway_server import GatewayServer, Reply, Seen, gateway_server, sign
from tests.integration.keys import AlipayKeys, new_key_pair
from tests.integration.test_gateway_alipay import METHODS, NUMBER, ask, good_fields
from tests.integration.third_party import alipay_trade

DOWNLOAD = "alipay.open.app.alipaycert.download"
ALL = certified()
OWN = private_key(ALL.keys.app.private_pem, "KEY")


@pytest.fixture(scope="module")
def running() -> Iterator[GatewayServer]:
    with gateway_server() as server:
        yield server


@pytest.fixture
def server(running: GatewayServer) -> GatewayServer:
    running.reset()
    return running


@pytest.fixture(scope="module")
def shared(running: GatewayServer) -> Alipay:
    return gateway_at(running)


def gateway_at(server: GatewayServer) -> Alipay:
    return Alipay(
        ALL.settings(f"{server.url}/gateway.do"),
        connect_timeout_ms=5_000,
        read_timeout_ms=30_000,
        clock=SystemClock(),
    )


def asked(seen: Seen) -> dict[str, str]:
    return dict(parse_qsl(seen.body.decode()))


def methods(server: GatewayServer) -> list[str]:
    return [asked(seen)["method"] for seen in server.requests]


def renewed(**changes: Any) -> tuple[AlipayKeys, x509.Certificate]:
    """Alipay's next certificate, with a key of its own."""
    keys = replace(ALL.keys, alipay=new_key_pair())
    changes.setdefault("start", datetime.now(UTC) - timedelta(days=1))
    return keys, ALL.issue(keys.alipay.public_pem, **changes)


def answering(
    keys: AlipayKeys, certificate: x509.Certificate, content: object
) -> Callable[[Seen], Reply]:
    """Answers every query as paid, signed under a certificate that can be had for `content`."""

    def script(seen: Seen) -> Reply:
        if asked(seen)["method"] == DOWNLOAD:
            return download_reply(content)
        return certified_reply(keys, certificate, METHODS["query"], good_fields("query"))

    return script


@pytest.mark.parametrize("call", METHODS)
def test_an_answer_under_the_configured_certificate_is_believed(
    server: GatewayServer, call: str
) -> None:
    server.script = lambda _: certified_reply(
        ALL.keys, ALL.alipay, METHODS[call], good_fields(call)
    )
    assert ask(gateway_at(server), call).outcome is Outcome.SUCCEEDED
    params = asked(server.requests[0])
    assert params["app_cert_sn"] == cert_sn(ALL.app)
    assert params["alipay_root_cert_sn"] == cert_sn(ALL.root.certificate)


@pytest.mark.filterwarnings("ignore:X509.get_issuer is deprecated")
def test_certificate_numbers_are_those_of_the_python_library() -> None:
    for certificate in (ALL.app, ALL.alipay, ALL.middle.certificate):
        assert cert_sn(certificate) == DCAliPay.get_cert_sn(text_of(certificate))
    other = authority("Root R2")
    roots = [ALL.root.certificate, other.certificate]
    assert root_cert_sn(roots) == f"{cert_sn(roots[0])}_{cert_sn(roots[1])}"


def test_roots_that_are_not_rsa_are_passed_over(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    assert openssl is not None
    for curve, digest in (("SM2", "-sm3"), ("prime256v1", "-sha256")):
        key, made = tmp_path / "key.pem", tmp_path / "root.pem"
        generate = [openssl, "ecparam", "-name", curve, "-genkey", "-noout", "-out", str(key)]
        subprocess.run(generate, check=True, capture_output=True)
        request = [openssl, "req", "-x509", "-new", "-key", str(key), digest, "-subj", "/CN=SM"]
        subprocess.run([*request, "-out", str(made)], check=True, capture_output=True)
        file = f"odd root\n{made.read_text()}\n\n{ALL.root.pem}"
        roots = certificates_of(file.encode())
        assert len(roots) == 2
        assert root_cert_sn(roots) == cert_sn(ALL.root.certificate)
        assert chains_to([ALL.alipay, ALL.middle.certificate], roots, at=datetime.now(UTC))


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.replace(b',"alipay_cert_sn":"', b',"other":"'),
        lambda body: body.replace(b',"alipay_cert_sn":"', b',"alipay_cert_sn":"0'),
        lambda body: body.replace(b"Success", b"success"),
    ],
)
def test_an_answer_that_names_no_certificate_or_is_altered_is_unknown(
    server: GatewayServer, change: Callable[[bytes], bytes]
) -> None:
    good = certified_reply(ALL.keys, ALL.alipay, METHODS["query"], good_fields("query"))
    server.script = lambda _: replace(good, body=change(good.body))
    result = gateway_at(server).query(NUMBER)
    assert (result.outcome, result.fault and result.fault.code) == (
        Outcome.UNKNOWN,
        "bad_signature",
    )
    assert methods(server) == [METHODS["query"]]


def test_a_renewed_certificate_is_fetched_once_and_believed(server: GatewayServer) -> None:
    keys, certificate = renewed()
    server.script = answering(keys, certificate, content_of(certificate, ALL.middle.certificate))
    gateway = gateway_at(server)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: gateway.query(NUMBER).outcome, range(16)))
    assert found == [Outcome.SUCCEEDED] * 16
    assert methods(server).count(DOWNLOAD) == 1
    wanted = next(asked(seen) for seen in server.requests if asked(seen)["method"] == DOWNLOAD)
    assert json.loads(wanted["biz_content"]) == {"alipay_cert_sn": cert_sn(certificate)}


def test_the_configured_certificate_stays_believed_beside_the_renewed_one(
    server: GatewayServer,
) -> None:
    keys, certificate = renewed()
    gateway = gateway_at(server)
    server.script = answering(keys, certificate, content_of(certificate))
    assert gateway.query(NUMBER).outcome is Outcome.SUCCEEDED
    server.script = answering(ALL.keys, ALL.alipay, None)
    assert gateway.query(NUMBER).outcome is Outcome.SUCCEEDED
    assert methods(server).count(DOWNLOAD) == 1


def test_what_cannot_be_believed_is_asked_for_once_a_minute_at_most(server: GatewayServer) -> None:
    keys, certificate = renewed(by=authority("Stranger"))
    server.script = answering(keys, certificate, content_of(certificate))
    gateway = gateway_at(server)
    for _ in range(5):
        assert gateway.query(NUMBER).outcome is Outcome.UNKNOWN
    assert methods(server).count(DOWNLOAD) == 1


def _short_key() -> tuple[AlipayKeys, x509.Certificate]:
    keys = replace(ALL.keys, alipay=new_key_pair(bits=1024))
    return keys, ALL.issue(keys.alipay.public_pem, start=datetime.now(UTC) - timedelta(days=1))


def _own_key() -> tuple[AlipayKeys, x509.Certificate]:
    keys = replace(ALL.keys, alipay=ALL.keys.app)
    return keys, ALL.issue(keys.alipay.public_pem, start=datetime.now(UTC) - timedelta(days=1))


def _by_leaf() -> tuple[AlipayKeys, x509.Certificate]:
    """Issued with the key of a certificate that is no authority's."""
    leaf = Authority(name=ALL.alipay.subject, key=ALL.keys.alipay, certificate=ALL.alipay)
    return renewed(by=leaf)


REFUSED: dict[str, Callable[[], tuple[AlipayKeys, x509.Certificate]]] = {
    "of another authority": lambda: renewed(by=authority("Root R1")),
    "another organisation's, under the same root": lambda: renewed(organisation="A shop"),
    "expired": lambda: renewed(life=timedelta(hours=1)),
    "not valid yet": lambda: renewed(start=datetime.now(UTC) + timedelta(days=1)),
    "older than the configured one": lambda: renewed(start=datetime.now(UTC) - timedelta(days=99)),
    "of a short key": _short_key,
    "of our own key": _own_key,
    "issued by what is no authority": _by_leaf,
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_downloaded_certificate_is_refused_when_it_is(server: GatewayServer, why: str) -> None:
    keys, certificate = REFUSED[why]()
    content = content_of(certificate, ALL.alipay, ALL.middle.certificate)
    server.script = answering(keys, certificate, content)
    assert gateway_at(server).query(NUMBER).outcome is Outcome.UNKNOWN
    assert methods(server) == [METHODS["query"], DOWNLOAD]


def test_another_certificate_than_the_one_asked_for_is_refused(server: GatewayServer) -> None:
    keys, certificate = renewed()
    _, other = renewed()
    server.script = answering(keys, certificate, content_of(other, ALL.middle.certificate))
    assert gateway_at(server).query(NUMBER).outcome is Outcome.UNKNOWN


def test_a_download_that_fails_makes_the_answer_unknown_and_not_unsent(
    server: GatewayServer,
) -> None:
    keys, certificate = renewed()

    def script(seen: Seen) -> Reply:
        if asked(seen)["method"] == DOWNLOAD:
            return Reply(status=503)
        return certified_reply(keys, certificate, METHODS["prepay"], good_fields("prepay"))

    server.script = script
    result = ask(gateway_at(server), "prepay")
    assert isinstance(result, PrepayResult)
    assert (result.outcome, result.sent) == (Outcome.UNKNOWN, True)


@examples(deadline=None)
@given(st.none() | st.binary().map(lambda raw: raw.hex()) | st.text() | st.integers() | st.binary())
def test_any_content_of_a_certificate_is_refused_in_good_order(content: object) -> None:
    trusted = Certificates(ALL.settings(), OWN, SystemClock())
    with pytest.raises(UnknownCertificate):
        trusted.for_answer("0" * 32, lambda _: content)


def notice(
    keys: AlipayKeys, certificate: x509.Certificate, *, named: bool, signed: bool = True
) -> bytes:
    """A callback, with the certificate's number in the signed part, beside it, or not at all."""
    fields = alipay_trade(keys, NUMBER, "88.88")
    number = {"alipay_cert_sn": cert_sn(certificate)} if named else {}
    covered = {**fields, **number} if signed else fields
    content = "&".join(f"{name}={covered[name]}" for name in sorted(covered))
    signature = sign(keys.alipay.private_pem, content)
    form = {**fields, **number, "sign_type": "RSA2", "sign": signature}
    return urlencode(form).encode()


@pytest.mark.parametrize(("named", "signed"), [(True, True), (True, False), (False, True)])
def test_a_notice_under_the_configured_certificate_is_believed(
    server: GatewayServer, named: bool, signed: bool
) -> None:
    body = notice(ALL.keys, ALL.alipay, named=named, signed=signed)
    assert gateway_at(server).read_notice({}, body).out_trade_no == NUMBER
    assert server.requests == []


def test_a_notice_under_the_renewed_certificate_is_believed(server: GatewayServer) -> None:
    keys, certificate = renewed()
    server.script = answering(keys, certificate, content_of(certificate, ALL.middle.certificate))
    gateway = gateway_at(server)
    body = notice(keys, certificate, named=True)
    assert gateway.read_notice({}, body).out_trade_no == NUMBER
    assert gateway.read_notice({}, notice(keys, certificate, named=False)).amount_fen == 8_888
    assert methods(server) == [DOWNLOAD]


def test_strangers_notices_keep_no_true_answer_from_being_believed(server: GatewayServer) -> None:
    keys, certificate = renewed()
    stranger, own = renewed(by=authority("Stranger"))
    server.script = answering(keys, certificate, content_of(certificate, ALL.middle.certificate))
    gateway = gateway_at(server)
    for _ in range(5):
        with pytest.raises(NoticeRefused) as refused:
            gateway.read_notice({}, notice(stranger, own, named=True))
        assert refused.value.reason == "unknown_serial"
    assert methods(server) == [DOWNLOAD]
    result: QueryResult = gateway.query(NUMBER)
    assert result.outcome is Outcome.SUCCEEDED
    assert methods(server) == [DOWNLOAD, METHODS["query"], DOWNLOAD]


def test_a_slow_download_holds_one_notice_of_all_merchants_and_no_answer(
    server: GatewayServer,
) -> None:
    keys, certificate = renewed()
    begun, let_go = threading.Event(), threading.Event()
    answer = answering(keys, certificate, content_of(certificate, ALL.middle.certificate))

    def slow(seen: Seen) -> Reply:
        if asked(seen)["method"] == DOWNLOAD and not begun.is_set():
            begun.set()
            let_go.wait(60)
        return answer(seen)

    server.script = slow
    gateway, other = gateway_at(server), gateway_at(server)
    body = notice(keys, certificate, named=True)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(gateway.read_notice, {}, body)
        assert begun.wait(30)
        try:
            # None of these can have waited for the download: it has not come.
            for merchant in (gateway, other):
                with pytest.raises(NoticeRefused) as refused:
                    merchant.read_notice({}, body)
                assert refused.value.reason == "unknown_serial"
            assert gateway.query(NUMBER).outcome is Outcome.SUCCEEDED
            assert not first.done()
        finally:
            let_go.set()
        assert first.result(30).out_trade_no == NUMBER
    assert other.read_notice({}, body).out_trade_no == NUMBER


@examples(deadline=None, max_examples=50)
@given(st.text(min_size=1) | st.from_regex(r"[0-9a-f]{32}", fullmatch=True))
@example("a&b")
def test_a_notice_under_any_other_number_is_refused_in_good_order(
    running: GatewayServer, shared: Alipay, number: str
) -> None:
    running.reset()
    fields = {**alipay_trade(ALL.keys, NUMBER, "88.88"), "alipay_cert_sn": number}
    try:
        signature = sign(ALL.keys.alipay.private_pem, "&".join(sorted(fields)))
        body = urlencode({**fields, "sign_type": "RSA2", "sign": signature}).encode()
    except UnicodeEncodeError:  # a lone surrogate cannot be sent at all
        return
    with pytest.raises(NoticeRefused) as refused:
        shared.read_notice({}, body)
    # With `&` in it another field could be hidden within.
    assert refused.value.reason == ("malformed" if "&" in number else "unknown_serial")
    assert len(running.requests) <= 1


def test_a_notice_signed_with_another_known_key_than_it_names_is_refused(
    server: GatewayServer,
) -> None:
    keys, certificate = renewed()
    server.script = answering(keys, certificate, content_of(certificate, ALL.middle.certificate))
    gateway = gateway_at(server)
    assert gateway.query(NUMBER).outcome is Outcome.SUCCEEDED
    with pytest.raises(NoticeRefused) as refused:
        gateway.read_notice({}, notice(keys, ALL.alipay, named=True))
    assert refused.value.reason == "bad_signature"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"app_cert_pem": "nothing"}, "ALIPAY_APP_CERT_FILE: no certificate"),
        ({"app_cert_pem": text_of(ALL.alipay)}, "ALIPAY_APP_CERT_FILE: the certificate is not of"),
        ({"alipay_cert_pem": text_of(ALL.app)}, "ALIPAY_CERT_FILE: this is the application's own"),
        ({"alipay_cert_pem": text_of(ALL.alipay)}, "ALIPAY_CERT_FILE: the certificate was not"),
        ({"root_cert_pem": authority("Root R1").pem}, "ALIPAY_CERT_FILE: the certificate was not"),
        ({"root_cert_pem": ""}, "ALIPAY_ROOT_CERT_FILE: no certificate"),
        ({"root_cert_pem": ALL.root.pem * 33}, "ALIPAY_ROOT_CERT_FILE: more than 32"),
    ],
)
def test_a_wrong_certificate_is_named_at_the_start(changes: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Alipay(
            ALL.settings(**changes),
            connect_timeout_ms=1_000,
            read_timeout_ms=1_000,
            clock=SystemClock(),
        )
    assert told in str(refused.value)


def test_an_expired_certificate_of_alipays_does_not_stop_the_shop(server: GatewayServer) -> None:
    # Alipay may have renewed it long ago: the next answer names the new one.
    old = issue(ALL.middle, new_key_pair().public_pem, life=timedelta(hours=1))
    gateway = Alipay(
        ALL.settings(f"{server.url}/gateway.do", alipay_cert_pem=text_of(old) + ALL.middle.pem),
        connect_timeout_ms=5_000,
        read_timeout_ms=30_000,
        clock=SystemClock(),
    )
    keys, certificate = renewed()
    server.script = answering(keys, certificate, content_of(certificate, ALL.middle.certificate))
    assert gateway.query(NUMBER).outcome is Outcome.SUCCEEDED
