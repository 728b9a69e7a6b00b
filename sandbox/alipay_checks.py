"""Alipay: the shape of the public parameters and of biz_content."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NoReturn
from urllib.parse import urlsplit

from sandbox import alipay_certs, alipay_sign, clock, strictjson
from sandbox.keys import Keys
from sandbox.money import parse_yuan
from sandbox.trades import ALIPAY, NewTrade

OUT_TRADE_NO = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
OUT_REQUEST_NO = re.compile(r"[A-Za-z0-9_\-]{1,64}", re.ASCII)
LONGEST_ADDRESS = {"notify_url": 256, "return_url": 256, "quit_url": 400}
MINUTE_MS = 60_000
MAX_EXPIRY_MS = 15 * 24 * 60 * MINUTE_MS
_UNITS_MS = {"m": MINUTE_MS, "h": 60 * MINUTE_MS, "d": 24 * 60 * MINUTE_MS}
_EXPRESS = re.compile(r"(\d{1,5})([mhd])", re.ASCII)
# Stricter than the documentation, which names no window: a clock that is off by hours (UTC sent
# as Beijing time) shows here rather than in production.
CLOCK_WINDOW_MS = 10 * MINUTE_MS
_MESSAGES = {
    "20000": "Service Currently Unavailable",
    "40001": "Missing Required Arguments",
    "40002": "Invalid Arguments",
    "40004": "Business Failed",
    "40005": "Call Limited",
}


@dataclass(frozen=True, kw_only=True)
class Product:
    """A way to pay: our name for it, and the product codes that belong to it."""

    name: str
    codes: frozenset[str]
    code_required: bool = True


PRECREATE = Product(
    name="precreate",
    # Which of them is a matter of the merchant's contract.
    codes=frozenset({"QR_CODE_OFFLINE", "FACE_TO_FACE_PAYMENT"}),
    code_required=False,
)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request whose signature holds; `certified` in certificate mode."""

    keys: Keys
    certified: bool
    now: int
    params: Mapping[str, str] = field(repr=False)
    biz: Mapping[str, Any] = field(repr=False)

    @property
    def merchant(self) -> str:
        """Who calls."""
        return self.keys.identity.merchant


class AlipayError(Exception):
    """An answer that is not 10000. Gateway-level ones come before the caller is known."""

    def __init__(self, code: str, sub_code: str, sub_msg: str, *, signed: bool = True) -> None:
        super().__init__(f"{code} {sub_code}: {sub_msg}")
        self.code = code
        self.sub_code = sub_code
        self.sub_msg = sub_msg
        self.signed = signed

    def content(self) -> dict[str, str]:
        """The fields of the answer."""
        return {
            "code": self.code,
            "msg": _MESSAGES[self.code],
            "sub_code": self.sub_code,
            "sub_msg": self.sub_msg,
        }


def business(sub_code: str, message: str) -> NoReturn:
    """Raise 40004 ACQ.<sub_code>."""
    raise AlipayError("40004", f"ACQ.{sub_code}", message)


def _gateway(code: str, sub_code: str, message: str) -> NoReturn:
    raise AlipayError(code, sub_code, message, signed=False)


def check_public(keys: Keys, params: Mapping[str, str], methods: set[str], now: int) -> None:
    """The parameters that every call has, and the signature. Raises AlipayError, unsigned."""
    for name, label in (
        ("app_id", "app-id"),
        ("method", "method"),
        ("sign_type", "signature-type"),
        ("sign", "signature"),
        ("timestamp", "timestamp"),
        ("version", "version"),
    ):
        if not params.get(name):
            _gateway("40001", f"isv.missing-{label}", f"缺少参数 {name}")
    if params["app_id"] != keys.identity.alipay_app_id:
        _gateway("40002", "isv.invalid-app-id", "无效的AppID参数")
    if params["sign_type"] != "RSA2":
        _gateway("40002", "isv.invalid-signature-type", "无效签名类型")
    if params.get("charset", "utf-8").lower() != "utf-8":
        _gateway("40002", "isv.invalid-charset", "字符集错误")
    _check_certificates(keys, params, now)
    if not alipay_sign.verify_request(keys.alipay_merchant, params):
        _gateway("40002", "isv.invalid-signature", "验签出错")
    if params["method"] not in methods:
        _gateway("40002", "isv.invalid-method", "不存在的方法名")
    if params.get("format", "JSON").upper() != "JSON":
        _gateway("40002", "isv.invalid-format", "无效的数据格式")
    if params["version"] != "1.0":
        _gateway("40002", "isv.invalid-version", "无效的版本")
    moment = clock.parse_plain(params["timestamp"])
    if moment is None or abs(now - moment) > CLOCK_WINDOW_MS:
        _gateway("40002", "isv.invalid-timestamp", "非法的时间戳参数")


def certified(params: Mapping[str, str]) -> bool:
    """Whether this is certificate mode: the real gateway knows it from the application's settings,
    we take it from the request."""
    return bool(params.get("app_cert_sn") or params.get("alipay_root_cert_sn"))


def _check_certificates(keys: Keys, params: Mapping[str, str], now: int) -> None:
    if not certified(params):
        return
    app_sn, root_sn = params.get("app_cert_sn", ""), params.get("alipay_root_cert_sn", "")
    try:
        alipay_certs.check_request(keys, app_sn, root_sn, now)
    except alipay_certs.Refused as refused:
        _gateway("40002", refused.sub_code, refused.message)


def biz_content(params: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object of business parameters; numbers with a point stay exact."""
    try:
        value = json.loads(
            params.get("biz_content") or "{}",
            parse_float=Decimal,
            parse_constant=strictjson.no_constant,
        )
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        business("INVALID_PARAMETER", "biz_content 不是 JSON 对象")
    return value


def text(biz: Mapping[str, Any], name: str, longest: int, *, required: bool = True) -> str:
    """A string, at most so long; "" where it is absent and may be."""
    value = biz.get(name)
    if (value is None or value == "") and not required:
        return ""
    good = isinstance(value, str) and 0 < len(value) <= longest and strictjson.is_text(value)
    if not isinstance(value, str) or not good:
        business("INVALID_PARAMETER", f"参数无效：{name}")
    return value


def fen(biz: Mapping[str, Any], name: str) -> int:
    """A yuan amount, as fen."""
    amount = parse_yuan(biz.get(name))
    if amount is None:
        business("INVALID_PARAMETER", f"参数无效：{name}")
    return amount


def new_trade(call: Call, product: Product) -> NewTrade:
    """Read the parameters of a payment. Raises AlipayError."""
    biz = call.biz
    number = text(biz, "out_trade_no", 64)
    if not OUT_TRADE_NO.fullmatch(number):
        business("INVALID_PARAMETER", "参数无效：out_trade_no")
    subject = text(biz, "subject", 256)
    if any(sign in subject for sign in "/=&"):
        business("INVALID_PARAMETER", "参数无效：subject")
    code = text(biz, "product_code", 64, required=product.code_required)
    if code and code not in product.codes:
        business("INVALID_PARAMETER", "参数无效：product_code")
    text(biz, "body", 128, required=False)
    amount_fen = fen(biz, "total_amount")
    return NewTrade(
        channel=ALIPAY,
        merchant=call.merchant,
        product=product.name,
        out_trade_no=number,
        subject=subject,
        attach=text(biz, "passback_params", 512, required=False),
        amount_fen=amount_fen,
        notify_url=_address("notify_url", call.params.get("notify_url", "")),
        return_url=_address("return_url", call.params.get("return_url", "")),
        quit_url=_address("quit_url", text(biz, "quit_url", 400, required=False)),
        certified=call.certified,
        digest=hashlib.sha256(f"{amount_fen}\n{subject}".encode()).hexdigest(),
        expires_at_ms=_expiry(biz, call.now),
    )


def _address(name: str, url: str) -> str:
    """An http(s) address, or "" for none."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or len(url) > LONGEST_ADDRESS[name]:
        business("INVALID_PARAMETER", f"参数无效：{name}")
    return url


def _expiry(biz: Mapping[str, Any], now: int) -> int:
    """time_expire wins over timeout_express, which counts from the making of the code."""
    absolute = text(biz, "time_expire", 32, required=False)
    if absolute:
        moment = clock.parse_plain(absolute)
        if moment is None or not now < moment <= now + MAX_EXPIRY_MS:
            business("INVALID_PARAMETER", "参数无效：time_expire")
        return moment
    express = text(biz, "timeout_express", 6, required=False)
    if not express:
        return now + MAX_EXPIRY_MS
    found = _EXPRESS.fullmatch(express)
    length_ms = int(found[1]) * _UNITS_MS[found[2]] if found else 0
    if not MINUTE_MS <= length_ms <= MAX_EXPIRY_MS:
        business("INVALID_PARAMETER", "参数无效：timeout_express")
    return now + length_ms
