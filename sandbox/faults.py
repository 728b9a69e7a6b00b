"""Faults on order: the next n calls of one kind fail in a chosen way.

What a client cannot tell apart, it must treat alike: after `drop_after_effect` and
`drop_before_effect` it has seen the same thing, a closed connection.
"""

import select
import socket
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Response, request

from sandbox.store import Store
from sandbox.trades import CHANNELS

OPS = ("prepay", "query", "close", "refund", "refund_query")
KINDS = ("http500", "drop_before_effect", "drop_after_effect", "hang", "slow")
MAX_TIMES = 1_000
MAX_DELAY_MS = 120_000
MAX_ORDERS = 100
DEFAULT_HANG_MS = 60_000
DEFAULT_SLOW_MS = 2_000
# How often a held connection is looked at, so that a client that left frees its thread.
_LOOK_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One order: `times` calls of `op` on `channel` fail as `kind`."""

    channel: str
    op: str
    kind: str
    times: int
    delay_ms: int


class BadOrder(ValueError):
    """What was ordered for a test makes no sense."""


def fault_of(body: object) -> Fault:
    """Read {"channel", "op", "kind", "times", "delay_ms"}. Raises BadOrder."""
    if not isinstance(body, dict):
        raise BadOrder("a JSON object is needed")
    for name, allowed in (("channel", CHANNELS), ("op", OPS), ("kind", KINDS)):
        if body.get(name) not in allowed:
            raise BadOrder(f"{name} must be one of {', '.join(allowed)}")
    default = {"hang": DEFAULT_HANG_MS, "slow": DEFAULT_SLOW_MS}.get(body["kind"], 0)
    return Fault(
        channel=body["channel"],
        op=body["op"],
        kind=body["kind"],
        times=_whole(body, "times", 1, 1, MAX_TIMES),
        delay_ms=_whole(body, "delay_ms", default, 0, MAX_DELAY_MS),
    )


def _whole(body: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadOrder(f"{name} must be a whole number from {low} to {high}")
    return value


def order(tx: sqlite3.Connection, fault: Fault) -> None:
    """Queue it behind those ordered before. Raises BadOrder when too many wait."""
    if tx.execute("SELECT count(*) FROM faults").fetchone()[0] >= MAX_ORDERS:
        raise BadOrder(f"at most {MAX_ORDERS} orders may wait")
    tx.execute(
        "INSERT INTO faults (channel, op, kind, times_left, delay_ms) VALUES (?, ?, ?, ?, ?)",
        (fault.channel, fault.op, fault.kind, fault.times, fault.delay_ms),
    )


def waiting(tx: sqlite3.Connection) -> list[Fault]:
    """What is still to come, in order."""
    rows = tx.execute(
        "SELECT channel, op, kind, times_left AS times, delay_ms FROM faults ORDER BY id"
    )
    return [Fault(**dict(row)) for row in rows]


def take(store: Store, channel: str, op: str) -> Fault | None:
    """Use up one turn of the oldest order for this call, if there is one."""
    with store.read() as tx:
        if tx.execute("SELECT 1 FROM faults LIMIT 1").fetchone() is None:
            return None
    with store.write() as tx:
        row = tx.execute(
            "UPDATE faults SET times_left = times_left - 1 WHERE id = (SELECT min(id) FROM faults"
            " WHERE channel = ? AND op = ?)"
            " RETURNING channel, op, kind, times_left AS times, delay_ms",
            (channel, op),
        ).fetchone()
        tx.execute("DELETE FROM faults WHERE times_left <= 0")
    return None if row is None else Fault(**dict(row))


def around(
    store: Store, channel: str, op: str, call: Callable[[], Response], broken: Response
) -> Response:
    """Make the call, or what an ordered fault makes of it. `broken` answers `http500`."""
    fault = take(store, channel, op)
    if fault is None:
        return call()
    if fault.kind == "http500":
        return broken
    if fault.kind == "drop_before_effect":
        return _dropped()
    if fault.kind == "hang":
        _hold(fault.delay_ms)
        return _dropped()
    answer = call()
    if fault.kind == "slow":
        _hold(fault.delay_ms)
        return answer
    return _dropped()


def _client() -> socket.socket:
    """The connection of this request; both servers hand it on in the WSGI environment."""
    for name in ("gunicorn.socket", "werkzeug.socket"):
        found = request.environ.get(name)
        if found is not None:
            link: socket.socket = found
            return link
    raise RuntimeError("Faults need a real server: there is no connection to drop.")


def _dropped() -> Response:
    """Close the connection without an answer; what is returned then goes nowhere."""
    _client().shutdown(socket.SHUT_RDWR)
    return Response(status=500)


def _hold(delay_ms: int) -> None:
    """Wait so long, or until the client has gone."""
    link = _client()
    poll = select.poll()
    poll.register(link, select.POLLIN)
    deadline = time.monotonic() + delay_ms / 1_000
    while (left := deadline - time.monotonic()) > 0:
        if not poll.poll(min(left, _LOOK_S) * 1_000):
            continue
        try:
            gone = link.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            gone = True
        if gone:
            return
        time.sleep(min(left, _LOOK_S))
