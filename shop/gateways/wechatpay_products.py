"""The three ways to pay at WeChat Pay: what each asks for, gives, and lets the member's side do.

Source: APIv3, "Native下单", "JSAPI下单", "H5下单", "JSAPI调起支付", "H5调起支付".
"""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from wechatpayv3 import WeChatPayType

from shop.gateways.base import HandOver, PrepayRequest, Product

_TYPES: Final = {
    Product.NATIVE: WeChatPayType.NATIVE,
    Product.JSAPI: WeChatPayType.JSAPI,
    Product.H5: WeChatPayType.H5,
}
_TICKETS: Final = {
    Product.NATIVE: "code_url",
    Product.JSAPI: "prepay_id",
    Product.H5: "h5_url",
}

MAX_TICKET: Final = 512
"""`code_url` and `h5_url` have at most 512 characters, a `prepay_id` 64."""


def parameters(request: PrepayRequest) -> dict[str, Any]:
    """What one product's call takes beyond what all take.

    Raises ValueError where the request does not say who or where the payer is.
    """
    product = request.product
    given: dict[str, Any] = {"pay_type": _TYPES[product]}
    if product is Product.JSAPI:
        if not request.payer_openid:
            raise ValueError("jsapi needs the payer's openid")
        given["payer"] = {"openid": request.payer_openid}
    if product is Product.H5:
        if not request.client_ip:
            raise ValueError("h5 needs the payer's address")
        given["scene_info"] = {"payer_client_ip": request.client_ip, "h5_info": {"type": "Wap"}}
    return given


def ticket_name(product: Product) -> str:
    """Which field of the answer is the ticket."""
    return _TICKETS[product]


def ticket_of(product: Product, value: object) -> str | None:
    """The ticket, if it can be one: a browser is sent to an `h5_url`, so it must be an address."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TICKET or not value.isprintable():
        return None
    if product is Product.H5 and not value.startswith(("https://", "http://")):
        return None
    return value


def hand_over(
    product: Product,
    ticket: str,
    *,
    return_url: str,
    bridge_call: Callable[[str], dict[str, str]],
) -> HandOver:
    """What the member's side does with a ticket; `bridge_call` signs a `package`."""
    if product is Product.NATIVE:
        return HandOver(qr_text=ticket)
    if product is Product.JSAPI:
        return HandOver(bridge_call=bridge_call(f"prepay_id={ticket}"))
    if not return_url:
        return HandOver(url=ticket)
    joint = "&" if "?" in ticket else "?"
    return HandOver(url=f"{ticket}{joint}redirect_url={quote(return_url, safe='')}")
