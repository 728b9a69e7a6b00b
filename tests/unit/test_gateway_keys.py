"""A wrong key or name stops the start with a sentence that says which one, and how to mend it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from config.settings import AlipaySettings, SettingsError, WeChatPaySettings
from shop.clock import SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.wechatpay import WeChatPay
from tests.integration.keys import alipay_keys, new_key_pair, wechatpay_keys


def build_wechatpay(settings: WeChatPaySettings) -> WeChatPay:
    return WeChatPay(settings, connect_timeout_ms=1_000, read_timeout_ms=1_000, clock=SystemClock())


def build_alipay(settings: AlipaySettings) -> Alipay:
    return Alipay(settings, connect_timeout_ms=1_000, read_timeout_ms=1_000, clock=SystemClock())


def merchant_key() -> rsa.RSAPrivateKey:
    key = load_pem_private_key(wechatpay_keys().merchant.private_pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def with_password() -> str:
    form = BestAvailableEncryption(b"secret")
    return merchant_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, form).decode()


def pkcs1() -> str:
    form = PrivateFormat.TraditionalOpenSSL
    return merchant_key().private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def certificate() -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "merchant")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(merchant_key().public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(merchant_key(), SHA256())
    )
    return built.public_bytes(Encoding.PEM).decode()


def not_rsa() -> str:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def bare_base64() -> str:
    return "".join(wechatpay_keys().merchant.private_pem.splitlines()[1:-1])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (bare_base64, "not PEM"),
        (lambda: wechatpay_keys().platform.public_pem, "public key"),
        (certificate, "certificate"),
        (with_password, "password"),
        (not_rsa, "RSA key of at least 2048 bits"),
        (lambda: new_key_pair(bits=1024).private_pem, "RSA key of at least 2048 bits"),
        (
            lambda: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "not a readable private key",
        ),
    ],
)
def test_a_wrong_private_key_is_named_and_explained(make: Callable[[], str], told: str) -> None:
    for build, name in (
        (
            lambda: build_wechatpay(replace(wechatpay_keys().settings(), private_key_pem=make())),
            "WECHATPAY_PRIVATE_KEY_FILE",
        ),
        (
            lambda: build_alipay(replace(alipay_keys().settings(), private_key_pem=make())),
            "ALIPAY_PRIVATE_KEY_FILE",
        ),
    ):
        with pytest.raises(SettingsError, match=name) as refused:
            build()
        assert told in str(refused.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (bare_base64, "not PEM"),
        (lambda: wechatpay_keys().platform.private_pem, "private key"),
        (certificate, "certificate"),
        (lambda: new_key_pair(bits=1024).public_pem, "RSA key of at least 2048 bits"),
        (
            lambda: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "not a readable public key",
        ),
    ],
)
def test_a_wrong_public_key_is_named_and_explained(make: Callable[[], str], told: str) -> None:
    for build, name in (
        (
            lambda: build_wechatpay(replace(wechatpay_keys().settings(), public_key_pem=make())),
            "WECHATPAY_PUBLIC_KEY_FILE",
        ),
        (
            lambda: build_alipay(replace(alipay_keys().settings(), public_key_pem=make())),
            "ALIPAY_PUBLIC_KEY_FILE",
        ),
    ):
        with pytest.raises(SettingsError, match=name) as refused:
            build()
        assert told in str(refused.value)


def test_our_own_public_key_is_not_taken_for_the_gateways() -> None:
    keys = alipay_keys()
    with pytest.raises(SettingsError, match="public half of ALIPAY_PRIVATE_KEY_FILE"):
        build_alipay(replace(keys.settings(), public_key_pem=keys.app.public_pem))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"apiv3_key": "x" * 31}, "WECHATPAY_APIV3_KEY_FILE: the APIv3 key has 31 bytes"),
        ({"apiv3_key": "密" * 32}, "has 96 bytes"),
        ({"public_key_id": "444F4864EA9B34415A"}, "WECHATPAY_PUBLIC_KEY_ID"),
        ({"public_key_id": "PUB_KEY_ID_"}, "WECHATPAY_PUBLIC_KEY_ID"),
        ({"mchid": "19000/0109"}, "WECHATPAY_MCHID"),
        ({"appid": 'wx"'}, "WECHATPAY_APPID"),
        ({"cert_serial": "not hex"}, "WECHATPAY_CERT_SERIAL"),
    ],
)
def test_a_wrong_wechatpay_name_is_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        build_wechatpay(replace(wechatpay_keys().settings(), **changes))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"app_id": "wx1"}, "ALIPAY_APP_ID"), ({"seller_id": "me@shop"}, "ALIPAY_SELLER_ID")],
)
def test_a_wrong_alipay_name_is_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        build_alipay(replace(alipay_keys().settings(), **changes))
    assert told in str(refused.value)


def test_keys_in_any_form_of_pem_are_taken() -> None:
    pem = wechatpay_keys().merchant.private_pem
    for text in (pkcs1(), pem.replace("\n", "\r\n"), "\n" + pem + "\n\n"):
        gateway = build_wechatpay(replace(wechatpay_keys().settings(), private_key_pem=text))
        assert gateway.channel == "wechatpay"


def test_no_secret_stands_in_an_error_or_a_representation() -> None:
    settings = wechatpay_keys().settings()
    secret = settings.private_key_pem.splitlines()[3]
    assert secret not in repr(settings)
    assert settings.apiv3_key not in repr(settings)
    with pytest.raises(SettingsError) as refused:
        build_wechatpay(replace(settings, public_key_pem=settings.private_key_pem))
    assert secret not in str(refused.value)
