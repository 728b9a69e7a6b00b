"""`flask --app wsgi sweep`: the sweeper as a process."""

import signal
import threading
from types import FrameType

import click
import structlog
from flask.cli import with_appcontext
from sqlalchemy.exc import SQLAlchemyError

from shop.db import db
from shop.errors import LockServiceUnavailable
from shop.metrics import tell
from shop.payments.sweep import Round
from shop.webhooks import inbox
from shop.wiring import Parts, parts

log = structlog.get_logger("payonce.sweeper")

# While the database or the lock service is away, asking more often helps nobody.
PAUSE_WHEN_DOWN_S = 5
# Old refused callbacks are forgotten once in so many rounds.
PRUNE_EVERY_ROUNDS = 3_600


@click.command("sweep")
@click.option("--once", is_flag=True, help="One round over what is due now, then end.")
@with_appcontext
def sweep(once: bool) -> None:
    """Resolve silent payments, apply stored notices, close expired orders."""
    chosen = parts()
    if once:
        done = chosen.sweeper.run_once()
        _count(done)
        click.echo(
            f"notices {done.notices}, attempts {done.attempts}, orders {done.orders}, "
            f"put off {done.errors}"
        )
        return
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    log.info("sweeper_started")
    chosen.tell_at_start()
    try:
        _loop(chosen, stop)
    finally:
        chosen.close()
        log.info("sweeper_stopped")


def _loop(chosen: Parts, stop: threading.Event) -> None:
    rounds = 0
    while not stop.is_set():
        done, pause_s = _round(chosen, prune=rounds % PRUNE_EVERY_ROUNDS == 0)
        rounds += 1
        if not done.busy:
            stop.wait(pause_s)


def _round(chosen: Parts, *, prune: bool) -> tuple[Round, float]:
    """One round, and how long to wait after it. A service that is away ends the round, not us."""
    try:
        if prune:
            inbox.prune_refused(chosen.desk)
        done = chosen.sweeper.run_once()
    except LockServiceUnavailable:
        tell.sweeper_round("lock_unavailable")
        log.error("lock_service_unavailable")
    except SQLAlchemyError:
        tell.sweeper_round("database_unavailable")
        db.session.rollback()
        log.exception("database_unavailable")
    else:
        _count(done)
        return done, chosen.settings.sweep_interval_ms / 1000
    return Round(), PAUSE_WHEN_DOWN_S


def _count(done: Round) -> None:
    items = {"notices": done.notices, "attempts": done.attempts, "orders": done.orders}
    tell.sweeper_round("done", **items, put_off=done.errors)
