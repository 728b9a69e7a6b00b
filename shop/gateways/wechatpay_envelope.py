"""The signature around an answer or a notice of WeChat Pay (APIv3, "签名验证")."""

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from wechatpayv3.utils import rsa_verify

from shop.gateways.reading import is_canonical_base64

MAX_CLOCK_SKEW_S: Final = 300
"""A signature older or newer than this is a replay, or a clock to be mended (APIv3: 5 minutes)."""

SIGNATURE_TYPE: Final = "WECHATPAY2-SHA256-RSA2048"

_REQUIRED: Final = (
    "Wechatpay-Serial",
    "Wechatpay-Timestamp",
    "Wechatpay-Nonce",
    "Wechatpay-Signature",
)
# Left out in the example of an older page of APIv3's ("签名验证"): then it is the only type.
_TYPE: Final = "Wechatpay-Signature-Type"
_VISIBLE = re.compile(r"[\x21-\x7e]{1,1024}")
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)


class EnvelopeRefused(Exception):
    """The signature around an answer or a notice was not believed. `reason` as `NoticeRefused`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def open_envelope(
    headers: Iterable[tuple[str, str]],
    body: bytes,
    key_of: Callable[[str], RSAPublicKey | None],
    now: datetime,
) -> str:
    """The text of a body whose signature, serial and clock hold. Raises EnvelopeRefused.

    `key_of` gives the key that a serial names; it is asked last, as it may cause a request.
    """
    signed = _signed_headers(headers)
    _check_clock(signed["Wechatpay-Timestamp"], now)
    if signed.get(_TYPE, SIGNATURE_TYPE) != SIGNATURE_TYPE:
        raise EnvelopeRefused("bad_signature", "not " + SIGNATURE_TYPE)
    # The gateway's probes ("WECHATPAY/SIGNTEST/…") take this way like any other bad signature.
    if not is_canonical_base64(signed["Wechatpay-Signature"]):
        raise EnvelopeRefused("bad_signature", "the signature is not base64")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise EnvelopeRefused("bad_signature", f"the body is not UTF-8: {error}") from None
    key = key_of(signed["Wechatpay-Serial"])
    if key is None:
        raise EnvelopeRefused("unknown_serial", "not signed by a key of the platform's")
    if not rsa_verify(
        signed["Wechatpay-Timestamp"],
        signed["Wechatpay-Nonce"],
        text,
        signed["Wechatpay-Signature"],
        key,
    ):
        raise EnvelopeRefused("bad_signature", "the signature does not hold")
    return text


def _check_clock(timestamp: str, now: datetime) -> None:
    if _SECONDS.fullmatch(timestamp) is None:
        raise EnvelopeRefused("malformed", "Wechatpay-Timestamp is not a number of seconds")
    # Whole seconds on both sides: a part of one must not push a notice out of the window.
    age_s = int(now.timestamp()) - int(timestamp)
    if abs(age_s) > MAX_CLOCK_SKEW_S:
        raise EnvelopeRefused("stale", f"signed {age_s} s ago by our clock")


def _signed_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers of a signature, each at most once and free of control characters.

    Only these go to the library: it would also read Django's and FastAPI's spellings, and a line
    feed within the nonce would let the border between nonce and body be moved.
    """
    wanted = {name.lower(): name for name in (*_REQUIRED, _TYPE)}
    found: dict[str, str] = {}
    for key, value in headers:
        name = wanted.get(key.lower())
        if name is None:
            continue
        if name in found:
            raise EnvelopeRefused("malformed", f"{name} stands twice")
        if _VISIBLE.fullmatch(value) is None:
            raise EnvelopeRefused("malformed", f"{name} is empty, too long or not plain text")
        found[name] = value
    missing = [name for name in _REQUIRED if name not in found]
    if missing:
        raise EnvelopeRefused("malformed", f"without {', '.join(missing)}")
    return found
