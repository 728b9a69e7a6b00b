"""What every payment gateway can be asked, and the four outcomes of asking.

A call to a gateway never raises for what the gateway or the network did: it
answers with one of four outcomes. `UNKNOWN` is a first-class answer: the effect
may or may not have happened, and only asking again (`query`) can tell. Nothing
may turn it into `FAILED`.

Long because a contract is read as one: hardly a line of it does anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import BinaryIO, Final, Protocol, runtime_checkable


class Outcome(StrEnum):
    """The four results that a gateway call can have.

    What "succeeded" means depends on the call and is said at each result class.
    """

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PENDING = "pending"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class GatewayFault:
    """Why a call did not simply succeed, in the gateway's own words.

    `code` is the gateway's error code (`ORDER_NOT_EXIST`, `ACQ.TRADE_NOT_EXIST`) or,
    where there was no readable answer, one of ours in lower case: `timeout`,
    `unreachable`, `bad_signature`, `bad_answer`, `server_error`, `no_certificates`
    (nothing to verify an answer by, so nothing was asked).
    """

    code: str
    detail: str = ""


class Product(StrEnum):
    """How a payment is made at a gateway, by the gateways' own names.

    WeChat Pay: `native` (a QR code), `jsapi` (inside WeChat's own browser), `h5` (another browser
    on a phone). Alipay: `precreate` (a QR code), `page` (Alipay's page on a desktop), `wap`
    (Alipay's page or app on a phone).
    """

    NATIVE = "native"
    JSAPI = "jsapi"
    H5 = "h5"
    PRECREATE = "precreate"
    PAGE = "page"
    WAP = "wap"


BY_BROWSER: Final = frozenset({Product.PAGE, Product.WAP})
"""Opened by the member's browser: `prepay` asks nobody."""


@dataclass(frozen=True, kw_only=True)
class PrepayRequest:
    """One payment to open at a gateway.

    `out_trade_no` is stored before the call and is the same on every retry, as the product is.
    `expires_at` is the moment after which the gateway must no longer take money. `payer_openid` is
    needed for `jsapi`, `client_ip` for `h5`, `return_url` (where the member's browser comes back
    to, which proves nothing) for `page` and `wap`.
    """

    out_trade_no: str
    amount_fen: int
    subject: str
    expires_at: datetime
    notify_url: str
    product: Product
    payer_openid: str = ""
    client_ip: str = ""
    return_url: str = ""


@dataclass(frozen=True, kw_only=True)
class PrepayResult:
    """SUCCEEDED: opened, `ticket` is what the member pays with (see `HandOver`). FAILED: refused
    for good, nothing can be paid under this number. UNKNOWN: may be open. Never PENDING.

    `sent` is False only where it is certain that nothing of this call reached the gateway.
    """

    outcome: Outcome
    ticket: str | None = None
    fault: GatewayFault | None = None
    sent: bool = True


@dataclass(frozen=True, kw_only=True)
class HandOver:
    """What the member's side does with a ticket: exactly one of these is set.

    Show `qr_text` as a QR code; send the browser to `url`; or call the bridge of WeChat's own
    browser with the parameters `bridge_call` (each signed anew, as they hold for minutes).
    """

    qr_text: str | None = None
    url: str | None = None
    bridge_call: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class QueryResult:
    """SUCCEEDED: money was taken (also when it was refunded since). FAILED: closed at the
    gateway, no money was or will be taken. PENDING: not paid so far and still payable, or not
    known to the gateway (`exists` False: an Alipay QR that nobody scanned, a WeChat order that
    never arrived). UNKNOWN: no believable answer.

    For SUCCEEDED `transaction_id` and `amount_fen` (the order amount, before the gateway's own
    coupons) are set. `out_trade_no` is set wherever the gateway named one.
    """

    outcome: Outcome
    exists: bool = True
    out_trade_no: str | None = None
    trade_state: str = ""
    transaction_id: str | None = None
    amount_fen: int | None = None
    paid_at: datetime | None = None
    fault: GatewayFault | None = None


@dataclass(frozen=True, kw_only=True)
class CloseResult:
    """SUCCEEDED: the gateway said closed, or knows no such trade. FAILED: the gateway says it
    cannot be closed, as a rule because it is paid. UNKNOWN otherwise. Never PENDING.

    Whatever it is, it proves nothing by itself: `query` before acting on it.
    """

    outcome: Outcome
    fault: GatewayFault | None = None


class CancelAction(StrEnum):
    """What a cancellation did to the trade, in Alipay's words. `none`: it named no action."""

    CLOSE = "close"
    REFUND = "refund"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class CancelResult:
    """SUCCEEDED: the gateway did `action`, or (with `none`) knows of no trade to cancel. FAILED:
    refused for good. UNKNOWN otherwise. Never PENDING.

    `retry` is the gateway's own advice to ask again. As with `CloseResult`: `query` before acting.
    """

    outcome: Outcome
    action: CancelAction = CancelAction.NONE
    retry: bool = False
    fault: GatewayFault | None = None


@dataclass(frozen=True, kw_only=True)
class RefundRequest:
    """Money to give back. `out_refund_no` is stored before the call and kept on retry."""

    out_trade_no: str
    out_refund_no: str
    refund_fen: int
    total_fen: int
    reason: str
    notify_url: str


@dataclass(frozen=True, kw_only=True)
class RefundResult:
    """SUCCEEDED: the money went back. PENDING: accepted, not done. FAILED: the gateway closed or
    refused it for good. UNKNOWN: may have been accepted; ask by `query_refund`."""

    outcome: Outcome
    refund_id: str | None = None
    status: str = ""
    fault: GatewayFault | None = None


@dataclass(frozen=True, kw_only=True)
class BillResult:
    """SUCCEEDED: the whole bill was written. FAILED: there is none for that day, and will be none.
    PENDING: it is not made yet. UNKNOWN: what was written is to be thrown away; ask again."""

    outcome: Outcome
    fault: GatewayFault | None = None


class NoticeKind(StrEnum):
    """What a verified notice tells of."""

    PAYMENT = "payment"
    REFUND = "refund"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A callback whose signature, clock, app and merchant were checked.

    `outcome` reads as in `QueryResult` (payment) or `RefundResult` (refund). The amount is *not*
    checked here: only the books know what it ought to be. `account` is whose keys checked it."""

    kind: NoticeKind
    notice_id: str
    out_trade_no: str
    outcome: Outcome
    trade_state: str
    transaction_id: str | None
    amount_fen: int | None
    currency: str = "CNY"
    paid_at: datetime | None = None
    out_refund_no: str | None = None
    account: str = ""


class NoticeRefused(Exception):
    """This callback was not believed.

    `reason` is one of `bad_signature`, `stale`, `unknown_serial`, `malformed`, `wrong_app`,
    `wrong_merchant`; `detail` is for the log. `notice_id` and `out_trade_no` are set only where
    the signature held.
    """

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        notice_id: str | None = None,
        out_trade_no: str | None = None,
    ) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.notice_id = notice_id
        self.out_trade_no = out_trade_no


@dataclass(frozen=True, kw_only=True)
class Acknowledgement:
    """An HTTP answer in the gateway's own form."""

    status: int
    body: str
    content_type: str


class LoginRefused(Exception):
    """Who the payer is was not told. `code` is the gateway's error code or one of ours."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code


class PayerLogin(Protocol):
    """How a shop's page learns who is about to pay, where a product needs to know (JSAPI)."""

    appid: str

    def authorize_url(self, redirect_uri: str, state: str) -> str:
        """Where to send the browser; it comes back to `redirect_uri` with a code and the state."""
        ...

    def openid_of(self, code: str) -> str:
        """Who that is. One bounded call; a code works once. Raises LoginRefused."""
        ...


class Gateway(Protocol):
    """One gateway as one merchant sees it. Thread-safe; every call is bounded in time."""

    channel: str
    products: frozenset[Product]
    """What this merchant may open."""
    account: str = ""  # which one it is, whatever its keys; of other accounts it knows nothing
    payer_login: PayerLogin | None = None
    """Set where one of the products needs the payer's openid."""

    def prepay(self, request: PrepayRequest) -> PrepayResult:
        """Open a payment; the same request again is safe (the newest ticket counts).

        Raises ValueError for a product that is not in `products`.
        """
        ...

    def hand_over(self, product: Product, ticket: str, *, return_url: str = "") -> HandOver:
        """What the member's side does with a ticket. Asks nobody."""
        ...

    def query(self, out_trade_no: str) -> QueryResult:
        """Ask what became of a payment."""
        ...

    def query_transaction(self, transaction_id: str) -> QueryResult:
        """As `query`, by the gateway's own number; the result names the `out_trade_no`."""
        ...

    def close(self, out_trade_no: str) -> CloseResult:
        """Ask that a payment can no longer be paid. Safe to repeat."""
        ...

    def refund(self, request: RefundRequest) -> RefundResult:
        """Ask for money to go back. The same `out_refund_no` again is safe."""
        ...

    def query_refund(self, out_trade_no: str, out_refund_no: str) -> RefundResult:
        """Ask what became of a refund."""
        ...

    def download_bill(self, day: date, into: BinaryIO) -> BillResult:
        """Write the gateway's list of a day's payments and refunds (a day in China) to `into`.

        CSV in UTF-8, in pieces as it comes: whatever was written is to be thrown away unless the
        result is SUCCEEDED. Takes minutes at most. Raises only what `into` raises.
        """
        ...

    def read_notice(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """Verify a callback, then read it. Raises `NoticeRefused`; never trusts, never acts."""
        ...

    def acknowledge(self) -> Acknowledgement:
        """The answer that stops the gateway from sending this notice again."""
        ...

    def reject(self, message: str) -> Acknowledgement:
        """The answer that makes the gateway send the notice again."""
        ...


@runtime_checkable
class Cancelling(Protocol):
    """A gateway that can also take a payment back whole (Alipay)."""

    def cancel(self, out_trade_no: str) -> CancelResult:
        """End a payment whose outcome is unknown. **What is paid is refunded**, in full.

        Hence never used by the shop itself, which asks (`query`) and closes; it is the operator's
        tool. Safe to repeat.
        """
        ...
