"""What a member is told when a gateway did not do as asked: from its code to an error of ours.

The error's docstring is the sentence and its `hint` the advice, on the payment page and in Problem
Details alike:

    words = words_for(result.fault.code, result.outcome)
    raise words(order_code=…, channel=…, fault_code=…)

What a code *proves* stands in shop/gateways/outcomes.py; here is only how it is said.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from shop.errors import GatewayAway, GatewayUnsure, PaymentRefused, ShopError, Superseded
from shop.gateways.base import Outcome
from shop.gateways.guard_retry import TOO_OFTEN
from shop.payments.errors import (
    AccountUnsure,
    AmountRefused,
    GatewayBusy,
    GatewayResting,
    KnownAtGateway,
    LimitUnsure,
    MerchantRefused,
    MerchantUnsure,
    TooOftenAtGateway,
    WordRefused,
)


class Reason(StrEnum):
    """Why a gateway did not do as asked, as far as it concerns a member."""

    AWAY = "away"
    RESTING = "resting"
    BUSY = "busy"
    LIMIT = "limit"
    ACCOUNT = "account"
    WORD = "word"
    MERCHANT = "merchant"
    CLOSED = "closed"
    KNOWN = "known"
    TOO_OFTEN = "too_often"


_CODES: Final[Mapping[Reason, tuple[str, ...]]] = {
    Reason.AWAY: (
        *("timeout", "unreachable", "server_error", "bad_signature", "bad_answer", "no_ticket"),
        *("SYSTEM_ERROR", "SERVICE_UNAVAILABLE", "ACQ.SYSTEM_ERROR"),
        *("10003", "20000", "40004", "isp.unknow-error", "aop.unknow-error"),
        # Nothing that a member could do about it: asked after until the gateway says more.
        *("ORDER_NOT_EXIST", "ACQ.TRADE_NOT_EXIST", "INVALID_REQUEST"),
    ),
    Reason.RESTING: ("gateway_resting",),
    Reason.BUSY: ("gateway_busy",),
    Reason.LIMIT: (
        *("RULE_LIMIT", "TRADE_ERROR", "ACQ.TOTAL_FEE_EXCEED", "ACQ.BEYOND_PAY_RESTRICTION"),
        "ACQ.BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR",
    ),
    Reason.ACCOUNT: (
        *("USER_ACCOUNT_ABNORMAL", "ACQ.BUYER_ENABLE_STATUS_FORBID"),
        *("ACQ.BUYER_SELLER_EQUAL", "ACQ.TRADE_BUYER_NOT_MATCH"),
    ),
    Reason.WORD: ("ACQ.EXIST_FORBIDDEN_WORD",),
    Reason.MERCHANT: (
        *("PARAM_ERROR", "APPID_MCHID_NOT_MATCH", "MCH_NOT_EXISTS", "SIGN_ERROR", "NO_AUTH"),
        *("ACQ.INVALID_PARAMETER", "ACQ.ACCESS_FORBIDDEN", "ACQ.PARTNER_ERROR"),
        *("20001", "40001", "40002", "40003", "40006"),
    ),
    Reason.CLOSED: ("ORDER_CLOSED", "ACQ.TRADE_HAS_CLOSE"),
    Reason.KNOWN: (
        *("OUT_TRADE_NO_USED", "ORDERPAID", "ORDER_PAID", "ACQ.TRADE_HAS_SUCCESS"),
        *("ACQ.CONTEXT_INCONSISTENT", "ACQ.TRADE_STATUS_ERROR"),
        *("ACQ.REASON_TRADE_STATUS_INVALID", "ACQ.REASON_ILLEGAL_STATUS"),
    ),
    Reason.TOO_OFTEN: tuple(sorted(TOO_OFTEN)),
}

REASONS: Final[Mapping[str, Reason]] = MappingProxyType(
    {code: reason for reason, codes in _CODES.items() for code in codes}
)
"""The codes of opening, asking after and closing a payment, by what they mean for a member."""

_REFUSED: Final[Mapping[Reason, type[ShopError]]] = {
    Reason.LIMIT: AmountRefused,
    Reason.WORD: WordRefused,
    Reason.MERCHANT: MerchantRefused,
    # Nobody refuses a number that is new: somebody else went on with the order, and closed it.
    Reason.CLOSED: Superseded,
}

_UNSURE: Final[Mapping[Reason, type[GatewayUnsure]]] = {
    Reason.LIMIT: LimitUnsure,
    Reason.ACCOUNT: AccountUnsure,
    Reason.MERCHANT: MerchantUnsure,
    Reason.CLOSED: KnownAtGateway,
    Reason.KNOWN: KnownAtGateway,
    Reason.TOO_OFTEN: TooOftenAtGateway,
}

_NOT_SENT: Final[Mapping[Reason, type[GatewayAway]]] = {
    Reason.RESTING: GatewayResting,
    Reason.BUSY: GatewayBusy,
}


def words_for(fault_code: str, outcome: Outcome, *, sent: bool = True) -> type[ShopError]:
    """The error that says it, to be raised with `order_code`, `channel` and `fault_code`.

    A `PaymentRefused` where the gateway refused for good, a `GatewayAway` where nothing was `sent`,
    else a `GatewayUnsure`. A code that nobody knows says no more than its outcome does.
    """
    reason = REASONS.get(fault_code)
    if reason is None and fault_code.startswith(("isv.", "aop.")):
        reason = Reason.MERCHANT  # Alipay's detail to 20001 and 40001 to 40006
    if not sent:
        return _NOT_SENT.get(reason, GatewayAway) if reason else GatewayAway
    if outcome is Outcome.FAILED:
        return _REFUSED.get(reason, PaymentRefused) if reason else PaymentRefused
    return _UNSURE.get(reason, GatewayUnsure) if reason else GatewayUnsure
