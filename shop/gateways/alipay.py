"""Alipay (OpenAPI, RSA2) as a `Gateway`: a QR code, or Alipay's own page on a desktop or phone.

In public-key mode or certificate mode, which only `alipay_certs` and `alipay_wire` tell apart.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any, BinaryIO, Final

from config.settings import AlipaySettings
from shop.clock import Clock
from shop.gateways import alipay_bill, alipay_refunds, outcomes
from shop.gateways.alipay_answers import ask, plain_text, read_query
from shop.gateways.alipay_notice import read_alipay_notice
from shop.gateways.alipay_pages import page_address, page_ticket
from shop.gateways.alipay_wire import build_library
from shop.gateways.base import (
    Acknowledgement,
    BillResult,
    Cancelling,
    CancelResult,
    CloseResult,
    Gateway,
    HandOver,
    Notice,
    Outcome,
    PrepayRequest,
    PrepayResult,
    Product,
    QueryResult,
    RefundRequest,
    RefundResult,
)
from shop.gateways.reading import china_time, our_number
from shop.gateways.replies import bad_answer, looked_up, prepay_refused
from shop.gateways.transport import Transport
from shop.money import yuan_text

MAX_SUBJECT: Final = 256
"""alipay.trade.precreate, `subject`: 256 characters, without `/ = &`."""

MAX_QR_CODE: Final = 1024


class Alipay(Gateway, Cancelling):
    """One application at Alipay. Thread-safe; making one asks nobody.

    Refund notices go to the address given with the payment: the refund call takes none.
    """

    channel = "alipay"
    products: frozenset[Product]

    def __init__(
        self,
        settings: AlipaySettings,
        *,
        connect_timeout_ms: int,
        read_timeout_ms: int,
        clock: Clock,
    ) -> None:
        """Check the keys (raises SettingsError naming what is wrong); connects to nothing."""
        self.products = frozenset(Product(name) for name in settings.products)
        self.account = settings.account
        self._settings = settings
        self._clock = clock
        self._transport = Transport(
            connect_timeout_ms=connect_timeout_ms, read_timeout_ms=read_timeout_ms
        )
        self._wire = build_library(settings, self._transport, clock)

    def prepay(self, request: PrepayRequest) -> PrepayResult:
        """See `Gateway`. alipay.trade.precreate: no trade exists until the QR code is scanned.

        For a page nobody is asked, and the outcome is always SUCCEEDED: see `alipay_pages`. Its
        `sent` is nevertheless True: the member's browser will send it, whenever it likes.
        """
        if request.product not in self.products:
            raise ValueError(f"{request.product} is not a product of this merchant")
        if request.product is not Product.PRECREATE:
            return PrepayResult(outcome=Outcome.SUCCEEDED, ticket=page_ticket(request))
        number = our_number(request.out_trade_no)
        content = {
            "out_trade_no": number,
            "total_amount": yuan_text(request.amount_fen),
            "subject": plain_text(request.subject, MAX_SUBJECT) or number,
            "product_code": self._settings.precreate_product_code,
            "time_expire": china_time(request.expires_at).strftime("%Y-%m-%d %H:%M:%S"),
        }
        reply = ask(
            lambda: self._wire.ask("alipay.trade.precreate", content, notify_url=request.notify_url)
        )
        if reply.fault is not None:
            return prepay_refused(
                outcomes.ALIPAY_PREPAY,
                reply,
                expires_at=request.expires_at,
                now=self._clock.now(),
            )
        return _read_precreate(reply.fields, number)

    def hand_over(self, product: Product, ticket: str, *, return_url: str = "") -> HandOver:
        """See `Gateway`. The address of a page is signed anew each time.

        A payment that was opened can be paid, though the product is not offered any more.
        """
        if product is Product.PRECREATE:
            return HandOver(qr_text=ticket)
        return HandOver(url=page_address(self._wire, product, ticket, return_url))

    def query(self, out_trade_no: str) -> QueryResult:
        """See `Gateway`. alipay.trade.query."""
        return self._query("out_trade_no", our_number(out_trade_no))

    def query_transaction(self, transaction_id: str) -> QueryResult:
        """See `Gateway`. alipay.trade.query by `trade_no`."""
        return self._query("trade_no", our_number(transaction_id))

    def _query(self, asked_by: str, number: str) -> QueryResult:
        reply = ask(lambda: self._wire.ask("alipay.trade.query", {asked_by: number}))
        return read_query(reply, asked_by, number)

    def close(self, out_trade_no: str) -> CloseResult:
        """See `Gateway`. alipay.trade.close. What nobody scanned or opened lives on until its
        deadline."""
        number = our_number(out_trade_no)
        reply = ask(lambda: self._wire.ask("alipay.trade.close", {"out_trade_no": number}))
        if reply.fault is not None:
            return CloseResult(outcome=looked_up(outcomes.ALIPAY_CLOSE, reply), fault=reply.fault)
        if reply.fields.get("out_trade_no", number) != number:
            return CloseResult(outcome=Outcome.UNKNOWN, fault=bad_answer("another payment's"))
        return CloseResult(outcome=Outcome.SUCCEEDED)

    def cancel(self, out_trade_no: str) -> CancelResult:
        """See `Cancelling`. alipay.trade.cancel: **refunds what is paid**."""
        return alipay_refunds.cancel(self._wire, out_trade_no)

    def refund(self, request: RefundRequest) -> RefundResult:
        """See `Gateway`. alipay.trade.refund."""
        return alipay_refunds.refund(self._wire, request)

    def query_refund(self, out_trade_no: str, out_refund_no: str) -> RefundResult:
        """See `Gateway`. alipay.trade.fastpay.refund.query."""
        return alipay_refunds.query_refund(self._wire, out_trade_no, out_refund_no)

    def download_bill(self, day: date, into: BinaryIO) -> BillResult:
        """See `Gateway`. alipay.data.dataservice.bill.downloadurl.query, then the file it names."""
        return alipay_bill.download_bill(
            self._wire,
            self._transport,
            base_url=self._settings.base_url,
            now=self._clock.now(),
            day=day,
            into=into,
        )

    def read_notice(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """See `Gateway`. `body` must be the raw bytes of the request; headers say nothing here."""
        return read_alipay_notice(self._wire, self._settings, body)

    def acknowledge(self) -> Acknowledgement:
        """Exactly the seven bytes `success`; anything else is sent again."""
        return Acknowledgement(status=200, body="success", content_type="text/plain")

    def reject(self, message: str) -> Acknowledgement:
        """Anything but `success` makes Alipay send the notice again.

        With status 200: the rule that the pages give is about the body alone, and what Alipay does
        at other statuses they do not say. The message is not sent: Alipay reads none.
        """
        return Acknowledgement(status=200, body="failure", content_type="text/plain")


def _read_precreate(fields: Mapping[str, Any], number: str) -> PrepayResult:
    qr_code = fields.get("qr_code")
    if not isinstance(qr_code, str) or not 0 < len(qr_code) <= MAX_QR_CODE:
        return PrepayResult(outcome=Outcome.UNKNOWN, fault=bad_answer("no qr_code"))
    if fields.get("out_trade_no") != number:
        return PrepayResult(outcome=Outcome.UNKNOWN, fault=bad_answer("another payment's"))
    return PrepayResult(outcome=Outcome.SUCCEEDED, ticket=qr_code)
