"""What the payment service is asked and what it answers: plain values, no Flask, no database."""

from dataclasses import dataclass
from datetime import datetime

from shop.gateways.base import HandOver, Product
from shop.gateways.registry import DEFAULT_MERCHANT
from shop.payments.products import Device


@dataclass(frozen=True, kw_only=True)
class PayCommand:
    """A member's wish to pay one order on one channel (points, wechatpay or alipay).

    An order that needs no cash is paid by `points`, one that needs cash by a gateway. The product
    is chosen by the device, or is the gateway's own page where `on_its_page` wishes so.
    `payer_openid` (needed for JSAPI; without it the payment is by QR code) and `client_ip` as in
    `PrepayRequest`.
    """

    member_id: int
    order_code: str
    channel: str
    device: Device = Device.DESKTOP
    on_its_page: bool = False
    payer_openid: str = ""
    client_ip: str = ""


@dataclass(frozen=True, kw_only=True)
class PaymentView:
    """How an order's payment stands.

    `product` and `hand_over` say how the attempt is paid, while it can be; a `stale` one must be
    asked for anew. `surplus_fen` was taken beyond what the order owed. `attempt_state` and what
    belongs to it are None before the first try. `merchant` is whose accounts take the money.
    """

    order_code: str
    order_state: str
    points: int
    amount_fen: int
    expires_at: datetime
    channel: str | None = None
    out_trade_no: str | None = None
    attempt_state: str | None = None
    product: Product | None = None
    hand_over: HandOver | None = None
    stale: bool = False
    surplus_fen: int = 0
    merchant: str = DEFAULT_MERCHANT
