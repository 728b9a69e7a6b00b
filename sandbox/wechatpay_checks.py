"""WeChat Pay: the shape of request bodies. What is wrong is a PARAM_ERROR that says where."""

import hashlib
import ipaddress
import json
import re
from typing import Any, NoReturn
from urllib.parse import urlsplit

from sandbox import clock, strictjson
from sandbox.trades import WECHATPAY, NewTrade

OUT_TRADE_NO = re.compile(r"[0-9A-Za-z_\-|*]{6,32}", re.ASCII)
OUT_REFUND_NO = re.compile(r"[0-9A-Za-z_\-|*@]{1,64}", re.ASCII)
# Amounts are int32 at the gateway.
MAX_TOTAL_FEN = 2**31 - 1
# Without time_expire an order can be paid until the gateway closes it, after 7 days.
DEFAULT_EXPIRY_MS = 7 * 86_400_000


class ApiError(Exception):
    """An answer that is not a success: HTTP status, code, message, and where the fault lies."""

    def __init__(
        self, status: int, code: str, message: str, detail: dict[str, Any] | None = None
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail


def bad(field: str, issue: str, value: object = None, location: str = "body") -> NoReturn:
    """Raise PARAM_ERROR for one field."""
    detail = {"field": field, "value": value, "issue": issue, "location": location}
    raise ApiError(400, "PARAM_ERROR", f"参数错误：{field}", detail)


def body_of(raw: bytes) -> dict[str, Any]:
    """The JSON object in a request's body."""
    try:
        value = json.loads(raw, parse_constant=strictjson.no_constant)
    except (ValueError, RecursionError):
        bad("/body", "not JSON")
    if not isinstance(value, dict):
        bad("/body", "not a JSON object")
    return value


def text(
    body: dict[str, Any], name: str, longest: int, *, required: bool = True, at: str = ""
) -> str:
    """A string field, at most so many characters; "" where it is absent and may be."""
    value = body.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        bad(f"{at}/{name}", "a non-empty string is needed", value)
    if len(value) > longest:
        bad(f"{at}/{name}", f"at most {longest} characters", value)
    if not strictjson.is_text(value):
        bad(f"{at}/{name}", "not Unicode text")
    return value


def fen(amount: dict[str, Any], name: str) -> int:
    """A whole number of fen, 1 or more."""
    value = amount.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_TOTAL_FEN:
        bad(f"/amount/{name}", "a whole number of fen, 1 or more", value)
    return value


def amount_of(body: dict[str, Any], *, currency_required: bool) -> dict[str, Any]:
    """The amount object, in CNY."""
    amount = body.get("amount")
    if not isinstance(amount, dict):
        bad("/amount", "an object is needed", amount)
    currency = amount.get("currency", None if currency_required else "CNY")
    if currency != "CNY":
        bad("/amount/currency", "must be CNY", currency)
    return amount


def notify_url(body: dict[str, Any], *, required: bool) -> str:
    """At most 255 characters, no query string. The real gateway also wants https and no IP
    address; a stand-in on one's own machine cannot."""
    url = text(body, "notify_url", 255, required=required)
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        bad("/notify_url", "not an address", url)
    if parts.scheme not in {"http", "https"} or not host:
        bad("/notify_url", "a full address is needed", url)
    if parts.query or parts.fragment or "?" in url:
        bad("/notify_url", "must carry no parameters", url)
    return url


def new_trade(merchant: str, product: str, body: dict[str, Any], now: int) -> NewTrade:
    """Read the body of a prepay. Raises ApiError."""
    number = text(body, "out_trade_no", 32)
    if not OUT_TRADE_NO.fullmatch(number):
        bad("/out_trade_no", "6 to 32 of 0-9 A-Z a-z _ - | *", number)
    text(body, "goods_tag", 32, required=False)
    for name in ("detail", "settle_info"):
        part(body, name, required=False)
    # Where the member is, and the deadline (which the first request fixes), make no other order.
    apart = {"time_expire", "scene_info"}
    same = {key: value for key, value in body.items() if key not in apart}
    return NewTrade(
        channel=WECHATPAY,
        merchant=merchant,
        product=product,
        out_trade_no=number,
        subject=text(body, "description", 127),
        attach=text(body, "attach", 128, required=False),
        amount_fen=fen(amount_of(body, currency_required=False), "total"),
        notify_url=notify_url(body, required=True),
        digest=hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest(),
        expires_at_ms=_time_expire(body, now),
        payer_openid=_payer(body) if product == "jsapi" else "",
        client_ip=_scene(body, required=product == "h5"),
    )


def part(body: dict[str, Any], name: str, *, required: bool, at: str = "") -> dict[str, Any]:
    """An object inside; {} where it is absent and may be."""
    value = body.get(name)
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        bad(f"{at}/{name}", "an object is needed", value)
    return value


def _payer(body: dict[str, Any]) -> str:
    return text(part(body, "payer", required=True), "openid", 128, at="/payer")


def _scene(body: dict[str, Any], *, required: bool) -> str:
    """The member's address. An H5 payment needs it, and the kind of the scene."""
    scene = part(body, "scene_info", required=required)
    if not scene and not required:
        return ""
    address = text(scene, "payer_client_ip", 45, at="/scene_info")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        bad("/scene_info/payer_client_ip", "an IPv4 or IPv6 address is needed", address)
    kind = part(scene, "h5_info", required=required, at="/scene_info")
    text(kind, "type", 32, required=required, at="/scene_info/h5_info")
    return address


def _time_expire(body: dict[str, Any], now: int) -> int:
    value = body.get("time_expire")
    if value is None:
        return now + DEFAULT_EXPIRY_MS
    moment = clock.parse_rfc3339(value) if isinstance(value, str) else None
    if moment is None:
        bad("/time_expire", "RFC 3339 is needed, as 2026-11-23T20:15:00+08:00", value)
    if moment <= now:
        bad("/time_expire", "is in the past", value)
    return moment
