"""Stands before a gateway, so that one that is dead takes nothing else with it.

**Places.** Of one gateway's host at most so many calls run at once in a process, and of all hosts
together no more than leave it threads for everything else. One that hangs keeps its places busy and
no thread more: who finds none free waits while they change hands, but for a moment only, and then
has the answer `gateway_busy`.

**Circuits.** A gateway that failed several times in a row is left alone for a while
(`gateway_resting`). One circuit is the host's: what does not answer, answers to no merchant, and
each need not find out by itself. Another is the account's: too many requests, or answers that are
not to be believed (a wrong key, as a rule), are one merchant's trouble and no other's. A refusal is
an answer: the gateway is well.

**Trying again.** Only what does no harm twice: questions, closing, and a prepay of which nothing
was sent; quickly, a few times, and not after a time-out. Never a refund or a cancellation (its
caller repeats it, with the same number), nor a bill (whose bytes went out already).

A call that was not made has the outcome UNKNOWN like any call without an answer; a prepay says
`sent=False` as well.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import BinaryIO, Final

from shop.gateways.base import (
    BY_BROWSER,
    Acknowledgement,
    BillResult,
    Cancelling,
    CancelResult,
    CloseResult,
    Gateway,
    GatewayFault,
    HandOver,
    Notice,
    Outcome,
    PrepayRequest,
    PrepayResult,
    Product,
    QueryResult,
    RefundRequest,
    RefundResult,
)
from shop.gateways.guard_circuit import Circuit
from shop.gateways.guard_observe import GatewayObserver
from shop.gateways.guard_retry import (
    ACCOUNT_FAULTS,
    HOST_FAULTS,
    R,
    failed_harmlessly,
    fault_code,
    never,
    repeatedly,
    was_not_sent,
)

BUSY, RESTING = "gateway_busy", "gateway_resting"

PATIENCE_S: Final = 0.5
"""So long a call may wait for a place; several times what a gateway takes that is well."""


class Places:
    """How many calls may run at once. Thread-safe."""

    def __init__(self, count: int, *, patience_s: float = PATIENCE_S) -> None:
        self._count = count
        self._patience_s = patience_s
        self._waiting = 0
        # Taken by itself: Condition's own `with` is written in Python, and an exception from a
        # signal's handler between its steps would leave it taken for ever.
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._taken_at: list[float] = []

    def take(self) -> float | None:
        """A place, to be given back with this value; None where there is none.

        Places that change hands are waited for, by no more calls than there are places. Those that
        nobody took anew for `PATIENCE_S` are those of a gateway that hangs, and not waited for.
        """
        with self._lock:
            if not self._has_room():
                left_s = max(self._taken_at) + self._patience_s - time.monotonic()
                if left_s <= 0 or self._waiting >= self._count:
                    return None
                self._waiting += 1
                try:
                    if not self._freed.wait_for(self._has_room, timeout=left_s):
                        return None
                finally:
                    self._waiting -= 1
            taken_at = time.monotonic()
            self._taken_at.append(taken_at)
            return taken_at

    def give_back(self, taken_at: float) -> None:
        """End the call that `take` let in."""
        with self._lock:
            self._taken_at.remove(taken_at)
            self._freed.notify()

    def _has_room(self) -> bool:
        return len(self._taken_at) < self._count


@dataclass(frozen=True)
class Host:
    """One gateway's host: its places in this process, those of all hosts, and its circuit."""

    places: Places
    all_places: Places
    circuit: Circuit

    def take(self) -> tuple[float, float] | None:
        """A place here and among all, to be given back with this value; None where there is none.

        First here: calls to a host that hangs do not stand in the way of the others'.
        """
        here = self.places.take()
        if here is None:
            return None
        everywhere: float | None = None
        try:
            everywhere = self.all_places.take()
        finally:
            if everywhere is None:
                self.places.give_back(here)
        return None if everywhere is None else (here, everywhere)

    def give_back(self, taken: tuple[float, float]) -> None:
        """End the call that `take` let in."""
        here, everywhere = taken
        self.all_places.give_back(everywhere)
        self.places.give_back(here)


class Guard(Gateway):
    """A gateway behind places and circuits. Thread-safe, and for one process: made after a fork."""

    def __init__(
        self, gateway: Gateway, host: Host, account: Circuit, observer: GatewayObserver
    ) -> None:
        self._gateway = gateway
        self._host = host
        self._account = account
        self._observer = observer
        self.channel = gateway.channel
        self.products = gateway.products
        self.account = gateway.account
        self.payer_login = gateway.payer_login

    @property
    def resting(self) -> bool:
        """Whether a call would be turned away now, as its gateway rests."""
        return self._host.circuit.resting or self._account.resting

    def prepay(self, request: PrepayRequest) -> PrepayResult:
        """See `Gateway`."""
        return self._call(
            "prepay",
            lambda: self._gateway.prepay(request),
            lambda fault: PrepayResult(outcome=Outcome.UNKNOWN, fault=fault, sent=False),
            again=was_not_sent,
            tells=request.product not in BY_BROWSER,
        )

    def query(self, out_trade_no: str) -> QueryResult:
        """See `Gateway`."""
        return self._query("query", lambda: self._gateway.query(out_trade_no))

    def query_transaction(self, transaction_id: str) -> QueryResult:
        """See `Gateway`."""
        return self._query(
            "query_transaction", lambda: self._gateway.query_transaction(transaction_id)
        )

    def close(self, out_trade_no: str) -> CloseResult:
        """See `Gateway`."""
        return self._call(
            "close",
            lambda: self._gateway.close(out_trade_no),
            lambda fault: CloseResult(outcome=Outcome.UNKNOWN, fault=fault),
            again=failed_harmlessly,
        )

    def refund(self, request: RefundRequest) -> RefundResult:
        """See `Gateway`."""
        return self._call("refund", lambda: self._gateway.refund(request), _no_refund, again=never)

    def query_refund(self, out_trade_no: str, out_refund_no: str) -> RefundResult:
        """See `Gateway`."""
        return self._call(
            "query_refund",
            lambda: self._gateway.query_refund(out_trade_no, out_refund_no),
            _no_refund,
            again=failed_harmlessly,
        )

    def download_bill(self, day: date, into: BinaryIO) -> BillResult:
        """See `Gateway`. Never repeated: a part may be written."""
        return self._call(
            "download_bill",
            lambda: self._gateway.download_bill(day, into),
            lambda fault: BillResult(outcome=Outcome.UNKNOWN, fault=fault),
            again=never,
        )

    def hand_over(self, product: Product, ticket: str, *, return_url: str = "") -> HandOver:
        """See `Gateway`."""
        return self._gateway.hand_over(product, ticket, return_url=return_url)

    def read_notice(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """See `Gateway`."""
        return self._gateway.read_notice(headers, body)

    def acknowledge(self) -> Acknowledgement:
        """See `Gateway`."""
        return self._gateway.acknowledge()

    def reject(self, message: str) -> Acknowledgement:
        """See `Gateway`."""
        return self._gateway.reject(message)

    def _query(self, call: str, ask: Callable[[], QueryResult]) -> QueryResult:
        return self._call(
            call,
            ask,
            lambda fault: QueryResult(outcome=Outcome.UNKNOWN, fault=fault),
            again=failed_harmlessly,
        )

    def _call(
        self,
        call: str,
        ask: Callable[[], R],
        not_made: Callable[[GatewayFault], R],
        *,
        again: Callable[[R], bool],
        tells: bool = True,
    ) -> R:
        """Make the call if it may be made now; `not_made` gives its result if not.

        `tells`: whether its result says anything of the gateway's health.
        """
        account = self._account.enter()
        if account is None:
            return not_made(self._turned_away(call, RESTING))
        failed_account: bool | None = None
        try:
            host = self._host.circuit.enter()
            if host is None:
                return not_made(self._turned_away(call, RESTING))
            failed_host: bool | None = None
            try:
                place = self._host.take()
                if place is None:
                    return not_made(self._turned_away(call, BUSY))
                try:
                    result = self._timed(call, ask, again)
                finally:
                    self._host.give_back(place)
                if not tells:
                    return result
                code = fault_code(result)
                failed_host = code in HOST_FAULTS
                # A host that does not answer says nothing of the account.
                failed_account = None if failed_host else code in ACCOUNT_FAULTS
                return result
            finally:
                self._host.circuit.leave(host, failed=failed_host)
        finally:
            self._account.leave(account, failed=failed_account)

    def _timed(self, call: str, ask: Callable[[], R], again: Callable[[R], bool]) -> R:
        began_ns = time.monotonic_ns()
        result = repeatedly(ask, again, lambda: self._observer.repeated(self.channel, call))
        took_ns = time.monotonic_ns() - began_ns
        self._observer.answered(self.channel, call, result.outcome.value, took_ns)
        return result

    def _turned_away(self, call: str, why: str) -> GatewayFault:
        self._observer.turned_away(self.channel, call, why)
        return GatewayFault(code=why, detail=f"{call} was not made")


class CancellingGuard(Guard):
    """The same before a gateway that can cancel."""

    def __init__(
        self, gateway: Gateway, host: Host, account: Circuit, observer: GatewayObserver
    ) -> None:
        super().__init__(gateway, host, account, observer)
        if not isinstance(gateway, Cancelling):
            raise TypeError(f"{gateway.channel} cannot cancel")
        self._cancelling: Cancelling = gateway

    def cancel(self, out_trade_no: str) -> CancelResult:
        """See `Cancelling`."""
        return self._call(
            "cancel",
            lambda: self._cancelling.cancel(out_trade_no),
            lambda fault: CancelResult(outcome=Outcome.UNKNOWN, fault=fault),
            again=never,
        )


def is_resting(gateway: Gateway) -> bool:
    """Whether a call would be turned away now. Asks nobody."""
    return isinstance(gateway, Guard) and gateway.resting


def _no_refund(fault: GatewayFault) -> RefundResult:
    return RefundResult(outcome=Outcome.UNKNOWN, fault=fault)
