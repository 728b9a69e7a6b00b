"""What the payment service is asked and what it answers: plain values, no Flask, no database."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class PayCommand:
    """A member's wish to pay one order on one channel (points, wechatpay or alipay).

    An order that needs no cash is paid by `points`, one that needs cash by a gateway.
    """

    member_id: int
    order_code: str
    channel: str


@dataclass(frozen=True, kw_only=True)
class PaymentView:
    """How an order's payment stands.

    `code_url` is what the QR code says while the attempt can be paid; `attempt_state` and what
    belongs to it are None before the first try.
    """

    order_code: str
    order_state: str
    points: int
    amount_fen: int
    expires_at: datetime
    channel: str | None = None
    out_trade_no: str | None = None
    attempt_state: str | None = None
    code_url: str | None = None
