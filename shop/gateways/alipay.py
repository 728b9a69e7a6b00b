"""Alipay (OpenAPI, RSA2, precreate QR) as a `Gateway`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from alipay.exceptions import AliPayException, AliPayValidationError

from config.settings import AlipaySettings
from shop.clock import Clock
from shop.gateways import outcomes
from shop.gateways.alipay_notice import read_alipay_notice
from shop.gateways.alipay_wire import build_library
from shop.gateways.base import (
    Acknowledgement,
    CloseResult,
    Gateway,
    GatewayFault,
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
from shop.gateways.reading import (
    BadField,
    alipay_utc,
    china_time,
    fault,
    identifier,
    our_number,
    yuan_amount,
)
from shop.gateways.transport import Transport, TransportFault
from shop.money import yuan_text

MAX_SUBJECT: Final = 256
"""alipay.trade.precreate, `subject`: 256 characters, without `/ = &`."""

MAX_REASON: Final = 256
"""alipay.trade.refund, `refund_reason`."""

MAX_QR_CODE: Final = 1024

# The first three are forbidden by Alipay; braces would mislead clients that look for the end of an
# answer by counting them. Their full-width forms read the same to a person.
_FULL_WIDTH: Final = str.maketrans("/=&{}", "／＝＆｛｝")


@dataclass(frozen=True, kw_only=True)
class _Reply:
    """One answer: `fields` of a believed success, or `fault`.

    `conclusive` only for signed business failures (code 40004): only those are looked up.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    fault: GatewayFault | None = None
    conclusive: bool = False


class Alipay(Gateway):
    """One application at Alipay, in public-key mode. Thread-safe.

    Refund notices go to the address given with the payment: the refund call takes none.
    """

    channel = "alipay"
    products = frozenset({Product.PRECREATE})

    def __init__(
        self,
        settings: AlipaySettings,
        *,
        connect_timeout_ms: int,
        read_timeout_ms: int,
        clock: Clock,
    ) -> None:
        """Check the keys (raises SettingsError naming what is wrong); connects to nothing."""
        self._settings = settings
        self._clock = clock
        transport = Transport(
            connect_timeout_ms=connect_timeout_ms, read_timeout_ms=read_timeout_ms
        )
        self._library = build_library(settings, transport, clock)

    def prepay(self, request: PrepayRequest) -> PrepayResult:
        """See `Gateway`. alipay.trade.precreate: no trade exists until the QR code is scanned."""
        _require(request.product)
        number = our_number(request.out_trade_no)
        expires_at = china_time(request.expires_at)
        reply = _ask(
            lambda: self._library.api_alipay_trade_precreate(
                subject=plain_text(request.subject, MAX_SUBJECT) or number,
                out_trade_no=number,
                total_amount=yuan_text(request.amount_fen),
                notify_url=request.notify_url,
                product_code="QR_CODE_OFFLINE",
                time_expire=expires_at.strftime("%Y-%m-%d %H:%M:%S"),
            )
        )
        if reply.fault is not None:
            outcome = Outcome.UNKNOWN
            if reply.conclusive:
                outcome = outcomes.prepay_refusal(
                    outcomes.ALIPAY_PREPAY,
                    reply.fault.code,
                    expires_at=request.expires_at,
                    now=self._clock.now(),
                )
            return PrepayResult(outcome=outcome, fault=reply.fault)
        qr_code = reply.fields.get("qr_code")
        if not isinstance(qr_code, str) or not 0 < len(qr_code) <= MAX_QR_CODE:
            return PrepayResult(outcome=Outcome.UNKNOWN, fault=_bad_answer("no qr_code"))
        if reply.fields.get("out_trade_no") != number:
            return PrepayResult(outcome=Outcome.UNKNOWN, fault=_bad_answer("another payment's"))
        return PrepayResult(outcome=Outcome.SUCCEEDED, ticket=qr_code)

    def hand_over(self, product: Product, ticket: str, *, return_url: str = "") -> HandOver:
        """See `Gateway`."""
        _require(product)
        return HandOver(qr_text=ticket)

    def query(self, out_trade_no: str) -> QueryResult:
        """See `Gateway`. alipay.trade.query."""
        number = our_number(out_trade_no)
        reply = _ask(lambda: self._library.api_alipay_trade_query(out_trade_no=number))
        return _read_query(reply, "out_trade_no", number)

    def query_transaction(self, transaction_id: str) -> QueryResult:
        """See `Gateway`. alipay.trade.query by `trade_no`."""
        number = our_number(transaction_id)
        reply = _ask(lambda: self._library.api_alipay_trade_query(trade_no=number))
        return _read_query(reply, "trade_no", number)

    def close(self, out_trade_no: str) -> CloseResult:
        """See `Gateway`. alipay.trade.close. An unscanned QR code lives on until its deadline."""
        number = our_number(out_trade_no)
        reply = _ask(lambda: self._library.api_alipay_trade_close(out_trade_no=number))
        if reply.fault is not None:
            return CloseResult(outcome=_looked_up(outcomes.ALIPAY_CLOSE, reply), fault=reply.fault)
        if reply.fields.get("out_trade_no", number) != number:
            return CloseResult(outcome=Outcome.UNKNOWN, fault=_bad_answer("another payment's"))
        return CloseResult(outcome=Outcome.SUCCEEDED)

    def refund(self, request: RefundRequest) -> RefundResult:
        """See `Gateway`. alipay.trade.refund: done only if the answer says `fund_change=Y`.

        Without it the refund may be done already (a repeated call) or not at all: UNKNOWN with
        our fault code `no_fund_change`; ask `query_refund`, ten seconds later.
        """
        trade, number = our_number(request.out_trade_no), our_number(request.out_refund_no)
        reply = _ask(
            lambda: self._library.api_alipay_trade_refund(
                refund_amount=yuan_text(request.refund_fen),
                out_trade_no=trade,
                out_request_no=number,
                refund_reason=plain_text(request.reason, MAX_REASON),
            )
        )
        if reply.fault is not None:
            return RefundResult(
                outcome=_looked_up(outcomes.ALIPAY_REFUND, reply), fault=reply.fault
            )
        if reply.fields.get("out_trade_no") != trade:
            return RefundResult(outcome=Outcome.UNKNOWN, fault=_bad_answer("another payment's"))
        if reply.fields.get("fund_change") != "Y":
            return RefundResult(outcome=Outcome.UNKNOWN, fault=fault("no_fund_change"))
        return RefundResult(outcome=Outcome.SUCCEEDED, refund_id=number, status="fund_change=Y")

    def query_refund(self, out_trade_no: str, out_refund_no: str) -> RefundResult:
        """See `Gateway`. alipay.trade.fastpay.refund.query.

        An answer without `refund_status` means not received, failed, or not yet: UNKNOWN with our
        fault code `no_refund_status`; ask for the refund again under the same number.
        """
        trade, number = our_number(out_trade_no), our_number(out_refund_no)
        reply = _ask(
            lambda: self._library.api_alipay_trade_fastpay_refund_query(
                out_request_no=number, out_trade_no=trade
            )
        )
        if reply.fault is not None:
            outcome = _looked_up(outcomes.ALIPAY_REFUND_QUERY, reply)
            return RefundResult(outcome=outcome, fault=reply.fault)
        status = reply.fields.get("refund_status")
        if not status:
            return RefundResult(outcome=Outcome.UNKNOWN, fault=fault("no_refund_status"))
        if status != "REFUND_SUCCESS":
            return RefundResult(outcome=Outcome.UNKNOWN, fault=_bad_answer("refund_status"))
        told = (reply.fields.get("out_trade_no"), reply.fields.get("out_request_no"))
        if told != (trade, number):
            return RefundResult(outcome=Outcome.UNKNOWN, fault=_bad_answer("another refund's"))
        return RefundResult(outcome=Outcome.SUCCEEDED, refund_id=number, status=status)

    def read_notice(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """See `Gateway`. `body` must be the raw bytes of the request; headers say nothing here."""
        return read_alipay_notice(self._library, self._settings, body)

    def acknowledge(self) -> Acknowledgement:
        """Exactly the seven bytes `success`; anything else is sent again."""
        return Acknowledgement(status=200, body="success", content_type="text/plain")

    def reject(self, message: str) -> Acknowledgement:
        """Anything but `success` makes Alipay send the notice again.

        With status 200: the rule that the pages give is about the body alone, and what Alipay does
        at other statuses they do not say. The message is not sent: Alipay reads none.
        """
        return Acknowledgement(status=200, body="failure", content_type="text/plain")


def plain_text(text: str, limit: int) -> str:
    """A text that Alipay takes: no control characters, none of `/ = & { }`, at most `limit`."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text.translate(_FULL_WIDTH))
    return plain.strip()[:limit].strip()


def _require(product: Product) -> None:
    if product not in Alipay.products:
        raise ValueError(f"{product} is not a product of this merchant")


def _ask(call: Callable[[], object]) -> _Reply:
    """Make one call. What the gateway or the network did never raises."""
    try:
        fields = call()
    except TransportFault as error:
        return _Reply(fault=fault(error.code, error.detail))
    except AliPayValidationError:
        return _Reply(fault=fault("bad_signature", "the answer's signature does not hold"))
    except AliPayException as error:
        # Gateway-level errors may come unsigned; then they are a hint for the log and no more.
        return _Reply(fault=fault("bad_signature", f"unsigned answer: {error}"))
    except Exception as error:  # noqa: BLE001  # the library's parsing raises what it likes
        return _Reply(fault=fault("bad_answer", f"{type(error).__name__}: {error}"))
    if not isinstance(fields, dict):
        return _Reply(fault=_bad_answer("not a JSON object"))
    code = fields.get("code")
    if code == "10000":
        return _Reply(fields=fields)
    try:
        told = fault(
            identifier(fields, "sub_code" if fields.get("sub_code") else "code"),
            f"{code}: {fields.get('sub_msg') or fields.get('msg') or ''}",
        )
    except BadField as error:
        return _Reply(fault=_bad_answer(error))
    return _Reply(fault=told, conclusive=code == "40004")


def _looked_up(table: outcomes.Table, reply: _Reply) -> Outcome:
    if reply.fault is None or not reply.conclusive:
        return Outcome.UNKNOWN
    return outcomes.outcome_of(table, reply.fault.code)


def _read_query(reply: _Reply, asked_by: str, number: str) -> QueryResult:
    if reply.fault is not None:
        outcome = _looked_up(outcomes.ALIPAY_QUERY, reply)
        exists = outcome is not Outcome.PENDING
        return QueryResult(outcome=outcome, exists=exists, fault=reply.fault)
    try:
        return _read_trade(reply.fields, asked_by, number)
    except (BadField, ValueError) as error:
        return QueryResult(outcome=Outcome.UNKNOWN, fault=_bad_answer(error))


def _read_trade(fields: Mapping[str, Any], asked_by: str, number: str) -> QueryResult:
    """A trade as queried. Raises BadField.

    TRADE_CLOSED is unpaid and timed out, or paid and wholly refunded since. `send_pay_date`, the
    time at which the buyer paid, tells them apart: only a paid trade has it. We take that rather
    than the amounts, which unpaid trades may carry too: goods given for a payment that never was
    would be the worse mistake.
    """
    if fields.get(asked_by) != number:
        raise BadField("the answer is about another payment")
    trade = identifier(fields, "out_trade_no")
    state = identifier(fields, "trade_status")
    if state not in outcomes.ALIPAY_TRADE_STATES:
        raise BadField(f"trade_status {state!r} is not known")
    outcome = outcomes.ALIPAY_TRADE_STATES[state]
    if state == "TRADE_CLOSED" and fields.get("send_pay_date"):
        outcome = Outcome.SUCCEEDED
    if outcome is not Outcome.SUCCEEDED:
        return QueryResult(outcome=outcome, out_trade_no=trade, trade_state=state)
    return QueryResult(
        outcome=outcome,
        out_trade_no=trade,
        trade_state=state,
        transaction_id=identifier(fields, "trade_no"),
        amount_fen=yuan_amount(fields, "total_amount"),
        paid_at=alipay_utc(fields.get("send_pay_date")),
    )


def _bad_answer(detail: object) -> GatewayFault:
    return fault("bad_answer", detail)
