"""WeChat Pay APIv3: checking requests, signing answers and notices, encrypting resources.

The rules are those of the merchant documentation, APIv3, "signing" and "callbacks".
"""

import base64
import json
import re
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sandbox import certificates, chance, signing
from sandbox.keys import Keys
from sandbox.merchants import Merchants

SCHEME = "WECHATPAY2-SHA256-RSA2048"
# A request whose clock is off by more is answered with 401.
CLOCK_WINDOW_S = 300
_FIELD = re.compile(r'(mchid|nonce_str|signature|timestamp|serial_no)="([^"]*)"')
_NONCE = re.compile(r"[0-9A-Za-z]{1,32}", re.ASCII)
_TIMESTAMP = re.compile(r"\d{1,12}", re.ASCII)


class SignError(Exception):
    """The request's Authorization does not hold: 401 SIGN_ERROR. `field` says where."""

    def __init__(self, field: str, issue: str) -> None:
        super().__init__(f"{field}: {issue}")
        self.field = field
        self.issue = issue


def check_request(
    merchants: Merchants, *, method: str, target: str, authorization: str, body: bytes, now: int
) -> Keys:
    """Verify one request and give the keys of who made it. `target` is path and query exactly as
    they came. Raises SignError."""
    fields = parse_authorization(authorization)
    keys = merchants.by_mchid(fields["mchid"])
    if keys is None:
        raise SignError("mchid", "unknown merchant")
    if fields["serial_no"].upper() != keys.identity.cert_serial:
        raise SignError("serial_no", "unknown merchant certificate")
    if not _TIMESTAMP.fullmatch(fields["timestamp"]):
        raise SignError("timestamp", "not a time in seconds")
    if abs(now // 1_000 - int(fields["timestamp"])) > CLOCK_WINDOW_S:
        raise SignError("timestamp", "the clock is off by more than 5 minutes")
    if not _NONCE.fullmatch(fields["nonce_str"]):
        raise SignError("nonce_str", "1 to 32 letters and digits are needed")
    head = f"{method}\n{target}\n{fields['timestamp']}\n{fields['nonce_str']}\n"
    message = head.encode() + body + b"\n"
    if not signing.verify(keys.wechatpay_merchant, message, fields["signature"]):
        raise SignError("signature", "sign not match")
    return keys


def parse_authorization(header: str) -> dict[str, str]:
    """The five fields, each there once, in any order. Raises SignError."""
    scheme, _, rest = header.partition(" ")
    if scheme != SCHEME:
        raise SignError("authorization", f"the scheme must be {SCHEME}")
    fields: dict[str, str] = {}
    for part in rest.split(","):
        found = _FIELD.fullmatch(part)
        if not found or found[1] in fields:
            raise SignError("authorization", "malformed")
        fields[found[1]] = found[2]
    for name in ("mchid", "nonce_str", "signature", "timestamp", "serial_no"):
        if not fields.get(name):
            raise SignError(name, "missing")
    return fields


def knows_serial(keys: Keys, serial: str) -> bool:
    """Whether this is the public key's or one of the platform certificates'."""
    certified = any(one.serial == serial for one in keys.wechatpay_certificates)
    return serial == keys.identity.public_key_id or certified


def answer_serial(keys: Keys, asked: str | None, now: int) -> str:
    """What signs the answer to a request with this `Wechatpay-Serial`: the public key's pair if
    the request names it, otherwise the newest valid certificate's."""
    if asked == keys.identity.public_key_id:
        return asked
    return certificates.newest_valid(keys.wechatpay_certificates, now).serial


def notice_serial(keys: Keys, signed_by: str, turn: int, now: int) -> str:
    """What signs a notice, by the merchant's setting `wechatpay_notices`; `both` takes turns."""
    if signed_by == "certificate" or (signed_by == "both" and turn % 2):
        return answer_serial(keys, None, now)
    return keys.identity.public_key_id


def signed_headers(keys: Keys, body: bytes, now: int, serial: str) -> dict[str, str]:
    """The Wechatpay-* headers over timestamp, nonce and the raw body (empty for a 204), signed
    with the key that `serial` names."""
    private = {one.serial: one.private for one in keys.wechatpay_certificates}
    timestamp = str(now // 1_000)
    nonce = chance.text(32)
    message = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
    return {
        "Wechatpay-Serial": serial,
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Signature": signing.sign(private.get(serial, keys.wechatpay_private), message),
        "Wechatpay-Signature-Type": SCHEME,
    }


def encrypted(keys: Keys, resource: dict[str, Any], original_type: str) -> dict[str, str]:
    """The `resource` of a notice."""
    plain = json.dumps(resource, ensure_ascii=False, separators=(",", ":")).encode()
    return {"original_type": original_type, **sealed(keys, plain, original_type)}


def sealed(keys: Keys, plain: bytes, associated_data: str) -> dict[str, str]:
    """AES-256-GCM under the APIv3 key, the tag behind the ciphertext, in base64."""
    nonce = chance.text(12)
    content = AESGCM(keys.apiv3_key).encrypt(nonce.encode(), plain, associated_data.encode())
    return {
        "algorithm": "AEAD_AES_256_GCM",
        "ciphertext": base64.b64encode(content).decode(),
        "associated_data": associated_data,
        "nonce": nonce,
    }
