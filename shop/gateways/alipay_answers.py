"""Alipay's answers: from one call to a believed success or a fault, whatever was sent back."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from shop.gateways import outcomes
from shop.gateways.alipay_wire import AnswerRefused
from shop.gateways.base import Outcome, QueryResult
from shop.gateways.reading import BadField, alipay_utc, fault, identifier, yuan_amount
from shop.gateways.replies import Reply, bad_answer, query_refused, unanswered
from shop.gateways.transport import TransportFault

# The first three are forbidden by Alipay; braces would mislead clients that look for the end of an
# answer by counting them. Their full-width forms read the same to a person.
_FULL_WIDTH: Final = str.maketrans("/=&{}", "／＝＆｛｝")


def ask(call: Callable[[], Mapping[str, Any]]) -> Reply:
    """Make one call. What the gateway or the network did never raises.

    Conclusive are only signed business failures (code 40004).
    """
    try:
        fields = call()
    except TransportFault as error:
        return unanswered(error)
    except AnswerRefused as error:
        return Reply(fault=fault("bad_signature", error))
    except Exception as error:  # noqa: BLE001  # whatever the bytes made the parsers raise
        return Reply(fault=fault("bad_answer", f"{type(error).__name__}: {error}"))
    code = fields.get("code")
    if code == "10000":
        return Reply(fields=fields)
    try:
        told = fault(
            identifier(fields, "sub_code" if fields.get("sub_code") else "code"),
            f"{code}: {fields.get('sub_msg') or fields.get('msg') or ''}",
        )
    except BadField as error:
        return Reply(fault=bad_answer(error))
    return Reply(fault=told, conclusive=code == "40004")


def plain_text(text: str, limit: int) -> str:
    """A text that Alipay takes: no control characters, none of `/ = & { }`, at most `limit`."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text.translate(_FULL_WIDTH))
    return plain.strip()[:limit].strip()


def read_query(reply: Reply, asked_by: str, number: str) -> QueryResult:
    """The answer of alipay.trade.query, asked with `asked_by` (a field) set to `number`."""
    if reply.fault is not None:
        return query_refused(outcomes.ALIPAY_QUERY, reply)
    try:
        return _read_trade(reply.fields, asked_by, number)
    except (BadField, ValueError) as error:
        return QueryResult(outcome=Outcome.UNKNOWN, fault=bad_answer(error))


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
