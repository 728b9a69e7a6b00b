"""Faults on order: the next so many calls, or notices, of one kind fail in a chosen way.

This is the list of what there is, and the queue of what was ordered; `fault_calls` plays faults of
calls, `notices` and `delivery` those of notices.
"""

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Self

from sandbox import chance
from sandbox.store import Store
from sandbox.trades import ALIPAY, CHANNELS, WECHATPAY

NOTICE = "notice"
CALLS = (
    *("prepay", "query", "close", "cancel", "refund", "refund_query", "bill"),
    "certificates",
)
OPS = (*CALLS, NOTICE)

# What a client cannot tell apart, it must treat alike: after `drop_after_effect` and
# `drop_before_effect` it has seen the same thing, a closed connection.
NO_EFFECT = (
    *("http500", "drop_before_effect", "hang", "frequency_limit", "system_error"),
    "unavailable",
)
LOST = ("drop_after_effect", "slow", "system_error_after_effect", "unavailable_after_effect")
NONSENSE = ("html", "half_json", "wrong_shape", "huge")
# These spoil answers and notices alike.
FORGERIES = ("wrong_signature", "no_signature", "other_serial", "clock_off")
PAID_ON_CLOSE, SILENT_REFUND = "paid_on_close", "silent_refund"
# How an event is told, and how one sending of it is spoiled.
TELLINGS = ("duplicate", "reorder", "delay", "never")
SENDINGS = (*FORGERIES, "altered_body", "signtest")
KINDS = (
    *(*NO_EFFECT, *LOST, *NONSENSE, *FORGERIES, PAID_ON_CLOSE, SILENT_REFUND),
    *(*TELLINGS, "altered_body", "signtest"),
)

MAX_TIMES = 1_000_000
MAX_DELAY_MS = 120_000
MAX_OFFSET_S = 86_400
MAX_REPEATS = 100
MAX_ORDERS = 100
# By kind; 0 for those that wait for nothing. `reorder` waits at most so long for a later notice.
DEFAULT_DELAYS_MS = {"hang": 60_000, "slow": 2_000, "delay": 30_000, "reorder": 30_000}
# Beyond the five minutes that a receiver allows.
DEFAULT_OFFSET_S = -600


class BadOrder(ValueError):
    """What was ordered for a test makes no sense."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One order: `times` calls of `op` on `channel` fail as `kind`.

    `merchant`: only this one's calls; "": anybody's. `probability`: of one call to be hit; the
    others pass and use up no turn. `offset_s`: how far `clock_off` is off. `repeats`: sendings more
    of a `duplicate`. `asked`: how many calls it might have met so far.
    """

    id: int = 0
    channel: str
    op: str
    kind: str
    merchant: str = ""
    times: int = 1
    delay_ms: int = 0
    probability: float = 1.0
    offset_s: int = DEFAULT_OFFSET_S
    repeats: int = 1
    asked: int = 0

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        """From a row."""
        return cls(**dict(row))


_COLUMNS = "id, channel, op, kind, merchant, times, delay_ms, probability, offset_s, repeats, asked"


def kinds_of(op: str) -> tuple[str, ...]:
    """What can befall it."""
    if op == NOTICE:
        return (*TELLINGS, *SENDINGS)
    of_op = {"close": (PAID_ON_CLOSE,), "cancel": (PAID_ON_CLOSE,), "refund": (SILENT_REFUND,)}
    return (*NO_EFFECT, *LOST, *NONSENSE, *FORGERIES, *of_op.get(op, ()))


def fault_of(body: object, merchants: Collection[str]) -> Fault:
    """Read an order. Raises BadOrder, which names what there is."""
    if not isinstance(body, dict):
        raise BadOrder("a JSON object is needed")
    known = set(Fault.__dataclass_fields__) - {"id", "asked"}
    strange = sorted(str(name) for name in body if name not in known)
    if strange:
        raise BadOrder(f"{strange[0]!r} is no field; there are {', '.join(sorted(known))}")
    channel, op = _one(body, "channel", CHANNELS), _one(body, "op", OPS)
    if channel == WECHATPAY and op == "cancel":
        raise BadOrder("op cancel is Alipay's; WeChat Pay has close")
    kind = _one(body, "kind", KINDS)
    if kind not in kinds_of(op):
        raise BadOrder(f"{op} has no kind {kind}; kind must be one of {', '.join(kinds_of(op))}")
    if channel == ALIPAY and (kind == "signtest" or (kind == "clock_off" and op != NOTICE)):
        raise BadOrder(f"{kind} is WeChat Pay's; Alipay has no such thing")
    merchant = body.get("merchant", "")
    if merchant != "" and merchant not in merchants:
        raise BadOrder(f"merchant must be empty or one of {', '.join(merchants)}")
    return Fault(
        channel=channel,
        op=op,
        kind=kind,
        merchant=merchant,
        times=_whole(body, "times", 1, 1, MAX_TIMES),
        delay_ms=_whole(body, "delay_ms", DEFAULT_DELAYS_MS.get(kind, 0), 0, MAX_DELAY_MS),
        probability=_probability(body.get("probability", 1)),
        offset_s=_whole(body, "offset_s", DEFAULT_OFFSET_S, -MAX_OFFSET_S, MAX_OFFSET_S),
        repeats=_whole(body, "repeats", 1, 1, MAX_REPEATS),
    )


def _one(body: dict[str, Any], name: str, allowed: tuple[str, ...]) -> str:
    value = body.get(name)
    if not isinstance(value, str) or value not in allowed:
        raise BadOrder(f"{name} must be one of {', '.join(allowed)}")
    return value


def _whole(body: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadOrder(f"{name} must be a whole number from {low} to {high}")
    return value


def _probability(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        raise BadOrder("probability must be a number above 0, at most 1")
    return float(value)


def order(tx: sqlite3.Connection, fault: Fault) -> None:
    """Queue it behind those ordered before. Raises BadOrder when too many wait."""
    if tx.execute("SELECT count(*) FROM fault_orders").fetchone()[0] >= MAX_ORDERS:
        raise BadOrder(f"at most {MAX_ORDERS} orders may wait")
    tx.execute(
        "INSERT INTO fault_orders (channel, op, kind, merchant, times, delay_ms, probability,"
        " offset_s, repeats) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(fault.channel, fault.op, fault.kind, fault.merchant, fault.times),
            *(fault.delay_ms, fault.probability, fault.offset_s, fault.repeats),
        ),
    )


def waiting(tx: sqlite3.Connection) -> list[Fault]:
    """What is still to come, in order."""
    rows = tx.execute(f"SELECT {_COLUMNS} FROM fault_orders ORDER BY id")  # noqa: S608 - constant
    return [Fault.of(row) for row in rows]


def clear(tx: sqlite3.Connection, fault_id: int | None = None) -> None:
    """Forget one order, or all."""
    tx.execute("DELETE FROM fault_orders WHERE ? IS NULL OR id = ?", (fault_id, fault_id))


def take(
    tx: sqlite3.Connection,
    channel: str,
    op: str,
    merchant: str,
    kinds: Collection[str] = KINDS,
) -> Fault | None:
    """Use up one turn of the oldest order that this call meets, if there is one."""
    for fault in waiting(tx):
        if (fault.channel, fault.op) != (channel, op) or fault.kind not in kinds:
            continue
        if fault.merchant not in {"", merchant}:
            continue
        if fault.probability < 1:
            tx.execute("UPDATE fault_orders SET asked = asked + 1 WHERE id = ?", (fault.id,))
            if not chance.happens(fault.probability, f"{fault.id}.{fault.asked}"):
                continue
        tx.execute("UPDATE fault_orders SET times = times - 1 WHERE id = ?", (fault.id,))
        tx.execute("DELETE FROM fault_orders WHERE times <= 0")
        return fault
    return None


def next_of(
    store: Store, channel: str, op: str, merchant: str, kinds: Collection[str] = KINDS
) -> Fault | None:
    """`take`, in a transaction of its own; none is begun while nothing is ordered."""
    with store.read() as tx:
        if tx.execute("SELECT 1 FROM fault_orders LIMIT 1").fetchone() is None:
            return None
    with store.write() as tx:
        return take(tx, channel, op, merchant, kinds)
