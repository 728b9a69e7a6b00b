"""Key material, checked when the shop starts: a wrong key must not be found out by a shopper.

Every error names the variable in the environment and says how to mend it.
"""

import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509 import Certificate, load_pem_x509_certificates

from config.settings import AlipaySettings, SettingsError, WeChatPaySettings

MIN_KEY_BITS = 2048
"""Both gateways sign with RSA keys of 2048 bits (WECHATPAY2-SHA256-RSA2048; Alipay RSA2)."""


def private_key(pem: str, variable: str) -> RSAPrivateKey:
    """The merchant's own private key. Raises SettingsError naming `variable`."""
    _must_be_pem(pem, variable)
    if "PUBLIC KEY-----" in pem:
        raise SettingsError(f"{variable}: the file holds a public key; give your private key.")
    if "CERTIFICATE-----" in pem and "PRIVATE KEY-----" not in pem:
        raise SettingsError(f"{variable}: the file holds a certificate; give your private key.")
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        raise SettingsError(
            f"{variable}: the key is protected by a password; give it without one "
            "(openssl pkcs8 -topk8 -nocrypt)."
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{variable}: not a readable private key: {error}.") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < MIN_KEY_BITS:
        raise SettingsError(f"{variable}: give an RSA key of at least {MIN_KEY_BITS} bits.")
    return key


def public_key(pem: str, variable: str, *, own: RSAPrivateKey, own_variable: str) -> RSAPublicKey:
    """The gateway's public key, which must not be our own. Raises SettingsError."""
    _must_be_pem(pem, variable)
    if "PRIVATE KEY-----" in pem:
        raise SettingsError(
            f"{variable}: the file holds a private key; give the gateway's public key."
        )
    if "CERTIFICATE-----" in pem:
        raise SettingsError(
            f"{variable}: the file holds a certificate; give the gateway's public key."
        )
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{variable}: not a readable public key: {error}.") from None
    if not isinstance(key, RSAPublicKey) or key.key_size < MIN_KEY_BITS:
        raise SettingsError(f"{variable}: give an RSA key of at least {MIN_KEY_BITS} bits.")
    if key.public_numbers() == own.public_key().public_numbers():
        raise SettingsError(
            f"{variable}: this is the public half of {own_variable}; give the gateway's own "
            "public key, which its merchant portal shows."
        )
    return key


def apiv3_key(text: str, variable: str) -> str:
    """WeChat Pay's symmetric key: 32 bytes, as set in the merchant portal."""
    if len(text.encode()) != 32:
        raise SettingsError(
            f"{variable}: the APIv3 key has {len(text.encode())} bytes; it must have exactly 32."
        )
    return text


def certificates(pem: str, variable: str, *, own: RSAPrivateKey) -> list[Certificate]:
    """WeChat Pay's platform certificates, one or more in one file. Raises SettingsError."""
    _must_be_pem(pem, variable)
    if "PRIVATE KEY-----" in pem:
        raise SettingsError(f"{variable}: the file holds a private key; give the certificates.")
    try:
        found = load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise SettingsError(f"{variable}: not a readable certificate: {error}.") from None
    for one in found:
        key = one.public_key()
        if not isinstance(key, RSAPublicKey) or key.key_size < MIN_KEY_BITS:
            raise SettingsError(
                f"{variable}: give certificates of RSA keys of at least {MIN_KEY_BITS} bits."
            )
        if key.public_numbers() == own.public_key().public_numbers():
            raise SettingsError(
                f"{variable}: this is your own merchant certificate; give WeChat Pay's platform "
                "certificates, or fetch."
            )
    return found


def wechatpay_names(settings: WeChatPaySettings) -> None:
    """The merchant's names, which stand in signed headers and paths. Raises SettingsError."""
    by_certificates = settings.fetch_certs or settings.platform_certs_pem
    if not (by_certificates and not settings.public_key_id) and (
        re.fullmatch(r"PUB_KEY_ID_[0-9A-Za-z]+", settings.public_key_id) is None
    ):
        raise SettingsError(
            f"WECHATPAY_PUBLIC_KEY_ID={settings.public_key_id!r}: give the public key's id as the "
            "merchant portal shows it, PUB_KEY_ID_… (a platform certificate's serial is no id)."
        )
    if re.fullmatch(r"[0-9]{1,32}", settings.mchid) is None:
        raise SettingsError(
            f"WECHATPAY_MCHID={settings.mchid!r}: a merchant number has digits only."
        )
    if re.fullmatch(r"[0-9A-Za-z]{1,64}", settings.appid) is None:
        raise SettingsError(
            f"WECHATPAY_APPID={settings.appid!r}: an application's number has letters and digits."
        )
    if re.fullmatch(r"[0-9A-Fa-f]{1,64}", settings.cert_serial) is None:
        raise SettingsError(
            f"WECHATPAY_CERT_SERIAL={settings.cert_serial!r}: give the merchant certificate's "
            "serial number in hexadecimal (openssl x509 -noout -serial)."
        )


def alipay_names(settings: AlipaySettings) -> None:
    """The application's and the seller's numbers. Raises SettingsError."""
    for variable, value in (
        ("ALIPAY_APP_ID", settings.app_id),
        ("ALIPAY_SELLER_ID", settings.seller_id),
    ):
        if re.fullmatch(r"[0-9]{1,32}", value) is None:
            raise SettingsError(f"{variable}={value!r}: give the number, which has digits only.")


def _must_be_pem(pem: str, variable: str) -> None:
    if "-----BEGIN " not in pem:
        raise SettingsError(
            f"{variable}: not PEM: the file must begin with a line like "
            "-----BEGIN PRIVATE KEY----- or -----BEGIN PUBLIC KEY-----."
        )
