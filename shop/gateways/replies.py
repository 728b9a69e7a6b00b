"""One answer of a gateway, and what becomes of it where it is not a success: alike for both."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shop.gateways import outcomes
from shop.gateways.base import GatewayFault, Outcome, PrepayResult, QueryResult
from shop.gateways.reading import fault
from shop.gateways.transport import TransportFault


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer: the `fields` of a believed success, or `fault`.

    `conclusive` is True only where the fault's code may be looked up: the gateway itself said it
    of this call. `sent` as in `PrepayResult`.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    fault: GatewayFault | None = None
    conclusive: bool = False
    sent: bool = True


def unanswered(error: TransportFault) -> Reply:
    """No readable answer came."""
    return Reply(fault=fault(error.code, error.detail), sent=error.sent)


def bad_answer(detail: object) -> GatewayFault:
    """The answer was believed, but cannot be what was asked for."""
    return fault("bad_answer", detail)


def looked_up(table: outcomes.Table, reply: Reply) -> Outcome:
    """What a reply with a fault proves; UNKNOWN unless it is conclusive and in the table."""
    if reply.fault is None or not reply.conclusive:
        return Outcome.UNKNOWN
    return outcomes.outcome_of(table, reply.fault.code)


def prepay_refused(
    table: outcomes.Table, reply: Reply, *, expires_at: datetime, now: datetime
) -> PrepayResult:
    """The result of a prepay whose reply has a fault."""
    outcome = Outcome.UNKNOWN
    if reply.fault is not None and reply.conclusive:
        outcome = outcomes.prepay_refusal(table, reply.fault.code, expires_at=expires_at, now=now)
    return PrepayResult(outcome=outcome, fault=reply.fault, sent=reply.sent)


def query_refused(table: outcomes.Table, reply: Reply) -> QueryResult:
    """The result of a query whose reply has a fault; a code that means PENDING is "no such"."""
    outcome = looked_up(table, reply)
    return QueryResult(outcome=outcome, exists=outcome is not Outcome.PENDING, fault=reply.fault)
