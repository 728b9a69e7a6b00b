"""Calls of a gateway and their results as JSON."""

import io
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date, datetime
from enum import Enum
from typing import Any

from shop.gateways.base import (
    Cancelling,
    Gateway,
    PrepayRequest,
    Product,
    RefundRequest,
)


def to_json(value: Any) -> Any:
    """A request or a result as JSON has it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: to_json(one) for key, one in value.items()}
    if value is None or isinstance(value, str | int):
        return value
    return to_json(asdict(value))


def invoke(gateway: Gateway, call: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Make a call with arguments from JSON: its result, and what it wrote."""
    if call == "download_bill":
        into = io.BytesIO()
        result = gateway.download_bill(date.fromisoformat(given["day"]), into)
        return {"result": to_json(result), "written": into.getvalue().decode()}
    return {"result": to_json(_invoke(gateway, call, given))}


def _invoke(gateway: Gateway, call: str, given: Mapping[str, Any]) -> object:
    if call == "prepay":
        changes = {
            "expires_at": datetime.fromisoformat(given["expires_at"]),
            "product": Product(given["product"]),
        }
        return gateway.prepay(PrepayRequest(**{**given, **changes}))
    if call == "refund":
        return gateway.refund(RefundRequest(**given))
    if call == "hand_over":
        return gateway.hand_over(
            Product(given["product"]), given["ticket"], return_url=given["return_url"]
        )
    if call == "openid_of":
        assert gateway.payer_login is not None
        return {"openid": gateway.payer_login.openid_of(given["code"])}
    if call == "cancel":
        assert isinstance(gateway, Cancelling)
        return gateway.cancel(given["out_trade_no"])
    if call not in {"query", "query_transaction", "close", "query_refund"}:
        raise ValueError(f"no such call: {call}")
    return getattr(gateway, call)(**given)
