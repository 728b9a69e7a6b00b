"""`gunicorn tests.faults.killer_wsgi:app`: the shop that kills itself, with SIGKILL, on order.

The real application, built by wiring; nothing in the shop knows of it. What is counted, each kind
from 1 on and in the order it happens: `before_commit` and `after_commit` of the database, and
`before_prepay`, `after_prepay` and so on round every call of a gateway.

A web process reads its order from the JSON file KILL_FILE: `path` and `at`. It dies when the first
request whose path begins with the one comes to the other. The order is used up when the request is
found, so that the next worker lives. A command (the sweeper) dies where KILL_AT says. In both cases
`record` as the point kills nothing. Every point passed is appended to KILL_LOG.

CLOCK_AHEAD_S makes the shop's clock, not that of the gateways, run so many seconds ahead.
"""

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from flask import Flask
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from config.settings import load_settings
from shop.app import create_app
from shop.clock import SystemClock
from shop.gateways.base import (
    Acknowledgement,
    BillResult,
    CloseResult,
    Gateway,
    HandOver,
    Notice,
    PrepayRequest,
    PrepayResult,
    Product,
    QueryResult,
    RefundRequest,
    RefundResult,
)
from shop.wiring import build_parts

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

RECORD = "record"


class Fate:
    """What is to happen to the work of one thread (a request) or of the process (a command)."""

    def __init__(self, at: str, log: Path) -> None:
        self._at = at
        self._log = log
        self._passed: Counter[str] = Counter()

    def pass_point(self, kind: str) -> None:
        """Note that this point is reached; die if it is the one."""
        self._passed[kind] += 1
        point = f"{kind}:{self._passed[kind]}"
        with self._log.open("a") as log:
            log.write(f"{point}\n")
        if point == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


class _Current(threading.local):
    fate: Fate | None = None


_current = _Current()
_of_the_process: list[Fate] = []


def pass_point(kind: str) -> None:
    """Called at every point; without an order it does nothing."""
    fate = _of_the_process[0] if _of_the_process else _current.fate
    if fate is not None:
        fate.pass_point(kind)


class MortalGateway(Gateway):
    """The real gateway, with a point before and after each call of it."""

    def __init__(self, real: Gateway) -> None:
        self._real = real
        self.channel = real.channel
        self.products = real.products
        self.account = real.account

    def prepay(self, request: PrepayRequest) -> PrepayResult:
        """See Gateway."""
        pass_point("before_prepay")
        answer = self._real.prepay(request)
        pass_point("after_prepay")
        return answer

    def query(self, out_trade_no: str) -> QueryResult:
        """See Gateway."""
        pass_point("before_query")
        answer = self._real.query(out_trade_no)
        pass_point("after_query")
        return answer

    def query_transaction(self, transaction_id: str) -> QueryResult:
        """See Gateway; the shop does not ask so by itself."""
        return self._real.query_transaction(transaction_id)

    def hand_over(self, product: Product, ticket: str, *, return_url: str = "") -> HandOver:
        """See Gateway; not a call of the gateway."""
        return self._real.hand_over(product, ticket, return_url=return_url)

    def close(self, out_trade_no: str) -> CloseResult:
        """See Gateway."""
        pass_point("before_close")
        answer = self._real.close(out_trade_no)
        pass_point("after_close")
        return answer

    def refund(self, request: RefundRequest) -> RefundResult:
        """See Gateway."""
        pass_point("before_refund")
        answer = self._real.refund(request)
        pass_point("after_refund")
        return answer

    def query_refund(self, out_trade_no: str, out_refund_no: str) -> RefundResult:
        """See Gateway."""
        pass_point("before_query_refund")
        answer = self._real.query_refund(out_trade_no, out_refund_no)
        pass_point("after_query_refund")
        return answer

    def download_bill(self, day: date, into: BinaryIO) -> BillResult:
        """See Gateway; the shop does not ask for it by itself."""
        return self._real.download_bill(day, into)

    def read_notice(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """See Gateway; not a call of the gateway."""
        return self._real.read_notice(headers, body)

    def acknowledge(self) -> Acknowledgement:
        """See Gateway."""
        return self._real.acknowledge()

    def reject(self, message: str) -> Acknowledgement:
        """See Gateway."""
        return self._real.reject(message)


class Executioner:
    """WSGI middleware: gives the one request that the order is for its fate."""

    def __init__(self, app: "WSGIApplication", order: Path, log: Path) -> None:
        self._app = app
        self._order = order
        self._log = log

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        """Take the order if it is for this path, and hand the request on."""
        _current.fate = self._fate_of(str(environ.get("PATH_INFO", "")))
        return self._app(environ, start_response)

    def _fate_of(self, path: str) -> Fate | None:
        try:
            order = json.loads(self._order.read_text())
            if not path.startswith(order["path"]):
                return None
            self._order.unlink()
        except FileNotFoundError:
            return None
        return Fate(order["at"], self._log)


class AheadClock(SystemClock):
    """The machine's clock, so many seconds early."""

    def __init__(self, seconds: int) -> None:
        self._ahead = timedelta(seconds=seconds)

    def now(self) -> datetime:
        """The present moment as this clock believes it to be."""
        return super().now() + self._ahead


def _listen() -> None:
    """Count every commit of a transaction (a savepoint's release is none)."""
    committed = threading.local()

    @event.listens_for(Engine, "commit")
    def before(_connection: object) -> None:
        committed.now = True
        pass_point("before_commit")

    @event.listens_for(Session, "after_commit")
    def after(_session: object) -> None:
        if getattr(committed, "now", False):
            committed.now = False
            pass_point("after_commit")


def _make_app() -> Flask:
    settings = load_settings()
    usual = build_parts(settings)
    usual.close()
    app = create_app(
        parts=build_parts(
            settings,
            clock=AheadClock(int(os.environ.get("CLOCK_AHEAD_S", "0"))),
            gateways={channel: MortalGateway(real) for channel, real in usual.gateways.items()},
        )
    )
    log = Path(os.environ["KILL_LOG"])
    _listen()
    if "KILL_AT" in os.environ:
        _of_the_process.append(Fate(os.environ["KILL_AT"], log))
    else:
        order = Path(os.environ["KILL_FILE"])
        app.wsgi_app = Executioner(app.wsgi_app, order, log)  # type: ignore[method-assign]
    return app


def __getattr__(name: str) -> Flask:
    """Make `app` when gunicorn or flask asks for it, and not when a test imports AheadClock."""
    if name == "app":
        app = _make_app()
        globals()["app"] = app
        return app
    raise AttributeError(name)
