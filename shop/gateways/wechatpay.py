"""WeChat Pay (APIv3, Native QR) as a `Gateway`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from config.settings import WeChatPaySettings
from shop.clock import Clock
from shop.gateways import outcomes
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
    MAX_DETAIL,
    BadField,
    china_time,
    cut_utf8,
    fault,
    identifier,
    our_number,
    read_amount,
    rfc3339_utc,
)
from shop.gateways.transport import Transport, TransportFault
from shop.gateways.wechatpay_envelope import EnvelopeRefused
from shop.gateways.wechatpay_notice import read_wechatpay_notice
from shop.gateways.wechatpay_wire import build_library, read_json

MAX_DESCRIPTION_BYTES: Final = 127
"""Native prepay, `description`: 127. Whether of bytes or characters the page does not say; bytes
are safe under either reading."""

MAX_REASON_BYTES: Final = 80
"""Refund, `reason`: 80, counted likewise."""

MAX_CODE_URL: Final = 512


@dataclass(frozen=True, kw_only=True)
class _Reply:
    """One answer: `ok` for a believed 2xx, else `fault`, whose code the tables know or not.

    `conclusive` is False where the code, if any, must not be looked up (5xx, 429, no answer).
    """

    status: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)
    fault: GatewayFault | None = None
    conclusive: bool = False


class WeChatPay(Gateway):
    """One merchant at WeChat Pay, in public-key mode. Thread-safe."""

    channel = "wechatpay"
    products = frozenset({Product.NATIVE})

    def __init__(
        self,
        settings: WeChatPaySettings,
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
        self._library, self._wire = build_library(settings, transport, clock)

    def prepay(self, request: PrepayRequest) -> PrepayResult:
        """See `Gateway`. POST /v3/pay/transactions/native."""
        _require(request.product)
        number = our_number(request.out_trade_no)
        reply = _ask(
            lambda: self._library.pay(
                description=cut_utf8(request.subject, MAX_DESCRIPTION_BYTES) or number,
                out_trade_no=number,
                amount={"total": request.amount_fen, "currency": "CNY"},
                time_expire=china_time(request.expires_at).isoformat(),
                notify_url=request.notify_url,
            )
        )
        if reply.fault is not None:
            outcome = Outcome.UNKNOWN
            if reply.conclusive:
                outcome = outcomes.prepay_refusal(
                    outcomes.WECHATPAY_PREPAY,
                    reply.fault.code,
                    expires_at=request.expires_at,
                    now=self._clock.now(),
                )
            return PrepayResult(outcome=outcome, fault=reply.fault)
        code_url = reply.fields.get("code_url")
        if not isinstance(code_url, str) or not 0 < len(code_url) <= MAX_CODE_URL:
            return PrepayResult(outcome=Outcome.UNKNOWN, fault=_bad_answer("no code_url"))
        return PrepayResult(outcome=Outcome.SUCCEEDED, ticket=code_url)

    def hand_over(self, product: Product, ticket: str, *, return_url: str = "") -> HandOver:
        """See `Gateway`."""
        _require(product)
        return HandOver(qr_text=ticket)

    def query(self, out_trade_no: str) -> QueryResult:
        """See `Gateway`. GET /v3/pay/transactions/out-trade-no/{out_trade_no}."""
        number = our_number(out_trade_no)
        reply = _ask(lambda: self._library.query(out_trade_no=number))
        return self._read_query(reply, "out_trade_no", number)

    def query_transaction(self, transaction_id: str) -> QueryResult:
        """See `Gateway`. GET /v3/pay/transactions/id/{transaction_id}."""
        number = our_number(transaction_id)
        reply = _ask(lambda: self._library.query(transaction_id=number))
        return self._read_query(reply, "transaction_id", number)

    def _read_query(self, reply: _Reply, asked_by: str, number: str) -> QueryResult:
        if reply.fault is not None:
            outcome = _looked_up(outcomes.WECHATPAY_QUERY, reply)
            exists = outcome is not Outcome.PENDING
            return QueryResult(outcome=outcome, exists=exists, fault=reply.fault)
        try:
            return self._read_transaction(reply.fields, asked_by, number)
        except BadField as error:
            return QueryResult(outcome=Outcome.UNKNOWN, fault=_bad_answer(error))

    def close(self, out_trade_no: str) -> CloseResult:
        """See `Gateway`. POST /v3/pay/transactions/out-trade-no/{out_trade_no}/close."""
        number = our_number(out_trade_no)
        reply = _ask(lambda: self._library.close(out_trade_no=number))
        if reply.fault is not None:
            outcome = _looked_up(outcomes.WECHATPAY_CLOSE, reply)
            return CloseResult(outcome=outcome, fault=reply.fault)
        return CloseResult(outcome=Outcome.SUCCEEDED)

    def refund(self, request: RefundRequest) -> RefundResult:
        """See `Gateway`. POST /v3/refund/domestic/refunds; an accepted refund is PENDING."""
        trade, number = our_number(request.out_trade_no), our_number(request.out_refund_no)
        amount = {"refund": request.refund_fen, "total": request.total_fen, "currency": "CNY"}
        reply = _ask(
            lambda: self._library.refund(
                out_refund_no=number,
                out_trade_no=trade,
                amount=amount,
                reason=cut_utf8(request.reason, MAX_REASON_BYTES) or None,
                notify_url=request.notify_url,
            )
        )
        return self._read_refund(
            reply, outcomes.WECHATPAY_REFUND, trade, number, refund_fen=request.refund_fen
        )

    def query_refund(self, out_trade_no: str, out_refund_no: str) -> RefundResult:
        """See `Gateway`. GET /v3/refund/domestic/refunds/{out_refund_no}.

        UNKNOWN with `RESOURCE_NOT_EXISTS`: never accepted; ask again under the same number.
        """
        trade, number = our_number(out_trade_no), our_number(out_refund_no)
        reply = _ask(lambda: self._library.query_refund(out_refund_no=number))
        return self._read_refund(reply, outcomes.WECHATPAY_REFUND_QUERY, trade, number)

    def read_notice(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """See `Gateway`. `body` must be the raw bytes of the request."""
        return read_wechatpay_notice(self._wire, self._settings, headers, body)

    def acknowledge(self) -> Acknowledgement:
        """200, within 5 s of the callback, or it is sent again (APIv3, "支付成功回调通知")."""
        return Acknowledgement(
            status=200, body='{"code":"SUCCESS"}', content_type="application/json"
        )

    def reject(self, message: str) -> Acknowledgement:
        """500 with code FAIL: the notice comes again, from 15 s later on."""
        text = cut_utf8(message, MAX_DETAIL)
        return Acknowledgement(
            status=500,
            body=json.dumps({"code": "FAIL", "message": text}),
            content_type="application/json",
        )

    def _read_transaction(
        self, fields: Mapping[str, Any], asked_by: str, number: str
    ) -> QueryResult:
        if fields.get("mchid") != self._settings.mchid:
            raise BadField("the answer is about another merchant")
        if fields.get("appid") != self._settings.appid:
            raise BadField("the answer is about another application")
        if fields.get(asked_by) != number:
            raise BadField("the answer is about another payment")
        trade = identifier(fields, "out_trade_no")
        state = identifier(fields, "trade_state")
        if state not in outcomes.WECHATPAY_TRADE_STATES:
            raise BadField(f"trade_state {state!r} is not known")
        outcome = outcomes.WECHATPAY_TRADE_STATES[state]
        if outcome is not Outcome.SUCCEEDED:
            return QueryResult(outcome=outcome, out_trade_no=trade, trade_state=state)
        amount_fen, currency = read_amount(fields, "total")
        if currency != "CNY":
            raise BadField("the amount is not in CNY")
        return QueryResult(
            outcome=outcome,
            out_trade_no=trade,
            trade_state=state,
            transaction_id=identifier(fields, "transaction_id"),
            amount_fen=amount_fen,
            paid_at=rfc3339_utc(fields.get("success_time")),
        )

    def _read_refund(
        self,
        reply: _Reply,
        table: outcomes.Table,
        trade: str,
        number: str,
        *,
        refund_fen: int | None = None,
    ) -> RefundResult:
        if reply.fault is not None:
            return RefundResult(outcome=_looked_up(table, reply), fault=reply.fault)
        fields = reply.fields
        try:
            if fields.get("out_refund_no") != number or fields.get("out_trade_no") != trade:
                raise BadField("the answer is about another refund")
            if (
                refund_fen is not None
                and read_amount(fields, "refund", currency="CNY")[0] != refund_fen
            ):
                raise BadField("the answer is about another amount")
            status, refund_id = identifier(fields, "status"), identifier(fields, "refund_id")
            if status not in outcomes.WECHATPAY_REFUND_STATES:
                raise BadField(f"status {status!r} is not known")
        except BadField as error:
            return RefundResult(outcome=Outcome.UNKNOWN, fault=_bad_answer(error))
        outcome = outcomes.WECHATPAY_REFUND_STATES[status]
        stuck = status in {"ABNORMAL", "CLOSED"}
        return RefundResult(
            outcome=outcome,
            refund_id=refund_id,
            status=status,
            fault=fault(status, "see the merchant portal") if stuck else None,
        )


def _require(product: Product) -> None:
    if product not in WeChatPay.products:
        raise ValueError(f"{product} is not a product of this merchant")


def _ask(call: Callable[[], tuple[int, bytes]]) -> _Reply:
    """Make one call. What the gateway or the network did never raises."""
    try:
        status, body = call()
        if status == 204:
            return _Reply(status=status)
        if status == 200:
            return _Reply(status=status, fields=read_json(body))
        return _refusal(status, body)
    except EnvelopeRefused as error:
        return _Reply(fault=fault("bad_signature", error))
    except TransportFault as error:
        return _Reply(fault=fault(error.code, error.detail))


def _refusal(status: int, body: bytes) -> _Reply:
    """An answer other than 200 or 204. It is unsigned by rule, so TLS alone vouches for it."""
    try:
        fields = read_json(body)
        told = fault(identifier(fields, "code"), fields.get("message", ""))
    except (TransportFault, BadField):
        code = "server_error" if status >= 500 else "bad_answer"
        return _Reply(status=status, fault=fault(code, f"HTTP {status} without an error code"))
    return _Reply(status=status, fault=told, conclusive=400 <= status < 500 and status != 429)


def _looked_up(table: outcomes.Table, reply: _Reply) -> Outcome:
    if reply.fault is None or not reply.conclusive:
        return Outcome.UNKNOWN
    return outcomes.outcome_of(table, reply.fault.code)


def _bad_answer(detail: object) -> GatewayFault:
    return fault("bad_answer", detail)
