"""Reading what gateways send: strict, bounded, and without trust."""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from shop.gateways.base import GatewayFault
from shop.money import fen_from_yuan

MAX_NOTICE_BYTES = 64 * 1024
"""A real notice has two or three kilobytes."""

MAX_TEXT = 128
"""Longest number, identifier or state that either gateway documents (Alipay's notify_id: 128)."""

MAX_DETAIL = 200
"""Longest error text kept for the log."""

CHINA = timezone(timedelta(hours=8), "Asia/Shanghai")
"""Both gateways write times in this zone, which has had no summer time since 1991."""

MAX_AMOUNT_FEN = 100_000_000_00
"""One hundred million yuan: Alipay's highest `total_amount`, and above any WeChat Pay limit."""

_OUR_NUMBER = re.compile(r"[0-9A-Za-z_\-]{1,64}")
_IDENTIFIER = re.compile(rf"[\x21-\x7e]{{1,{MAX_TEXT}}}")
_ALIPAY_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d{1,6})?", re.ASCII)


class BadField(ValueError):
    """A field is missing or has a form that it cannot have."""


def identifier(fields: Mapping[str, Any], name: str) -> str:
    """A required field: 1 to 128 visible ASCII characters. Raises BadField."""
    value = fields.get(name)
    if not isinstance(value, str) or _IDENTIFIER.fullmatch(value) is None:
        raise BadField(f"{name} is missing or malformed")
    return value


def our_number(number: str) -> str:
    """A trade or refund number of ours, fit to stand in a signed path.

    Raises ValueError: it would be our own mistake (`|` is allowed by WeChat Pay, but the library
    signs another path than it then requests).
    """
    if _OUR_NUMBER.fullmatch(number) is None:
        raise ValueError(f"not a number fit for a gateway: {number!r}")
    return number


def fault(code: str, detail: object = "") -> GatewayFault:
    """A fault with its texts cut to what a log line should hold, and can: JSON also writes halves
    of characters."""
    return GatewayFault(code=code[:MAX_TEXT], detail=_printable(str(detail)[:MAX_DETAIL]))


def is_canonical_base64(text: str) -> bool:
    """Whether `text` is *the* base64 form of its bytes.

    Both libraries decode leniently: strange characters are skipped and the unused bits before the
    padding ignored, so that an altered signature could still be the same signature.
    """
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)).decode() == text
    except (binascii.Error, ValueError):
        return False


def rfc3339_utc(value: object) -> datetime | None:
    """A WeChat Pay time such as `2018-06-08T10:34:56+08:00`; None if it is not one."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=CHINA)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def alipay_utc(value: object) -> datetime | None:
    """An Alipay time such as `2017-03-21 13:29:17`, in China; None if it is not one."""
    match = _ALIPAY_TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    try:
        return datetime.fromisoformat(match[1]).replace(tzinfo=CHINA).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def china_time(moment: datetime) -> datetime:
    """The same moment on a Chinese clock, to the second, never later. Raises ValueError if naive.

    Rounded down, because the gateways take it as the deadline for paying.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(CHINA).replace(microsecond=0)


def read_amount(
    fields: Mapping[str, Any], name: str, *, currency: str | None = None
) -> tuple[int, str]:
    """A WeChat Pay amount `{name: fen, "currency": …}`: positive fen and the currency.

    `currency` stands in where the gateway leaves it out (refund notices). Raises BadField.
    """
    amount = fields.get("amount")
    value = amount.get(name) if isinstance(amount, dict) else None
    if not isinstance(amount, dict) or type(value) is not int or not 0 < value <= MAX_AMOUNT_FEN:
        raise BadField(f"amount.{name} is missing or malformed")
    return value, identifier({"currency": currency, **amount}, "currency")


def cut_utf8(text: str, limit_bytes: int) -> str:
    """The text without control characters, cut at a character's border to `limit_bytes`."""
    plain = _printable(text).strip()
    return plain.encode("utf-8", "replace")[:limit_bytes].decode("utf-8", "ignore").strip()


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)


def yuan_amount(fields: Mapping[str, Any], name: str) -> int:
    """A required Alipay amount such as `"88.88"`, as positive fen. Raises BadField."""
    try:
        value = fen_from_yuan(fields[name]) if isinstance(fields[name], str) else 0
    except (KeyError, ValueError):
        value = 0
    if not 0 < value <= MAX_AMOUNT_FEN:
        raise BadField(f"{name} is missing or malformed")
    return value
