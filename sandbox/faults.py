"""Calls that fail as ordered: what becomes of them, and what the client sees.

What there is to order is in `fault_orders`; what each gateway says then, in `wechatpay_faults` and
`alipay_faults`.
"""

import contextlib
import select
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from flask import Response, request

from sandbox import (
    alipay_faults,
    clock,
    events,
    fault_orders,
    notices,
    trades,
    wechatpay_faults,
)
from sandbox.core import sandbox
from sandbox.fault_orders import FORGERIES, NONSENSE, PAID_ON_CLOSE, SILENT_REFUND, Fault
from sandbox.keys import Keys
from sandbox.notices import Wish
from sandbox.store import Store
from sandbox.trades import Refusal

# How often a held connection is looked at, so that a client that left frees its thread.
_LOOK_S = 0.05
# Far beyond any answer of either gateway.
HUGE_BYTES = 16 * 1024 * 1024
_HTML = "<!doctype html><title>502</title><h1>502 Bad Gateway</h1>"


class Voice(Protocol):
    """How one gateway speaks: a module for each."""

    CHANNEL: str
    WRONG_SHAPE: dict[str, Any]

    def caller(self) -> Keys | None: ...
    def out_trade_no(self) -> str: ...
    def error(self, kind: str) -> Response: ...
    def signed(self, keys: Keys, content: dict[str, Any]) -> Response: ...
    def content(self, answer: Response) -> dict[str, Any]: ...
    def succeeded(self, answer: Response) -> bool: ...
    def forged(self, keys: Keys, answer: Response, fault: Fault) -> Response: ...


_VOICES: dict[str, Voice] = {
    trades.WECHATPAY: wechatpay_faults,
    trades.ALIPAY: alipay_faults,
}


def around(
    store: Store, channel: str, op: str, call: Callable[[], Response], broken: Response
) -> Response:
    """Make the call, or what an ordered fault makes of it. `broken` answers `http500`."""
    voice = _VOICES[channel]
    keys = voice.caller()
    merchant = keys.identity.merchant if keys else ""
    fault = fault_orders.next_of(store, channel, op, merchant)
    if fault is None:
        return call()
    if fault.kind == "http500":
        return broken
    if fault.kind in {"frequency_limit", "system_error", "unavailable"}:
        return voice.error(fault.kind)
    if fault.kind in {"drop_before_effect", "hang"}:
        if fault.kind == "hang":
            _hold(fault.delay_ms)
        return _dropped()
    if keys is not None and fault.kind == PAID_ON_CLOSE:
        _pay_first(voice, keys)
    with notices.muted() if fault.kind == SILENT_REFUND else contextlib.nullcontext():
        answer = call()
    return _after(voice, keys, fault, answer)


def _after(voice: Voice, keys: Keys | None, fault: Fault, answer: Response) -> Response:
    """The effect has happened: what the client learns of it."""
    if fault.kind == "drop_after_effect":
        return _dropped()
    if fault.kind.endswith("_after_effect"):
        return voice.error(fault.kind.removesuffix("_after_effect"))
    if fault.kind == "slow":
        _hold(fault.delay_ms)
    elif fault.kind in NONSENSE:
        return _nonsense(voice, keys, fault, answer)
    # An error is nothing that could be made worse by its signature.
    elif keys is not None and voice.succeeded(answer):
        if fault.kind in FORGERIES:
            return voice.forged(keys, answer, fault)
        if fault.kind == SILENT_REFUND and "fund_change" in (said := voice.content(answer)):
            return voice.signed(keys, {**said, "fund_change": "N"})
    return answer


def _nonsense(voice: Voice, keys: Keys | None, fault: Fault, answer: Response) -> Response:
    if fault.kind == "html":
        return Response(_HTML, content_type="text/html; charset=utf-8")
    if fault.kind == "half_json":
        body = answer.get_data() or b'{"code":"SUC'
        answer.set_data(body[: max(1, len(body) // 2)])
        if answer.status_code == 204:
            answer.status_code = 200
        return answer
    if keys is None:
        return answer
    if fault.kind == "wrong_shape":
        return voice.signed(keys, voice.WRONG_SHAPE)
    return voice.signed(keys, {**voice.content(answer), "padding": "x" * HUGE_BYTES})


def _pay_first(voice: Voice, keys: Keys) -> None:
    """The member confirms at this very moment, if that is still possible."""
    box, now = sandbox(), clock.now_ms()
    with contextlib.suppress(Refusal), box.store.write() as tx:
        merchant, number = keys.identity.merchant, voice.out_trade_no()
        trade = trades.find(tx, voice.CHANNEL, merchant, number, now)
        if trade is not None:
            trade = trades.scan(tx, trade, now)
            events.member_pays(tx, box.merchants, trade, Wish(), now)
    box.notifier.wake()


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
