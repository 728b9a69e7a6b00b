"""`flask --app wsgi locks …`: what an operator may look at and do about the orders' leases.

Exit status: 0 done, 1 it could not be done or there was nothing to do it to, 2 a wrong argument.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import click
import structlog
from flask.cli import with_appcontext
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from locks import HeldKey, LockUnavailable
from shop.db import IDLE_IN_TRANSACTION_S, ROW_WAIT_S, db, end_read
from shop.errors import PaymentInProgress, ShopError
from shop.locking.service import adopt as adopt_service
from shop.payments import store
from shop.wiring import parts

log = structlog.get_logger("payonce.locking")

SHOWN_MAX = 1_000
"""A longer list is for a program, and costs the lock service a scan."""

# A holder that is frozen in a transaction keeps its rows until the server ends its session; SQLite
# never does.
ROW_PATIENCE_S = IDLE_IN_TRANSACTION_S + 2 * ROW_WAIT_S
ROW_PAUSE_S = 0.5

_WARNING = """\
Whoever waits for order {code} gets its lease at once, and the present holder is not stopped:
  - what it still writes is refused by the database, once a later holder has written the order;
  - a call it has under way at a gateway is not undone; the sweeper asks the gateway what became
    of it, and books money that was taken.
A holder that is at work needs none of this: its lease ends with its work or its process."""


@click.group("locks")
def locks() -> None:
    """Leases on orders: show them, end one, change the lock service."""


@locks.command("show")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--limit", default=SHOWN_MAX, show_default=True, type=click.IntRange(1), help="At most so many."
)
@with_appcontext
def show(as_json: bool, limit: int) -> None:
    """List the leases that are held now, and who waits for each, the next one first."""
    with _in_sentences():
        found = parts().lock.held(limit)
    if as_json:
        values = {"backend": parts().lock.backend, "held": [asdict(held) for held in found]}
        click.echo(json.dumps(values, indent=2))
        return
    if not found:
        click.echo("No lease is held.")
        return
    click.echo(_table(found))
    if len(found) == limit:
        click.echo(f"These are {limit}; there may be more: --limit.")


@locks.command("release")
@click.argument("code")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_appcontext
def release(code: str, yes: bool) -> None:
    """End the lease on order CODE, whoever holds it, and let the next one in."""
    with _in_sentences():
        _require_order(code)
        if not yes:
            _ask(code)
        ended = parts().lock.break_lease(code)
        if ended is None:
            raise _nobody(code)
        log.warning("lease_ended_by_operator", order_code=code, **_particulars(ended))
        click.echo(f"The lease of {_printable(ended.holder)} (fence {ended.fence}) is ended.")
    _fence_off(code)


@locks.command("adopt")
@click.option("--anew", is_flag=True, help="Begin an epoch even where this service is believed.")
@with_appcontext
def adopt(anew: bool) -> None:
    """Believe the lock service of LOCK_URL from now on, and no other.

    To be run once after LOCK_URL was changed to another kind of service, or to another ZooKeeper.
    With --anew, after a Redis lost its data while its clock was set back. Holders of the service
    before write nothing more.
    """
    with _in_sentences():
        done = adopt_service(parts().lock, parts().clock, anew=anew, reason="adopted by operator")
    epoch = done.epoch
    if not done.is_new:
        click.echo(
            f"This lock service ({epoch.realm}) is the one that is believed, since epoch "
            f"{epoch.number}; nothing was changed."
        )
        return
    before = f" after {done.before.realm} in epoch {done.before.number}" if done.before else ""
    click.echo(f"Epoch {epoch.number} begins: {epoch.realm} is believed{before}.")


def _require_order(code: str) -> None:
    end_read()
    order = store.fresh_order(code)
    end_read()
    if order is None:
        raise click.BadParameter(f"There is no order {code!r}.", param_hint="CODE")


def _ask(code: str) -> None:
    """Show who would lose what, and go on only if that is meant."""
    found = parts().lock.held(SHOWN_MAX)
    present = [held for held in found if held.key == code]
    if not present and len(found) < SHOWN_MAX:
        raise _nobody(code)
    if present:
        click.echo(f"{_table(present)}\n")
    click.echo(_WARNING.format(code=code))
    click.confirm(f"End the lease on order {code}?", abort=True)


def _nobody(code: str) -> click.ClickException:
    return click.ClickException(f"Nobody holds a lease on order {code}; nothing was done.")


def _fence_off(code: str) -> None:
    """Make sure that the ousted holder writes nothing more, as far as that can be done now."""
    until = time.monotonic() + ROW_PATIENCE_S
    while True:
        try:
            fence = parts().payments.fence_off(code)
        except PaymentInProgress:
            click.echo("The next in the queue has it; its first write shuts out who had it before.")
        except OperationalError as error:
            db.session.rollback()
            if time.monotonic() < until:
                time.sleep(ROW_PAUSE_S)
                continue
            raise _not_shut_out(error) from None
        except (ShopError, SQLAlchemyError) as error:
            raise _not_shut_out(error) from None
        else:
            click.echo(f"What it still writes is refused from now on (below fence {fence}).")
        return


def _not_shut_out(error: Exception) -> click.ClickException:
    return click.ClickException(
        f"But the order could not be written to shut it out ({_reason(error)}). The order's next "
        "payment does that; to be sure until then, end the process."
    )


@contextmanager
def _in_sentences() -> Iterator[None]:
    """A service that is away ends a command with one sentence and status 1."""
    try:
        yield
    except (LockUnavailable, ShopError) as error:
        raise click.ClickException(str(error)) from None
    except SQLAlchemyError as error:
        raise click.ClickException(f"The database cannot be used: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


def _table(found: Sequence[HeldKey]) -> str:
    """Aligned columns: one line for each lease, and one for each who waits."""
    rows = [("ORDER", "HOLDER", "FENCE", "LEFT", "WAITING")]
    for held in found:
        left = "its session" if held.remaining_ms is None else f"{held.remaining_ms / 1_000:.1f} s"
        first, *others = [_printable(waiter) for waiter in held.waiters] or ["-"]
        rows.append((held.key, _printable(held.holder), str(held.fence), left, first))
        rows += [("", "", "", "", other) for other in others]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _printable(name: str) -> str:
    """What others wrote into the lock service must not steer an operator's terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in name)


def _particulars(held: HeldKey) -> dict[str, object]:
    return {"holder": held.holder, "fence": held.fence, "waiters": len(held.waiters)}
