"""The sandbox's merchants: apart from each other, in each mode of signing, with changing keys."""

import base64
import json
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from dotenv import dotenv_values

from config.gateways import load_alipay, load_wechatpay
from sandbox import keys, sandbox_of, settings
from sandbox.merchants import UnknownMerchant
from sandbox.store import Store
from tests.integration.sandbox_kit import (
    Merchant,
    Receiver,
    Running,
    decrypted,
    holds,
    number,
    receiving,
    running,
    wechatpay_signed,
)
from tests.processes import wait_until

NATIVE = "/v3/pay/transactions/native"
CERTIFICATES = "/v3/certificates"
NOTIFY = "http://127.0.0.1:9/notify"
URL = "http://127.0.0.1:8001"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sandbox"), time_scale=0.000_01) as found:
        sandbox_of(found.app).merchants.add("press")
        yield found


@pytest.fixture
def merchant(server: Running) -> Merchant:
    return Merchant(server.data)


@pytest.fixture
def press(server: Running) -> Merchant:
    return Merchant(server.data, "merchants/press.env")


def choose(server: Running, merchant: str, name: str, value: str) -> None:
    """Set one of a merchant's settings."""
    with sandbox_of(server.app).store.write() as tx:
        settings.put(tx, merchant, name, value)


def opened(merchant: Merchant, out_trade_no: str, total: int, url: str = NOTIFY) -> None:
    """A Native prepay that works."""
    body = json.dumps(merchant.native(out_trade_no, total, url)).encode()
    assert merchant.wechatpay_request("POST", NATIVE, body).status_code == 200


def queried(merchant: Merchant, out_trade_no: str) -> Any:
    """(status, what a query says)."""
    target = f"/v3/pay/transactions/out-trade-no/{out_trade_no}"
    answer = merchant.wechatpay_request("GET", f"{target}?mchid={merchant.env['WECHATPAY_MCHID']}")
    return answer.status_code, answer.json()


def certificates_of(merchant: Merchant) -> dict[str, x509.Certificate]:
    """What /v3/certificates gives, opened with the APIv3 key, by serial number."""
    answer = merchant.wechatpay_request("GET", CERTIFICATES, headers={"Wechatpay-Serial": None})
    assert answer.status_code == 200, answer.text
    box = AESGCM(merchant.read("WECHATPAY_APIV3_KEY_FILE").encode())
    found = {}
    for one in answer.json()["data"]:
        sealed = one["encrypt_certificate"]
        assert sealed["algorithm"] == "AEAD_AES_256_GCM"
        assert sealed["associated_data"] == "certificate"
        pem = box.decrypt(
            sealed["nonce"].encode(), base64.b64decode(sealed["ciphertext"]), b"certificate"
        )
        found[one["serial_no"]] = certificate = x509.load_pem_x509_certificate(pem)
        assert f"{certificate.serial_number:X}" == one["serial_no"]
        start = datetime.fromisoformat(one["effective_time"])
        end = datetime.fromisoformat(one["expire_time"])
        assert (start, end) == (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    return found


def certified(certificates: dict[str, x509.Certificate], headers: Any, body: bytes) -> bool:
    """Whether a signature is that of the certificate it names."""
    key = certificates[headers["Wechatpay-Serial"]].public_key()
    assert isinstance(key, RSAPublicKey)
    head = f"{headers['Wechatpay-Timestamp']}\n{headers['Wechatpay-Nonce']}\n".encode()
    return holds(key, head + body + b"\n", headers["Wechatpay-Signature"])


def test_the_same_number_is_another_payment_at_another_merchant(
    server: Running, merchant: Merchant, press: Merchant
) -> None:
    out_trade_no = number()
    opened(merchant, out_trade_no, 100)
    assert queried(press, out_trade_no)[0] == 404
    opened(press, out_trade_no, 200)
    server.post(f"/admin/trades/{out_trade_no}/pay?merchant=press")
    assert queried(merchant, out_trade_no)[1]["trade_state"] == "NOTPAY"
    status, said = queried(press, out_trade_no)
    assert (status, said["trade_state"], said["amount"]["total"]) == (200, "SUCCESS", 200)
    assert said["mchid"] == press.env["WECHATPAY_MCHID"]
    # Nor is it found by the gateway's number by somebody else.
    mchid = merchant.env["WECHATPAY_MCHID"]
    target = f"/v3/pay/transactions/id/{said['transaction_id']}?mchid={mchid}"
    assert merchant.wechatpay_request("GET", target).status_code == 404


def test_one_merchants_key_signs_for_no_other(merchant: Merchant, press: Merchant) -> None:
    body = json.dumps(press.native(number(), 100, NOTIFY)).encode()
    refused = merchant.wechatpay_request("POST", NATIVE, body, mchid=press.env["WECHATPAY_MCHID"])
    assert (refused.status_code, refused.json()["code"]) == (401, "SIGN_ERROR")


def test_each_merchant_is_told_under_its_own_keys(
    server: Running, merchant: Merchant, press: Merchant
) -> None:
    for one, name in ((merchant, "default"), (press, "press")):
        with receiving() as receiver:
            out_trade_no = number()
            opened(one, out_trade_no, 300, receiver.url)
            server.post(f"/admin/trades/{out_trade_no}/pay?merchant={name}")
            headers, body = first(receiver)
        assert wechatpay_signed(one, headers, body)
        assert decrypted(one, json.loads(body))["mchid"] == one.env["WECHATPAY_MCHID"]


def first(receiver: Receiver) -> tuple[dict[str, str], bytes]:
    """The first notice that comes."""
    wait_until(lambda: bool(receiver.got), "a notice comes")
    return receiver.got[0]


def test_one_alipay_application_does_not_see_anothers_trades(
    server: Running, merchant: Merchant, press: Merchant
) -> None:
    out_trade_no = number()
    made = press.alipay().api_alipay_trade_precreate(
        out_trade_no=out_trade_no, total_amount="1.00", subject="书", notify_url=NOTIFY
    )
    assert made["code"] == "10000"
    server.post(f"/admin/trades/{out_trade_no}/pay")
    assert press.alipay().api_alipay_trade_query(out_trade_no)["trade_status"] == "TRADE_SUCCESS"
    unknown = merchant.alipay().api_alipay_trade_query(out_trade_no)
    assert unknown["sub_code"] == "ACQ.TRADE_NOT_EXIST"


@pytest.mark.parametrize("name", ["", "Press", "a b", "../x", "x" * 33, "-a", "书"])
def test_a_name_that_could_not_be_a_folder_is_refused(server: Running, name: str) -> None:
    with pytest.raises(keys.BadName, match="give 1 to 32"):
        sandbox_of(server.app).merchants.add(name)


def test_a_merchant_that_another_process_made_is_found(server: Running) -> None:
    merchants = sandbox_of(server.app).merchants
    with pytest.raises(UnknownMerchant):
        merchants.of("later")
    made = keys.ensure_merchant(server.data, server.url, "later")
    assert merchants.by_mchid(made.identity.mchid) is merchants.of("later")
    assert merchants.by_appid(made.identity.appid) is merchants.of("later")
    assert merchants.by_alipay_app_id(made.identity.alipay_app_id) is merchants.of("later")
    assert [one.identity.merchant for one in merchants.all()] == ["default", "later", "press"]


@pytest.mark.parametrize("asked", ["public key", "nothing", "certificate"])
def test_an_answer_is_signed_by_what_the_request_names(merchant: Merchant, asked: str) -> None:
    known = certificates_of(merchant)
    serials = {
        "public key": merchant.env["WECHATPAY_PUBLIC_KEY_ID"],
        "nothing": None,
        "certificate": next(iter(known)),
    }
    body = json.dumps(merchant.native(number(), 100, NOTIFY)).encode()
    serial = serials[asked]
    answer = merchant.wechatpay_request("POST", NATIVE, body, headers={"Wechatpay-Serial": serial})
    assert answer.status_code == 200
    if asked == "public key":
        assert wechatpay_signed(merchant, answer.headers, answer.content)
    else:
        assert certified(known, answer.headers, answer.content)


def test_a_new_certificate_is_listed_at_once_and_signs_when_its_time_has_come(
    server: Running, merchant: Merchant
) -> None:
    merchants = sandbox_of(server.app).merchants
    (first_serial,) = certificates_of(merchant)

    def signer() -> str:
        answer = merchant.wechatpay_request("GET", CERTIFICATES, headers={"Wechatpay-Serial": None})
        return answer.headers["Wechatpay-Serial"]

    merchants.rotate_wechatpay("default", effective_in_s=86_400)
    listed = certificates_of(merchant)
    assert len(listed) == 2
    assert first_serial in listed
    assert signer() == first_serial
    merchants.rotate_wechatpay("default")
    newest = set(certificates_of(merchant)) - set(listed)
    assert {signer()} == newest
    # A start over knows them all.
    again = keys.load(server.data, "default").wechatpay_certificates
    assert {one.serial for one in again} == set(listed) | newest


def test_a_merchant_that_has_only_the_public_key_has_no_certificates(
    server: Running, press: Merchant
) -> None:
    choose(server, "press", "wechatpay_certificates", "no")
    refused = press.wechatpay_request("GET", CERTIFICATES)
    assert (refused.status_code, refused.json()["code"]) == (404, "RESOURCE_NOT_EXISTS")
    choose(server, "press", "wechatpay_certificates", "yes")
    assert len(certificates_of(press)) == 1


@pytest.mark.parametrize("mode", ["public_key", "certificate", "both"])
def test_notices_are_signed_as_the_merchants_setting_says(
    server: Running, press: Merchant, mode: str
) -> None:
    choose(server, "press", "wechatpay_notices", mode)
    known = certificates_of(press)
    with receiving() as receiver:
        for _ in range(4):
            out_trade_no = number()
            opened(press, out_trade_no, 100, receiver.url)
            server.post(f"/admin/trades/{out_trade_no}/pay")
        wait_until(lambda: len(receiver.got) == 4, "four notices come")
    by_key = 0
    for headers, body in receiver.got:
        if headers["Wechatpay-Serial"].startswith("PUB_KEY_ID_"):
            by_key += wechatpay_signed(press, headers, body)
        else:
            assert certified(known, headers, body)
    assert by_key == {"public_key": 4, "certificate": 0, "both": 2}[mode]
    choose(server, "press", "wechatpay_notices", "public_key")


@pytest.mark.parametrize("outcome", ["abnormal", "closed"])
def test_a_refund_can_be_made_to_end_badly_once(
    server: Running, press: Merchant, outcome: str
) -> None:
    out_trade_no, refund_no = number(), number()
    opened(press, out_trade_no, 100)
    server.post(f"/admin/trades/{out_trade_no}/pay")
    choose(server, "press", "wechatpay_next_refund", outcome)

    def refund(refund_no: str, url: str) -> Any:
        body = {
            "out_trade_no": out_trade_no,
            "out_refund_no": refund_no,
            "notify_url": url,
            "amount": {"refund": 100, "total": 100, "currency": "CNY"},
        }
        return press.wechatpay_request(
            "POST", "/v3/refund/domestic/refunds", json.dumps(body).encode()
        )

    with receiving() as receiver:
        assert refund(refund_no, receiver.url).json()["status"] == "PROCESSING"
        headers, body = first(receiver)
    assert wechatpay_signed(press, headers, body)
    assert json.loads(body)["event_type"] == f"REFUND.{outcome.upper()}"
    told = decrypted(press, json.loads(body))
    assert told["refund_status"] == outcome.upper()
    assert "success_time" not in told
    asked = press.wechatpay_request("GET", f"/v3/refund/domestic/refunds/{refund_no}").json()
    assert asked["status"] == outcome.upper()
    again = refund(number(), NOTIFY)
    if outcome == "closed":
        # The money did not go: it can be given back under another number, and that one succeeds.
        assert again.json()["status"] == "PROCESSING"
    else:
        assert (again.status_code, again.json()["code"]) == (400, "INVALID_REQUEST")


def test_an_unknown_setting_or_choice_is_refused_with_what_there_is(server: Running) -> None:
    with pytest.raises(settings.BadSetting, match="wechatpay_notices"):
        choose(server, "default", "colour", "red")
    with pytest.raises(settings.BadSetting, match="public_key, certificate, both"):
        choose(server, "default", "wechatpay_notices", "red")


@pytest.mark.parametrize("env", ["merchant.env", "merchant.certs.env", "merchants/press.certs.env"])
def test_the_shop_accepts_the_settings_of_each_mode(server: Running, env: str) -> None:
    values = {name: value or "" for name, value in dotenv_values(server.data / env).items()}
    wechatpay, alipay = load_wechatpay(values), load_alipay(values)
    assert wechatpay.products == ("native", "jsapi", "h5")
    assert alipay.products == ("precreate", "page", "wap")
    by_certificate = "certs" in env
    assert wechatpay.fetch_certs == by_certificate
    assert bool(wechatpay.public_key_pem) != by_certificate
    assert bool(alipay.alipay_cert_pem) == by_certificate


def test_certificates_belong_to_the_keys_and_chain_to_their_roots(server: Running) -> None:
    folder = server.data / "merchant"
    merchant = Merchant(server.data)
    apiclient = x509.load_pem_x509_certificate((folder / "wechatpay_merchant.crt").read_bytes())
    assert apiclient.public_key() == merchant.private_key.public_key()
    assert f"{apiclient.serial_number:X}" == merchant.env["WECHATPAY_CERT_SERIAL"]
    app = x509.load_pem_x509_certificate((folder / "alipay_app.crt").read_bytes())
    assert app.public_key() == merchant.app_key.public_key()
    alipay, intermediate = x509.load_pem_x509_certificates((folder / "alipay.crt").read_bytes())
    roots = x509.load_pem_x509_certificates((folder / "alipay_root.crt").read_bytes())
    rsa = [one for one in roots if isinstance(one.public_key(), RSAPublicKey)]
    for one in (app, alipay, intermediate, *rsa):
        assert one.signature_algorithm_oid.dotted_string.startswith("1.2.840.113549.1.1.")
    assert 0 < len(rsa) < len(roots)
    for leaf in (app, alipay):
        leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(rsa[0])


def test_an_older_data_folder_gets_what_it_lacks_and_keeps_what_it_has(tmp_path: Path) -> None:
    keys.ensure_keys(tmp_path, URL)
    gateway, shop = tmp_path / "gateway", tmp_path / "merchant"
    shutil.rmtree(gateway / "authorities")
    for path in [*tmp_path.rglob("*.crt"), *tmp_path.rglob("*_app_secret.txt")]:
        path.unlink()
    identity = json.loads((gateway / "identity.json").read_bytes())
    del identity["merchant"]
    identity["cert_serial"] = "F" * 40  # 160 bits: earlier versions drew such
    (gateway / "identity.json").write_text(json.dumps(identity))
    before = {path: path.read_bytes() for path in shop.glob("*.pem")}
    again = keys.ensure_keys(tmp_path, URL)
    assert {path: path.read_bytes() for path in shop.glob("*.pem")} == before
    assert again.identity.mchid == identity["mchid"]
    assert again.identity.cert_serial != identity["cert_serial"]
    certificate = x509.load_pem_x509_certificate((shop / "wechatpay_merchant.crt").read_bytes())
    assert f"{certificate.serial_number:X}" == again.identity.cert_serial
    assert Merchant(tmp_path).env["WECHATPAY_CERT_SERIAL"] == again.identity.cert_serial
    assert len(again.wechatpay_certificates) == len(again.alipay_certificates) == 1


def test_books_of_another_version_are_kept_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sandbox.sqlite3"
    with closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE trades (out_trade_no TEXT)")
        old.execute("INSERT INTO trades VALUES ('N1')")
        old.commit()
    with caplog.at_level(logging.WARNING):
        store = Store(path)
    with store.read() as tx:
        assert tx.execute("SELECT count(*) FROM trades").fetchone()[0] == 0
    store.close()
    with closing(sqlite3.connect(tmp_path / "sandbox.0.sqlite3")) as kept:
        assert kept.execute("SELECT out_trade_no FROM trades").fetchall() == [("N1",)]
    assert len([one for one in caplog.records if "another version" in one.message]) == 1
    caplog.clear()
    Store(path).close()
    assert not caplog.records


def test_a_merchants_certificate_is_valid_today(server: Running) -> None:
    now = datetime.now(UTC)
    for path in (server.data / "merchant").glob("*.crt"):
        for one in x509.load_pem_x509_certificates(path.read_bytes()):
            assert one.not_valid_before_utc < now < one.not_valid_after_utc
