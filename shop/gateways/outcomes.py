"""What each error code means for each call: the one place where a code becomes an outcome.

The rule: a code stands here only if it *proves* something. Every other code, known or not, is
`UNKNOWN`, because money follows from these words: a payment called `FAILED` gives its points and
stock back, a refund called `FAILED` may be asked again under a new number. Where a code is listed
as UNKNOWN, the reason is the interesting part.

Sources: GATEWAYS notes A and B; Alipay's pages of the single methods ("business error codes").
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from shop.gateways.base import Outcome

SUCCEEDED, FAILED = Outcome.SUCCEEDED, Outcome.FAILED
PENDING, UNKNOWN = Outcome.PENDING, Outcome.UNKNOWN

Table = Mapping[str, Outcome]

DEADLINE_MARGIN: Final = timedelta(seconds=60)
"""Gateways also call a payment deadline that has passed a wrong parameter."""


def _table(entries: dict[str, Outcome]) -> Table:
    return MappingProxyType(entries)


# --- WeChat Pay APIv3 -----------------------------------------------------------------------

WECHATPAY_PREPAY: Final = _table(
    {
        # The same request is refused each time, so nothing was opened by an earlier try either.
        # (Only while the deadline lies ahead: see `prepay_refusal`.)
        "PARAM_ERROR": FAILED,
        "APPID_MCHID_NOT_MATCH": FAILED,
        "MCH_NOT_EXISTS": FAILED,
        # Closed at the gateway: this number can no longer be paid.
        "ORDER_CLOSED": FAILED,
        # The number is known there, from an earlier try of ours: it may be payable, or paid.
        "OUT_TRADE_NO_USED": UNKNOWN,
        "INVALID_REQUEST": UNKNOWN,  # also used for "number used with other parameters"
        "ORDERPAID": UNKNOWN,
        "ORDER_PAID": UNKNOWN,
        # True of this try only: keys, permissions and quotas change between two tries.
        "SIGN_ERROR": UNKNOWN,
        "NO_AUTH": UNKNOWN,
        "RULE_LIMIT": UNKNOWN,
        "TRADE_ERROR": UNKNOWN,
        "USER_ACCOUNT_ABNORMAL": UNKNOWN,
        "FREQUENCY_LIMITED": UNKNOWN,
        "SYSTEM_ERROR": UNKNOWN,
        "SERVICE_UNAVAILABLE": UNKNOWN,
    }
)

WECHATPAY_QUERY: Final = _table(
    {
        # Not there (yet): nothing paid so far. The result carries `exists=False`.
        "ORDER_NOT_EXIST": PENDING,
        # Everything else says nothing about the payment.
        "SIGN_ERROR": UNKNOWN,
        "PARAM_ERROR": UNKNOWN,
        "MCH_NOT_EXISTS": UNKNOWN,
        "NO_AUTH": UNKNOWN,
        "FREQUENCY_LIMITED": UNKNOWN,
        "SYSTEM_ERROR": UNKNOWN,
        "SERVICE_UNAVAILABLE": UNKNOWN,
    }
)

WECHATPAY_CLOSE: Final = _table(
    {
        "ORDER_CLOSED": SUCCEEDED,
        # Both spellings are found in the gateway's own pages.
        "ORDERPAID": FAILED,
        "ORDER_PAID": FAILED,
        # No such order: nothing there to be paid now.
        "ORDER_NOT_EXIST": SUCCEEDED,
        "SIGN_ERROR": UNKNOWN,
        "PARAM_ERROR": UNKNOWN,
        "INVALID_REQUEST": UNKNOWN,
        "MCH_NOT_EXISTS": UNKNOWN,
        "NO_AUTH": UNKNOWN,
        "FREQUENCY_LIMITED": UNKNOWN,
        "SYSTEM_ERROR": UNKNOWN,
        "SERVICE_UNAVAILABLE": UNKNOWN,
    }
)

WECHATPAY_REFUND: Final = _table(
    {
        # The same request is refused each time.
        "PARAM_ERROR": FAILED,
        # The payer's account is gone: the gateway will never take this refund.
        "USER_ACCOUNT_ABNORMAL": FAILED,
        # To be asked again under the *same* number: a new one could refund twice.
        "RESOURCE_NOT_EXISTS": UNKNOWN,
        "NOT_ENOUGH": UNKNOWN,  # the merchant's balance: may suffice tomorrow
        "INVALID_REQUEST": UNKNOWN,  # many causes, "too soon after the last" among them
        "RULE_LIMIT": UNKNOWN,
        "TRADE_ERROR": UNKNOWN,
        "MCH_NOT_EXISTS": UNKNOWN,
        "SIGN_ERROR": UNKNOWN,
        "NO_AUTH": UNKNOWN,
        "FREQUENCY_LIMITED": UNKNOWN,
        "SYSTEM_ERROR": UNKNOWN,
        "SERVICE_UNAVAILABLE": UNKNOWN,
    }
)

WECHATPAY_REFUND_QUERY: Final = _table(
    {
        # Not accepted so far: the refund is to be asked again under the same number.
        "RESOURCE_NOT_EXISTS": UNKNOWN,
        "PARAM_ERROR": UNKNOWN,
        "MCH_NOT_EXISTS": UNKNOWN,
        "SIGN_ERROR": UNKNOWN,
        "NO_AUTH": UNKNOWN,
        "FREQUENCY_LIMITED": UNKNOWN,
        "SYSTEM_ERROR": UNKNOWN,
        "SERVICE_UNAVAILABLE": UNKNOWN,
    }
)

WECHATPAY_BILL: Final = _table(
    {
        # There is none, as a rule because nothing was traded. While it may still be made, the
        # caller reads it as PENDING.
        "NO_STATEMENT_EXIST": FAILED,
        "STATEMENT_CREATING": PENDING,
        "PARAM_ERROR": UNKNOWN,
        "INVALID_REQUEST": UNKNOWN,
        "SIGN_ERROR": UNKNOWN,
        "NO_AUTH": UNKNOWN,
        "FREQUENCY_LIMITED": UNKNOWN,
        "SYSTEM_ERROR": UNKNOWN,
        "SERVICE_UNAVAILABLE": UNKNOWN,
    }
)

WECHATPAY_TRADE_STATES: Final = _table(
    {
        "SUCCESS": SUCCEEDED,
        "REFUND": SUCCEEDED,  # it was paid; also the state after a partial refund
        "NOTPAY": PENDING,
        "USERPAYING": PENDING,
        "ACCEPT": PENDING,
        "CLOSED": FAILED,
        "REVOKED": FAILED,
        "PAYERROR": FAILED,
    }
)

WECHATPAY_REFUND_STATES: Final = _table(
    {
        "SUCCESS": SUCCEEDED,
        "PROCESSING": PENDING,
        # Stuck at the payer's bank; an operator must finish it. A new number would refund twice.
        "ABNORMAL": PENDING,
        "CLOSED": FAILED,
    }
)

# --- Alipay ---------------------------------------------------------------------------------
# Only signed answers with code 40004 ("business failed") are looked up. The gateway's other codes
# (20000 and 20001, 40001 to 40006) tell of this try alone, and are UNKNOWN for every call.

ALIPAY_PREPAY: Final = _table(
    {
        # Refused each time, as with WeChat Pay; the same deadline rule.
        "ACQ.INVALID_PARAMETER": FAILED,
        "ACQ.TOTAL_FEE_EXCEED": FAILED,
        "ACQ.EXIST_FORBIDDEN_WORD": FAILED,
        "ACQ.TRADE_HAS_CLOSE": FAILED,
        # An earlier try of ours is known there.
        "ACQ.TRADE_HAS_SUCCESS": UNKNOWN,
        "ACQ.CONTEXT_INCONSISTENT": UNKNOWN,
        # True of this try, or of this payer, only.
        "ACQ.ACCESS_FORBIDDEN": UNKNOWN,
        "ACQ.PARTNER_ERROR": UNKNOWN,
        "ACQ.BEYOND_PAY_RESTRICTION": UNKNOWN,
        "ACQ.BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR": UNKNOWN,
        "ACQ.BUYER_ENABLE_STATUS_FORBID": UNKNOWN,
        "ACQ.BUYER_SELLER_EQUAL": UNKNOWN,
        "ACQ.TRADE_BUYER_NOT_MATCH": UNKNOWN,
        "ACQ.SYSTEM_ERROR": UNKNOWN,
    }
)

ALIPAY_QUERY: Final = _table(
    {
        # A QR code that nobody scanned has no trade: unpaid, and still payable until it expires.
        "ACQ.TRADE_NOT_EXIST": PENDING,
        "ACQ.INVALID_PARAMETER": UNKNOWN,
        "ACQ.SYSTEM_ERROR": UNKNOWN,
    }
)

ALIPAY_CLOSE: Final = _table(
    {
        # Nothing to close. The QR code itself lives on until its deadline: so query, and wait.
        "ACQ.TRADE_NOT_EXIST": SUCCEEDED,
        # Not waiting for the buyer any more: as a rule paid.
        "ACQ.TRADE_STATUS_ERROR": FAILED,
        "ACQ.REASON_TRADE_STATUS_INVALID": FAILED,
        "ACQ.REASON_ILLEGAL_STATUS": FAILED,
        "ACQ.INVALID_PARAMETER": UNKNOWN,
        "ACQ.SYSTEM_ERROR": UNKNOWN,
    }
)

ALIPAY_REFUND: Final = _table(
    {
        "ACQ.INVALID_PARAMETER": FAILED,
        # A refund of another amount stands under this number: a person must look.
        "ACQ.DISCORDANT_REPEAT_REQUEST": UNKNOWN,
        # More than is left of the trade. What is left may be less by an earlier try of ours.
        "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL": UNKNOWN,
        "ACQ.REASON_TRADE_REFUND_FEE_ERR": UNKNOWN,
        "ACQ.REFUND_FEE_ERROR": UNKNOWN,
        # True of the trade from now on, and no word on whether an earlier try was taken: it is
        # wholly refunded, too old, finished, or its contract or coupons allow none.
        "ACQ.TRADE_HAS_CLOSE": UNKNOWN,
        "ACQ.TRADE_HAS_FINISHED": UNKNOWN,
        "ACQ.TRADE_NOT_ALLOW_REFUND": UNKNOWN,
        "ACQ.NOT_ALLOW_PARTIAL_REFUND": UNKNOWN,
        "ACQ.ONLINE_TRADE_VOUCHER_NOT_ALLOW_REFUND": UNKNOWN,
        "ACQ.BUYER_NOT_EXIST": UNKNOWN,
        "ACQ.BUYER_ENABLE_STATUS_FORBID": UNKNOWN,
        # May be otherwise at the next try under the same number.
        "ACQ.SELLER_BALANCE_NOT_ENOUGH": UNKNOWN,
        "ACQ.REASON_TRADE_BEEN_FREEZEN": UNKNOWN,
        "ACQ.TRADE_NOT_EXIST": UNKNOWN,
        "ACQ.TRADE_STATUS_ERROR": UNKNOWN,
        "ACQ.REASON_TRADE_STATUS_INVALID": UNKNOWN,
        "ACQ.REASON_ILLEGAL_STATUS": UNKNOWN,
        "ACQ.SYSTEM_ERROR": UNKNOWN,
    }
)

ALIPAY_REFUND_QUERY: Final = _table(
    {
        "ACQ.TRADE_NOT_EXIST": UNKNOWN,
        "ACQ.INVALID_PARAMETER": UNKNOWN,
        "ACQ.SYSTEM_ERROR": UNKNOWN,
    }
)

ALIPAY_CANCEL: Final = _table(
    {
        # Each says that the trade is past being taken back; a refund is the way then.
        "ACQ.TRADE_HAS_FINISHED": FAILED,
        "ACQ.TRADE_CANCEL_TIME_OUT": FAILED,
        # May be otherwise at the next try, or proves nothing.
        "ACQ.SELLER_BALANCE_NOT_ENOUGH": UNKNOWN,
        "ACQ.REASON_TRADE_BEEN_FREEZEN": UNKNOWN,
        "ACQ.TRADE_NOT_EXIST": UNKNOWN,
        "ACQ.INVALID_PARAMETER": UNKNOWN,
        "ACQ.SYSTEM_ERROR": UNKNOWN,
    }
)

ALIPAY_BILL: Final = _table(
    {
        # There is none. While one may still be made, the caller reads it as PENDING. (Alipay's
        # page spells it the first way; answers have been seen with a prefix, in lower case.)
        "BILL_NOT_EXIST": FAILED,
        "isp.bill_not_exist": FAILED,
        "isv.bill_not_exist": FAILED,
        # Also said of a day that is not over yet.
        "INVAILID_ARGUMENTS": UNKNOWN,
        "UNKNOW_ERROR": UNKNOWN,
    }
)

ALIPAY_TRADE_STATES: Final = _table(
    {
        "TRADE_SUCCESS": SUCCEEDED,
        "TRADE_FINISHED": SUCCEEDED,
        "WAIT_BUYER_PAY": PENDING,
        # Unpaid and timed out; or paid and wholly refunded since, which the caller tells apart by
        # the time of payment.
        "TRADE_CLOSED": FAILED,
    }
)


def outcome_of(table: Table, code: str) -> Outcome:
    """The outcome that a code proves; UNKNOWN for any code that is not in the table."""
    return table.get(code, UNKNOWN)


def prepay_refusal(table: Table, code: str, *, expires_at: datetime, now: datetime) -> Outcome:
    """As `outcome_of`, for a refused prepay.

    A repeated prepay whose deadline has passed is refused for that deadline, as a wrong parameter,
    though the first one was accepted and may even have been paid: then the refusal proves nothing.
    """
    outcome = outcome_of(table, code)
    if outcome is FAILED and code in _ALSO_LATE and expires_at - now < DEADLINE_MARGIN:
        return UNKNOWN
    return outcome


_ALSO_LATE: Final = frozenset({"PARAM_ERROR", "ACQ.INVALID_PARAMETER"})
