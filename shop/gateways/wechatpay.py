"""WeChat Pay (APIv3: Native, JSAPI, H5) as a `Gateway`."""

import json
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, BinaryIO, Final

from config.settings import WeChatPaySettings
from shop.clock import Clock
from shop.gateways import outcomes
from shop.gateways.base import (
    Acknowledgement,
    BillResult,
    CloseResult,
    Gateway,
    HandOver,
    Notice,
    Outcome,
    PayerLogin,
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
    identifier,
    our_number,
    read_amount,
    rfc3339_utc,
)
from shop.gateways.replies import Reply, bad_answer, looked_up, prepay_refused, query_refused
from shop.gateways.transport import Transport
from shop.gateways.wechat_openid import WeChatLogin
from shop.gateways.wechatpay_answers import ask
from shop.gateways.wechatpay_bill import download_bill
from shop.gateways.wechatpay_notice import read_wechatpay_notice
from shop.gateways.wechatpay_products import hand_over, parameters, ticket_name, ticket_of
from shop.gateways.wechatpay_refunds import read_refund
from shop.gateways.wechatpay_wire import build_library, new_nonce

MAX_DESCRIPTION_BYTES: Final = 127
"""Native prepay, `description`: 127, of characters by the page of 2025; older pages do not say of
what. Bytes are safe under either reading."""

MAX_REASON_BYTES: Final = 80
"""Refund, `reason`: 80, counted likewise."""


class WeChatPay(Gateway):
    """One merchant at WeChat Pay, in public-key or certificate mode, or both. Thread-safe."""

    channel = "wechatpay"

    def __init__(
        self,
        settings: WeChatPaySettings,
        *,
        connect_timeout_ms: int,
        read_timeout_ms: int,
        clock: Clock,
        nonce: Callable[[], str] = new_nonce,
    ) -> None:
        """Check the keys (raises SettingsError naming what is wrong); connects to nothing."""
        self.products = frozenset(Product(name) for name in settings.products)
        self.account = settings.account
        self.payer_login: PayerLogin | None = None
        self._settings = settings
        self._clock = clock
        transport = Transport(
            connect_timeout_ms=connect_timeout_ms, read_timeout_ms=read_timeout_ms
        )
        if Product.JSAPI in self.products:
            self.payer_login = WeChatLogin(settings, transport)
        self._library, self._wire = build_library(settings, transport, clock, nonce)

    def prepay(self, request: PrepayRequest) -> PrepayResult:
        """See `Gateway`. POST /v3/pay/transactions/{native,jsapi,h5}.

        Raises ValueError also for JSAPI without an openid, and H5 without the payer's address.
        """
        self._require(request.product)
        number = our_number(request.out_trade_no)
        given = parameters(request)
        reply = ask(
            lambda: self._library.pay(
                description=cut_utf8(request.subject, MAX_DESCRIPTION_BYTES) or number,
                out_trade_no=number,
                amount={"total": request.amount_fen, "currency": "CNY"},
                time_expire=china_time(request.expires_at).isoformat(),
                notify_url=request.notify_url,
                **given,
            )
        )
        if reply.fault is not None:
            return prepay_refused(
                outcomes.WECHATPAY_PREPAY,
                reply,
                expires_at=request.expires_at,
                now=self._clock.now(),
            )
        name = ticket_name(request.product)
        ticket = ticket_of(request.product, reply.fields.get(name))
        if ticket is None:
            return PrepayResult(outcome=Outcome.UNKNOWN, fault=bad_answer(f"no {name}"))
        return PrepayResult(outcome=Outcome.SUCCEEDED, ticket=ticket)

    def hand_over(self, product: Product, ticket: str, *, return_url: str = "") -> HandOver:
        """See `Gateway`."""
        self._require(product)
        return hand_over(product, ticket, return_url=return_url, bridge_call=self._bridge_call)

    def query(self, out_trade_no: str) -> QueryResult:
        """See `Gateway`. GET /v3/pay/transactions/out-trade-no/{out_trade_no}."""
        number = our_number(out_trade_no)
        reply = ask(lambda: self._library.query(out_trade_no=number))
        return self._read_query(reply, "out_trade_no", number)

    def query_transaction(self, transaction_id: str) -> QueryResult:
        """See `Gateway`. GET /v3/pay/transactions/id/{transaction_id}."""
        number = our_number(transaction_id)
        reply = ask(lambda: self._library.query(transaction_id=number))
        return self._read_query(reply, "transaction_id", number)

    def _read_query(self, reply: Reply, asked_by: str, number: str) -> QueryResult:
        if reply.fault is not None:
            return query_refused(outcomes.WECHATPAY_QUERY, reply)
        try:
            return self._read_transaction(reply.fields, asked_by, number)
        except BadField as error:
            return QueryResult(outcome=Outcome.UNKNOWN, fault=bad_answer(error))

    def close(self, out_trade_no: str) -> CloseResult:
        """See `Gateway`. POST /v3/pay/transactions/out-trade-no/{out_trade_no}/close."""
        number = our_number(out_trade_no)
        reply = ask(lambda: self._library.close(out_trade_no=number))
        if reply.fault is not None:
            outcome = looked_up(outcomes.WECHATPAY_CLOSE, reply)
            return CloseResult(outcome=outcome, fault=reply.fault)
        return CloseResult(outcome=Outcome.SUCCEEDED)

    def refund(self, request: RefundRequest) -> RefundResult:
        """See `Gateway`. POST /v3/refund/domestic/refunds; an accepted refund is PENDING."""
        trade, number = our_number(request.out_trade_no), our_number(request.out_refund_no)
        amount = {"refund": request.refund_fen, "total": request.total_fen, "currency": "CNY"}
        reply = ask(
            lambda: self._library.refund(
                out_refund_no=number,
                out_trade_no=trade,
                amount=amount,
                reason=cut_utf8(request.reason, MAX_REASON_BYTES) or None,
                notify_url=request.notify_url,
            )
        )
        return read_refund(
            reply,
            outcomes.WECHATPAY_REFUND,
            trade=trade,
            number=number,
            refund_fen=request.refund_fen,
        )

    def query_refund(self, out_trade_no: str, out_refund_no: str) -> RefundResult:
        """See `Gateway`. GET /v3/refund/domestic/refunds/{out_refund_no}.

        UNKNOWN with `RESOURCE_NOT_EXISTS`: never accepted; ask again under the same number.
        """
        trade, number = our_number(out_trade_no), our_number(out_refund_no)
        reply = ask(lambda: self._library.query_refund(out_refund_no=number))
        return read_refund(reply, outcomes.WECHATPAY_REFUND_QUERY, trade=trade, number=number)

    def download_bill(self, day: date, into: BinaryIO) -> BillResult:
        """See `Gateway`. GET /v3/bill/tradebill, then the file that it names: CSV in UTF-8."""
        return download_bill(self._library, self._wire, day=day, into=into, now=self._clock.now())

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

    def _bridge_call(self, package: str) -> dict[str, str]:
        """The parameters of `getBrandWCPayRequest`, signed (APIv3, "JSAPI调起支付")."""
        timestamp, nonce = str(int(self._clock.now().timestamp())), self._wire.nonce()
        return {
            "appId": self._settings.appid,
            "timeStamp": timestamp,
            "nonceStr": nonce,
            "package": package,
            "signType": "RSA",
            "paySign": self._library.sign([self._settings.appid, timestamp, nonce, package]),
        }

    def _require(self, product: Product) -> None:
        if product not in self.products:
            raise ValueError(f"{product} is not a product of this merchant")
