"""Paying on Alipay's own page: alipay.trade.page.pay (desktop), alipay.trade.wap.pay (phone).

Neither is asked by us: the member's browser asks, with an address that we signed. Alipay refuses
an address whose timestamp is off (isv.invalid-timestamp; by how much its pages do not say), so the
ticket holds what is signed, and the address is signed afresh each time it is handed over. There is
no trade before the member opens that page and logs in: until then `query` says that none exists,
and `close` has nothing to close, as with a code that nobody scanned; hence `time_expire`.
"""

import json
from typing import Any, Final
from urllib.parse import urlsplit

from shop.gateways.alipay_answers import plain_text
from shop.gateways.alipay_wire import Wire
from shop.gateways.base import PrepayRequest, Product
from shop.gateways.reading import china_time, our_number
from shop.money import yuan_text

METHODS: Final = {
    Product.PAGE: ("alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
    Product.WAP: ("alipay.trade.wap.pay", "QUICK_WAP_WAY"),
}
"""Method and product code of each page."""

MAX_SUBJECT: Final = 128
"""Of the 256 characters that Alipay takes: the whole address must stay below the 4 KiB that some
servers and proxies allow for one."""

MAX_RETURN_URL: Final = 256
"""OpenAPI, public parameters, `return_url`."""

_PUBLIC: Final = ("notify_url", "return_url")


def page_ticket(request: PrepayRequest) -> str:
    """What will be signed, as JSON. Raises ValueError for numbers, times or addresses that are our
    own mistake."""
    _, product_code = METHODS[request.product]
    number = our_number(request.out_trade_no)
    if request.return_url:
        _web_address(request.return_url)
    content: dict[str, str] = {
        "out_trade_no": number,
        "total_amount": yuan_text(request.amount_fen),
        "subject": plain_text(request.subject, MAX_SUBJECT) or number,
        "product_code": product_code,
        "time_expire": china_time(request.expires_at).strftime("%Y-%m-%d %H:%M:%S"),
    }
    if request.product is Product.WAP and request.return_url:
        # Where the member gets by leaving the page without having paid.
        content["quit_url"] = request.return_url
    ticket = {
        "content": content,
        "notify_url": request.notify_url,
        "return_url": request.return_url,
    }
    return json.dumps(ticket, ensure_ascii=False, separators=(",", ":"))


def page_address(wire: Wire, product: Product, ticket: str, return_url: str) -> str:
    """The address to send the browser to; `return_url` instead of the ticket's, if given.

    Raises ValueError for what is no ticket of this product.
    """
    if product not in METHODS:
        raise ValueError(f"{product} is not paid on a page of Alipay's")
    method, product_code = METHODS[product]
    try:
        made: Any = json.loads(ticket)
    except ValueError:
        made = None
    content = made.get("content") if isinstance(made, dict) else None
    if not isinstance(content, dict) or content.get("product_code") != product_code:
        raise ValueError(f"not a ticket of {product}")
    public = {name: made[name] for name in _PUBLIC if made.get(name)}
    if return_url:
        _web_address(return_url)
        public["return_url"] = return_url
        if product is Product.WAP:
            content["quit_url"] = return_url
    return wire.address(method, content, **public)


def _web_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc or len(url) > MAX_RETURN_URL:
        raise ValueError(f"not an address to come back to: {url!r}")
