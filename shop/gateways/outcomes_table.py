"""The outcome tables in one piece, to be read by people: `flask --app wsgi gateways outcomes`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from shop.gateways import outcomes

CALLS: Final[Mapping[str, Mapping[str, outcomes.Table]]] = MappingProxyType(
    {
        "wechatpay": {
            "prepay": outcomes.WECHATPAY_PREPAY,
            "query": outcomes.WECHATPAY_QUERY,
            "close": outcomes.WECHATPAY_CLOSE,
            "refund": outcomes.WECHATPAY_REFUND,
            "query_refund": outcomes.WECHATPAY_REFUND_QUERY,
            "download_bill": outcomes.WECHATPAY_BILL,
        },
        "alipay": {
            "prepay": outcomes.ALIPAY_PREPAY,
            "query": outcomes.ALIPAY_QUERY,
            "close": outcomes.ALIPAY_CLOSE,
            "refund": outcomes.ALIPAY_REFUND,
            "query_refund": outcomes.ALIPAY_REFUND_QUERY,
            "cancel": outcomes.ALIPAY_CANCEL,
            "download_bill": outcomes.ALIPAY_BILL,
        },
    }
)
"""Each call's error codes."""

STATES: Final[Mapping[str, Mapping[str, outcomes.Table]]] = MappingProxyType(
    {
        "wechatpay": {
            "trade_state": outcomes.WECHATPAY_TRADE_STATES,
            "refund status": outcomes.WECHATPAY_REFUND_STATES,
        },
        "alipay": {"trade_status": outcomes.ALIPAY_TRADE_STATES},
    }
)
"""What an answer without an error says of a payment or a refund."""

OF_EVERY_CALL: Final[Mapping[str, str]] = MappingProxyType(
    {
        "10003": "Alipay: the buyer is paying (barcode payments only)",
        "20000": "Alipay: the service is away (with isp.unknow-error or aop.unknow-error)",
        "20001": "Alipay: the authorisation token",
        "40001": "Alipay: a parameter is missing (isv.missing-…)",
        "40002": "Alipay: a parameter is wrong (isv.invalid-…)",
        "40003": "Alipay: conditions are not met",
        "40004": "Alipay: a business failure that names no sub_code",
        "40005": "Alipay: asked too often (with isv.app-call-limited or isv.method-call-limited)",
        "40006": "Alipay: no permission (isv.insufficient-…)",
        "timeout": "ours: no whole answer in time",
        "unreachable": "ours: no connection, or it broke",
        "server_error": "ours: HTTP 5xx without a readable code",
        "bad_answer": "ours: an answer that cannot be read, or is about something else",
        "bad_signature": "ours: an answer whose signature does not hold",
        "no_ticket": "ours: opened, it seems, but without anything to pay by",
        "gateway_busy": "ours: not sent, all places are taken",
        "gateway_resting": "ours: not sent, the gateway rests",
    }
)
"""What proves nothing for any call: the outcome is `unknown`."""


def rows(channel: str) -> list[list[str]]:
    """One gateway's table, its head first: a row for each code, a column for each call."""
    calls = CALLS[channel]
    named = list(dict.fromkeys(code for table in calls.values() for code in table))
    told = [
        [code, *(str(table[code]) if code in table else "" for table in calls.values())]
        for code in named
    ]
    return [["code", *calls], *told]


def state_rows(channel: str) -> list[list[str]]:
    """What one gateway's states mean, the head first."""
    told = [
        [name, state, str(outcome)]
        for name, table in STATES[channel].items()
        for state, outcome in table.items()
    ]
    return [["field", "value", "outcome"], *told]
