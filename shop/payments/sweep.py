"""The sweeper: whatever is not final has a due time, and somebody who asks (L6).

It goes through the same doors as everything else: stored notices through the inbox, silent
payments through `resolve`, expired orders through `close_order`. Several may run at once: an item
is taken on by a conditional update of its due time, and a collision would change nothing, as every
move is conditional. An unknown outcome is asked after for ever, ever more seldom.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from shop.db import end_read, transaction
from shop.errors import GatewayUnsure, LockServiceUnavailable, ShopError
from shop.gateways.guard import is_resting
from shop.orders.moves import Claim
from shop.payments import store
from shop.payments.desk import Desk, log
from shop.payments.models import PaymentAttempt
from shop.payments.opening import can_be_opened, open_at_gateway
from shop.payments.resolve import (
    AWAY_CODES,
    EXPIRY_MARGIN_S,
    Resolution,
    is_over,
    look_back,
    resolve,
)
from shop.payments.service import close_order
from statemachine.attempt import OPEN_ATTEMPT_STATES

# WeChat Pay, "best practice of querying": 5 s, 30 s, 1 min, 3 min, 5 min, 10 min, 30 min.
ASK_AGAIN_AFTER_S = (5, 30, 60, 180, 300, 600, 1800)

# A gateway that gave no believable answer is left alone for so long.
AWAY_REST_S = 10

BATCH = 50
"""Items of a kind per round, so that no kind starves the others."""


@dataclass
class Round:
    """What one round of the sweeper did."""

    notices: int = 0
    attempts: int = 0
    orders: int = 0
    errors: int = 0

    @property
    def busy(self) -> bool:
        """Whether there may be more to do at once."""
        return max(self.notices, self.attempts, self.orders) >= BATCH


class Sweeper:
    """Works off what is due. `due_notices` and `work_off` come from the inbox."""

    def __init__(
        self,
        desk: Desk,
        *,
        due_notices: Callable[[int], list[int]],
        work_off: Callable[[int], None],
    ) -> None:
        self._desk = desk
        self._due_notices = due_notices
        self._work_off = work_off
        self._away_since: dict[tuple[str, str], datetime] = {}
        self._resting: set[tuple[str, str]] = set()
        self._closed_up_to = 0

    def run_once(self) -> Round:
        """One round over all that is due now."""
        done = Round()
        for row_id in self._due_notices(BATCH):
            done.notices += self._safely(done, partial(self._work_off, row_id))
        end_read()
        now = self._desk.clock.now()
        for due in store.due_attempts(now, BATCH, but_not=self._away(now)):
            if due.account not in self._away(self._desk.clock.now()) and not self._rests(due):
                done.attempts += self._safely(done, partial(self._look_at, due))
        for code in self._expired():
            done.orders += self._safely(done, partial(self._close, code))
        end_read()
        return done

    def _away(self, now: datetime) -> list[tuple[str, str]]:
        """Accounts (channel, merchant) whose gateway did not answer a moment ago: each question
        would cost the whole time-out again, and everything else would wait for it."""
        rest = timedelta(seconds=AWAY_REST_S)
        silent = {account for account, at in self._away_since.items() if at <= now < at + rest}
        self._resting = {account for account in self._resting if self._guard_rests(*account)}
        return [*silent, *(self._resting - silent)]

    def _rests(self, due: store.DueAttempt) -> bool:
        """Whether the gateway's guard would turn the question away: then it is not even taken on,
        and its turn comes when the rest is over, however often it was asked before."""
        if not self._guard_rests(*due.account):
            return False
        self._resting.add(due.account)
        return True

    def _guard_rests(self, channel: str, merchant: str) -> bool:
        try:
            return is_resting(self._desk.gateways.of(merchant)[channel])
        except Exception:  # noqa: BLE001 - told where the attempt is looked at, and logged there
            return False

    def _expired(self) -> list[str]:
        """The next expired orders, going round: one that cannot be closed holds up no other."""
        end_read()
        found = store.expired_orders(self._desk.clock.now(), BATCH, after_id=self._closed_up_to)
        self._closed_up_to = found[-1][0] if len(found) == BATCH else 0
        return [code for _, code in found]

    def _safely(self, done: Round, work: Callable[[], None]) -> int:
        """One item's trouble is logged and is not the next one's."""
        try:
            work()
        except ShopError as error:
            done.errors += 1
            log.warning(
                "sweep_item_put_off", error=error.code, detail=error.detail, fields=error.fields
            )
            if isinstance(error, LockServiceUnavailable):
                raise
        except Exception:  # noqa: BLE001 - logged, and due again; the other items go on
            done.errors += 1
            log.exception("sweep_item_failed")
        return 1

    def _look_at(self, due: store.DueAttempt) -> None:
        desk = self._desk
        next_look = self._next_look(due)
        if not transaction(lambda: store.put_off(due, next_look)):
            return
        with desk.claim(due.order_code, actor="sweeper", wait_ms=0) as claim:
            end_read()
            fresh = store.fresh_attempt(due.out_trade_no)
            if fresh is None or fresh.due_at is None:
                return
            how = self._ask(claim, fresh)
            if how is Resolution.AWAY:
                self._away_since[due.account] = desk.clock.now()
            log.info(
                "asked_gateway",
                out_trade_no=due.out_trade_no,
                resolution=how.value,
                asked_count=due.asked_count + 1,
            )

    def _ask(self, claim: Claim, attempt: PaymentAttempt) -> Resolution:
        desk = self._desk
        if attempt.state not in OPEN_ATTEMPT_STATES:
            return look_back(desk, claim, attempt)
        order = store.fresh_order(attempt.order_code)
        over = is_over(desk, attempt)
        paying = order is not None and order.state == "paying"
        half_open = attempt.state == "opening"
        how = resolve(
            desk,
            claim,
            attempt,
            # A sibling of the payment that settled the order must not stay payable.
            want_closed=over or not paying,
            order_event="close" if over else "fail",
            cause="expired" if over else "sweep",
        )
        if how is Resolution.OPEN and half_open and can_be_opened(desk, attempt):
            # Its member still waits for the code to pay by: the same number is asked for again.
            try:
                open_at_gateway(desk, claim, attempt, resumed=True)
            except GatewayUnsure as error:
                # Only what tells of the gateway keeps us from its other payments.
                away = error.fields.get("fault_code") in AWAY_CODES
                return Resolution.AWAY if away else Resolution.UNSURE
        return how

    def _next_look(self, attempt: store.DueAttempt) -> datetime:
        """When to ask again if this time brings no end: by the table, but when it expires, and then
        again at least by half the time that it has been overdue."""
        now = self._desk.clock.now()
        step = ASK_AGAIN_AFTER_S[min(attempt.asked_count, len(ASK_AGAIN_AFTER_S) - 1)]
        usual = now + timedelta(seconds=step)
        expiry = attempt.expires_at + timedelta(seconds=EXPIRY_MARGIN_S)
        if expiry > now:
            return min(usual, expiry)
        # What should be over is asked after quickly at first: points and goods are held for it.
        return min(usual, now + max((now - expiry) // 2, timedelta(seconds=5)))

    def _close(self, code: str) -> None:
        with self._desk.claim(code, actor="sweeper", wait_ms=0) as claim:
            close_order(self._desk, claim, code, cause="expired")
