"""Alipay's certificate mode in the sandbox: driven by the library, checked by the rules."""

import base64
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
import requests
from alipay import DCAliPay
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from dotenv import dotenv_values

from sandbox import sandbox_of
from tests.integration.sandbox_kit import (
    Merchant,
    Receiver,
    Running,
    beijing,
    holds,
    number,
    receiving,
    running,
)
from tests.processes import wait_until

NOTIFY = "http://127.0.0.1:9/notify"
DOWNLOAD = "alipay.open.app.alipaycert.download"
# The library reads certificates in a way that pyOpenSSL no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:X509.get_issuer:DeprecationWarning")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sandbox"), time_scale=0.001) as found:
        yield found


@pytest.fixture(scope="module")
def merchant(server: Running) -> Merchant:
    return Merchant(server.data)


@pytest.fixture(scope="module")
def files(server: Running) -> dict[str, str]:
    """The contents of the files that merchant.certs.env names."""
    values = dotenv_values(server.data / "merchant.certs.env")
    return {k: Path(v or "").read_text() for k, v in values.items() if k.endswith("_FILE")}


@pytest.fixture(scope="module")
def client(server: Running, merchant: Merchant, files: dict[str, str]) -> Any:
    class Client(DCAliPay):  # type: ignore[misc]
        @property
        def app_cert_sn(self) -> Any:
            return self.get_cert_sn(self._app_public_key_cert_string)

        @property
        def alipay_root_cert_sn(self) -> Any:
            return self.get_root_cert_sn(self._alipay_root_cert_string)

        def build_body(self, *args: Any, **kwargs: Any) -> Any:
            return {**super().build_body(*args, **kwargs), "timestamp": beijing()}

    made = Client(
        merchant.env["ALIPAY_APP_ID"],
        files["ALIPAY_PRIVATE_KEY_FILE"],
        files["ALIPAY_APP_CERT_FILE"],
        files["ALIPAY_CERT_FILE"],
        files["ALIPAY_ROOT_CERT_FILE"],
    )
    made._gateway = merchant.env["ALIPAY_BASE_URL"]
    return made


def ask(server: Running, client: Any, method: str, biz: object, **public: str) -> Any:
    """One call in certificate mode; the whole answer, with nothing verified."""
    query = client.sign_data(client.build_body(method, biz, **public))
    return requests.get(f"{server.url}/gateway.do?{query}", timeout=20).text


def key_of(pem: str) -> RSAPublicKey:
    """A certificate's key."""
    key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    assert isinstance(key, RSAPublicKey)
    return key


def verified(text: str, method: str, key: RSAPublicKey) -> bool:
    """Whether an answer's signature holds over its raw text."""
    name = method.replace(".", "_") + "_response"
    inner = text.removeprefix(f'{{"{name}":').split(',"alipay_cert_sn":', maxsplit=1)[0]
    return holds(key, inner.encode(), json.loads(text)["sign"])


def test_the_library_pays_asks_and_closes_in_certificate_mode(server: Running, client: Any) -> None:
    out_trade_no = number()
    made = client.api_alipay_trade_precreate("测试商品", out_trade_no, "1.00")
    requests.get(made["qr_code"], timeout=20).raise_for_status()
    waiting = client.api_alipay_trade_query(out_trade_no)
    assert waiting["trade_status"] == "WAIT_BUYER_PAY"
    assert client.api_alipay_trade_close(out_trade_no)["code"] == "10000"
    refused = client.api_alipay_trade_close(out_trade_no)
    assert refused["sub_code"] == "ACQ.TRADE_STATUS_ERROR"


def test_the_answer_names_the_certificate_that_signed_it_and_no_other_key_did(
    server: Running, merchant: Merchant, client: Any, files: dict[str, str]
) -> None:
    method = "alipay.trade.precreate"
    biz = {"out_trade_no": number(), "total_amount": "1.00", "subject": "甲"}
    text = ask(server, client, method, biz)
    assert json.loads(text)["alipay_cert_sn"] == client.get_cert_sn(files["ALIPAY_CERT_FILE"])
    assert verified(text, method, key_of(files["ALIPAY_CERT_FILE"]))
    assert not verified(text, method, merchant.public_key("ALIPAY_PUBLIC_KEY_FILE"))


@pytest.mark.parametrize(
    ("altered", "sub_code"),
    [
        ({"app_cert_sn": ""}, "isv.missing-app-cert-sn"),
        ({"app_cert_sn": "0" * 32}, "isv.app-cert-not-exist"),
        ({"alipay_root_cert_sn": ""}, "isv.missing-alipay-root-cert-sn"),
        ({"alipay_root_cert_sn": "0" * 32}, "isv.invalid-alipay-root-cert-sn"),
    ],
)
def test_a_wrong_number_of_a_certificate_is_an_unsigned_error(
    server: Running, client: Any, merchant: Merchant, altered: dict[str, str], sub_code: str
) -> None:
    numbers = {
        "app_cert_sn": client.app_cert_sn,
        "alipay_root_cert_sn": client.alipay_root_cert_sn,
        **altered,
    }
    biz = {"out_trade_no": number()}
    sent = {name: value for name, value in numbers.items() if value}
    params = merchant.alipay_params("alipay.trade.query", biz, **sent)
    answer = requests.get(f"{server.url}/gateway.do", params=params, timeout=20).json()
    assert set(answer) == {"alipay_trade_query_response"}
    content = answer["alipay_trade_query_response"]
    assert (content["code"], content["sub_code"]) == ("40002", sub_code)


def test_a_notice_is_signed_in_the_mode_in_which_the_payment_was_asked_for(
    server: Running, merchant: Merchant, client: Any, files: dict[str, str]
) -> None:
    with receiving() as shop:
        for count, one in enumerate((client, merchant.alipay()), start=1):
            out_trade_no = number()
            one.api_alipay_trade_precreate("测试商品", out_trade_no, "1.00", notify_url=shop.url)
            server.post(f"/admin/trades/{out_trade_no}/pay")
            wait_until(partial(_came, shop, count), "the notice comes")
        by_certificate, by_key = (dict(_fields(body)) for body in shop.bodies()[:2])
    assert by_certificate["alipay_cert_sn"] == client.get_cert_sn(files["ALIPAY_CERT_FILE"])
    assert "alipay_cert_sn" not in by_key
    assert _holds(by_certificate, key_of(files["ALIPAY_CERT_FILE"]))
    assert not _holds(by_key, key_of(files["ALIPAY_CERT_FILE"]))
    assert _holds(by_key, merchant.public_key("ALIPAY_PUBLIC_KEY_FILE"))
    # And as the library does it.
    signature = by_certificate.pop("sign")
    assert client.verify(by_certificate, signature)


def _came(shop: Receiver, count: int) -> bool:
    return len(shop.got) >= count


def _fields(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True)


def _holds(fields: dict[str, str], key: RSAPublicKey) -> bool:
    signed = {k: v for k, v in fields.items() if k not in {"sign", "sign_type"}}
    text = "&".join(f"{name}={signed[name]}" for name in sorted(signed))
    return holds(key, text.encode(), fields["sign"])


def test_a_new_certificate_can_be_fetched_by_the_number_that_an_answer_names(
    server: Running, client: Any, files: dict[str, str]
) -> None:
    method, biz = "alipay.trade.query", {"out_trade_no": number()}
    known = key_of(files["ALIPAY_CERT_FILE"])
    assert verified(ask(server, client, method, biz), method, known)
    sandbox_of(server.app).merchants.rotate_alipay("default")
    text = ask(server, client, method, biz)
    serial = json.loads(text)["alipay_cert_sn"]
    assert serial != client.get_cert_sn(files["ALIPAY_CERT_FILE"])
    assert not verified(text, method, known)

    answer = json.loads(ask(server, client, DOWNLOAD, {"alipay_cert_sn": serial}))
    assert set(answer) == {"alipay_open_app_alipaycert_download_response"}  # and no sign
    content = answer["alipay_open_app_alipaycert_download_response"]["alipay_cert_content"]
    pem = base64.b64decode(content).decode()
    assert client.get_cert_sn(pem) == serial
    assert verified(text, method, key_of(pem))
    leaf, authority = x509.load_pem_x509_certificates(pem.encode())
    roots = x509.load_pem_x509_certificates(files["ALIPAY_ROOT_CERT_FILE"].encode())
    (root,) = [one for one in roots if one.subject == authority.issuer]
    leaf.verify_directly_issued_by(authority)
    authority.verify_directly_issued_by(root)


def test_a_certificate_that_there_is_not_cannot_be_fetched(server: Running, client: Any) -> None:
    answer = json.loads(ask(server, client, DOWNLOAD, {"alipay_cert_sn": "0" * 32}))
    content = answer["alipay_open_app_alipaycert_download_response"]
    assert content["sub_code"] == "isv.alipay-cert-not-exist"
