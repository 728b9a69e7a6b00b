"""`shop.orders.moves.Moves` with one guard taken out, and with a rival who comes in between.

Wired in by `build_parts(moves=…)`; only the tests that show what a guard is for use them. The
interleaving is not left to chance: the rival acts, whole and in a thread of its own, at the very
moment between what the holder read and what it writes.
"""

import threading
from collections.abc import Callable

from flask import Flask, current_app
from sqlalchemy import ColumnElement

from shop.clock import Clock
from shop.db import db
from shop.orders.models import Order
from shop.orders.moves import Claim, Moves
from shop.payments.models import PaymentAttempt


class Rival:
    """Something that another process does, once, when it is let in."""

    def __init__(self) -> None:
        self._act: Callable[[], object] | None = None
        self._errors: list[Exception] = []

    def will(self, act: Callable[[], object]) -> None:
        """What it does the next time."""
        self._act = act

    def come_in(self) -> None:
        """Do it, in a thread with a database session of its own, to the end."""
        act, self._act = self._act, None
        if act is None:
            return
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        thread = threading.Thread(target=self._run, args=(app, act))
        thread.start()
        thread.join()
        if self._errors:
            raise self._errors.pop()

    def _run(self, app: Flask, act: Callable[[], object]) -> None:
        with app.app_context():
            try:
                act()
            except Exception as error:  # noqa: BLE001 - raised again in the test's own thread
                self._errors.append(error)
            finally:
                db.session.remove()


class RacedMoves(Moves):
    """All guards in place; the rival comes between the read and the write of the next move."""

    def __init__(self, clock: Clock, rival: Rival) -> None:
        super().__init__(clock)
        self._rival = rival

    def state_guard(self, row: Order | PaymentAttempt) -> list[ColumnElement[bool]]:
        """L1, made of what was read before the rival came."""
        guard = super().state_guard(row)
        self._rival.come_in()
        return guard


class MovesWithoutStateGuard(RacedMoves):
    """L1 is out."""

    def state_guard(self, row: Order | PaymentAttempt) -> list[ColumnElement[bool]]:
        """Whatever the row's state and version are by now."""
        super().state_guard(row)
        return []


class MovesWithoutFenceGuard(RacedMoves):
    """L2 is out."""

    def fence_guard(self, claim: Claim) -> list[ColumnElement[bool]]:
        """Whoever wrote the order meanwhile."""
        return []


class MovesWithoutEpochs(RacedMoves):
    """L2 as it would be without epochs: it takes fences of two lock services for comparable."""

    def fence_guard(self, claim: Claim) -> list[ColumnElement[bool]]:
        """No higher fence has written the order, whoever granted it."""
        if claim.wrote:
            return [Order.lock_fence == claim.fence]
        return [Order.lock_fence < claim.fence]
