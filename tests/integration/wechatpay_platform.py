"""WeChat Pay's platform certificates, made for tests: what signs, and the list of them."""

import base64
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from tests.integration.gateway_server import Reply, wechatpay_envelope
from tests.integration.keys import KeyPair, WeChatPayKeys, new_key_pair


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One platform certificate with the key that signs."""

    pair: KeyPair
    pem: str
    serial: str

    def envelope(
        self, keys: WeChatPayKeys, body: bytes, *, now: datetime | None = None
    ) -> dict[str, str]:
        """The headers of an answer or a notice, signed under this certificate."""
        age_s = 0 if now is None else int((datetime.now(UTC) - now).total_seconds())
        return wechatpay_envelope(
            keys, body, age_s=age_s, serial=self.serial, private_pem=self.pair.private_pem
        )

    def reply(self, keys: WeChatPayKeys, value: Any, *, now: datetime | None = None) -> Reply:
        """An answer in JSON, signed under this certificate."""
        body = json.dumps(value).encode()
        return Reply(headers=self.envelope(keys, body, now=now), body=body)


@cache
def spare_pair(number: int) -> KeyPair:
    """A key pair, the same each time: making one is slow."""
    return new_key_pair()


def platform(
    number: int = 1,
    *,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    pair: KeyPair | None = None,
) -> Platform:
    """A certificate for the key pair of this number, valid for a year on either side of now."""
    pair = pair or spare_pair(number)
    key = load_pem_private_key(pair.private_pem.encode(), None)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tenpay.com sign")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())  # type: ignore[arg-type]  # ours are RSA
        .serial_number(x509.random_serial_number())
        .not_valid_before(starts_at or now - timedelta(days=365))
        .not_valid_after(ends_at or now + timedelta(days=365))
        .sign(key, SHA256())  # type: ignore[arg-type]
    )
    return Platform(
        pair=pair,
        pem=certificate.public_bytes(Encoding.PEM).decode(),
        serial=f"{certificate.serial_number:X}",
    )


def listed(keys: WeChatPayKeys, one: Platform, **changes: Any) -> dict[str, Any]:
    """One entry of the list of certificates."""
    nonce = secrets.token_hex(6)
    sealed = AESGCM(keys.apiv3_key.encode()).encrypt(
        nonce.encode(), one.pem.encode(), b"certificate"
    )
    return {
        "serial_no": one.serial,
        "effective_time": "2018-06-08T10:34:56+08:00",
        "expire_time": "2118-06-08T10:34:56+08:00",
        "encrypt_certificate": {
            "algorithm": "AEAD_AES_256_GCM",
            "nonce": nonce,
            "associated_data": "certificate",
            "ciphertext": base64.b64encode(sealed).decode(),
        },
        **changes,
    }


def certificate_list(
    keys: WeChatPayKeys,
    entries: Sequence[dict[str, Any]],
    *,
    signer: Platform,
    now: datetime | None = None,
) -> Reply:
    """The answer of /v3/certificates."""
    return signer.reply(keys, {"data": list(entries)}, now=now)
