"""Which product of a gateway a payment is made by: what suits the device, of what is offered."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from shop.gateways.base import Product


class Device(StrEnum):
    """Where the member's browser runs.

    `wechat` and `alipay` are the browsers inside those two apps.
    """

    DESKTOP = "desktop"
    PHONE = "phone"
    WECHAT = "wechat"
    ALIPAY = "alipay"


# What can be paid by this device, the best first; a QR code can be shown wherever another device
# may scan it. WeChat Pay's H5 is refused inside WeChat, JSAPI works nowhere else (APIv3, "H5支付",
# "JSAPI支付"). WeChat's browser does not open Alipay, and that Alipay's opens WeChat is not known.
_SUITABLE: Final[Mapping[tuple[str, Device], tuple[Product, ...]]] = {
    ("wechatpay", Device.DESKTOP): (Product.NATIVE,),
    ("wechatpay", Device.PHONE): (Product.H5, Product.NATIVE),
    ("wechatpay", Device.WECHAT): (Product.JSAPI, Product.NATIVE),
    ("wechatpay", Device.ALIPAY): (Product.NATIVE,),
    ("alipay", Device.DESKTOP): (Product.PRECREATE, Product.PAGE),
    ("alipay", Device.PHONE): (Product.WAP, Product.PRECREATE),
    ("alipay", Device.WECHAT): (Product.PRECREATE,),
    ("alipay", Device.ALIPAY): (Product.WAP, Product.PRECREATE),
}

_TICKET_LIVES: Final[Mapping[Product, timedelta]] = {
    # APIv3: code_url and prepay_id live 2 h, h5_url 5 min; Alipay precreate: qr_code 2 h.
    Product.NATIVE: timedelta(hours=2),
    Product.JSAPI: timedelta(hours=2),
    Product.H5: timedelta(minutes=5),
    Product.PRECREATE: timedelta(hours=2),
}
_TICKET_MARGIN: Final = timedelta(seconds=30)
"""A ticket that is about to die is not worth showing."""


def choose(
    channel: str,
    device: Device,
    offered: Collection[Product],
    *,
    payer_known: bool,
    on_its_page: bool = False,
) -> Product | None:
    """The product of this channel that suits the device best, None where none is offered.

    JSAPI is none unless the payer's openid is known. `on_its_page`: the member would rather pay on
    the gateway's own page than scan a code.
    """
    wished: tuple[Product, ...] = _SUITABLE[channel, device]
    if on_its_page and channel == "alipay":
        wished = (Product.PAGE, *wished)
    for product in wished:
        if product in offered and (product is not Product.JSAPI or payer_known):
            return product
    return None


def is_stale(product: Product, made_at: datetime | None, now: datetime) -> bool:
    """Whether a ticket of that age is dead at its gateway, or about to be."""
    life = _TICKET_LIVES.get(product)
    return life is not None and made_at is not None and now > made_at + life - _TICKET_MARGIN
