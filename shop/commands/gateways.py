"""`flask --app wsgi gateways …`: asking a gateway by hand.

Exit status: 0 done, 1 the gateway refused or there is nothing, 2 a wrong argument, 3 not known:
ask again.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path

import click
import structlog
from flask.cli import with_appcontext

from shop.commands.merchants import in_sentences
from shop.commands.outcomes import outcomes
from shop.commands.tables import printable, table
from shop.db import end_read
from shop.gateways.base import BillResult, Cancelling, Gateway, GatewayFault, Outcome
from shop.gateways.registry import DEFAULT_MERCHANT
from shop.money import yuan_text
from shop.payments import store
from shop.payments.models import PaymentAttempt
from shop.wiring import parts

log = structlog.get_logger("payonce.gateways")

CHANNELS = ("wechatpay", "alipay")
NOT_KNOWN = 3

_MEANING = {
    Outcome.SUCCEEDED: "paid",
    Outcome.FAILED: "closed, not paid",
    Outcome.PENDING: "not paid so far",
    Outcome.UNKNOWN: "no believable answer",
}

_CANCEL_WARNING = """\
Cancelling ends payment {number} at its gateway, whatever became of it:
  - what is not paid can no longer be paid;
  - what IS PAID goes back to the payer, in full. Our books know no refunds yet: the order will
    count as paid all the same, so see that nothing is delivered for it.
It is meant for a payment whose outcome cannot be learnt. To end one that is merely not wanted any
more, cancel its order."""


@click.group("gateways")
def gateways() -> None:
    """Ask the payment gateways by hand."""


gateways.add_command(outcomes)


@gateways.command("query")
@click.argument("number", required=False)
@click.option("--transaction-id", help="Ask by the gateway's own number; needs --channel.")
@click.option("--channel", type=click.Choice(CHANNELS), help="Where NUMBER is not ours.")
@click.option("--merchant", default=DEFAULT_MERCHANT, show_default=True)
@with_appcontext
def query(
    number: str | None, transaction_id: str | None, channel: str | None, merchant: str
) -> None:
    """Ask what became of payment NUMBER (an out_trade_no), or of a transaction. Changes nothing."""
    if (number is None) == (transaction_id is None):
        raise click.UsageError("Give a NUMBER or --transaction-id, one of the two.")
    if transaction_id is not None:
        if channel is None:
            raise click.UsageError("--transaction-id needs --channel.")
        gateway = _gateway(channel, merchant)
    else:
        gateway = _gateway_of(number or "", channel, merchant)
    end_read()
    with _plain_numbers():
        if transaction_id is not None:
            found = gateway.query_transaction(transaction_id)
        else:
            found = gateway.query(number or "")
    rows = [
        ("out_trade_no", found.out_trade_no or number or "-"),
        ("channel", gateway.channel),
        ("outcome", _MEANING[found.outcome] if found.exists else "not known to the gateway"),
        ("trade state", found.trade_state or "-"),
        ("transaction", found.transaction_id or "-"),
        ("amount", "-" if found.amount_fen is None else f"{yuan_text(found.amount_fen)} yuan"),
        ("paid at", f"{found.paid_at:%Y-%m-%d %H:%M:%S} UTC" if found.paid_at else "-"),
        ("said", _said(found.fault)),
    ]
    click.echo(table([("FIELD", "VALUE"), *rows]))
    if found.outcome is Outcome.UNKNOWN:
        raise click.exceptions.Exit(NOT_KNOWN)
    if not found.exists:
        raise click.exceptions.Exit(1)


@gateways.command("bill")
@click.option("--channel", required=True, type=click.Choice(CHANNELS))
@click.option(
    "--date",
    "day",
    required=True,
    type=click.DateTime(["%Y-%m-%d"]),
    help="The day in China, as 2026-11-24; bills are made on the day after.",
)
@click.option("--merchant", default=DEFAULT_MERCHANT, show_default=True)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
@with_appcontext
def bill(channel: str, day: datetime, merchant: str, out: Path) -> None:
    """Download a day's bill (CSV in UTF-8) to a file: the whole bill, or no file."""
    gateway = _gateway(channel, merchant)
    end_read()
    try:
        result, size = _download(gateway, day.date(), out)
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error.strerror}.") from None
    if result.outcome is Outcome.SUCCEEDED:
        click.echo(f"{out}: {size} bytes")
        return
    said = {
        Outcome.FAILED: "There is no bill of that day",
        Outcome.PENDING: "The bill is not made yet: try again later",
        Outcome.UNKNOWN: "The bill could not be had: try again",
    }
    click.echo(f"{said[result.outcome]} ({_said(result.fault)}). No file was written.", err=True)
    raise click.exceptions.Exit(1 if result.outcome is Outcome.FAILED else NOT_KNOWN)


@gateways.command("cancel")
@click.argument("number")
@click.option("--paid", is_flag=True, help="Also where the gateway says that it is paid.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_appcontext
def cancel(number: str, paid: bool, yes: bool) -> None:
    """End payment NUMBER at its gateway. WHAT IS PAID IS REFUNDED, in full."""
    attempt = _attempt(number)
    if attempt is None:
        raise click.BadParameter(f"There is no payment {number!r} of ours.", param_hint="NUMBER")
    gateway = _gateway_of(number, None, DEFAULT_MERCHANT)
    if not isinstance(gateway, Cancelling):
        raise click.ClickException(
            f"{attempt.channel} knows no cancelling: cancel the order, which closes its payment."
        )
    end_read()
    if not paid and gateway.query(number).outcome is Outcome.SUCCEEDED:
        raise click.ClickException(
            f"Payment {number} is paid: nothing was cancelled, and the sweeper settles its order. "
            "With --paid its money goes back, in full, while the order still counts as paid."
        )
    if not yes:
        click.echo(_CANCEL_WARNING.format(number=number))
        click.confirm(f"Cancel payment {number}?", abort=True)
    result = gateway.cancel(number)
    log.warning(
        "payment_cancelled_by_operator",
        out_trade_no=number,
        outcome=result.outcome.value,
        action=result.action.value,
    )
    rows = [
        ("outcome", result.outcome.value),
        ("action", result.action.value),
        ("said", _said(result.fault)),
    ]
    click.echo(table([("FIELD", "VALUE"), *rows]))
    click.echo(f"See what became of it: flask --app wsgi gateways query {number}")
    if result.outcome is not Outcome.SUCCEEDED:
        raise click.exceptions.Exit(NOT_KNOWN if result.outcome is Outcome.UNKNOWN else 1)


def _download(gateway: Gateway, day: date, out: Path) -> tuple[BillResult, int]:
    """Write beside `out`, and give it its name when it is whole; the size comes back, too."""
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            result = gateway.download_bill(day, file)
        size = part.stat().st_size
        if result.outcome is Outcome.SUCCEEDED:
            part.replace(out)
        return result, size
    finally:
        part.unlink(missing_ok=True)


def _gateway_of(number: str, channel: str | None, merchant: str) -> Gateway:
    """The gateway of a payment of ours; of another number, the one that is named."""
    attempt = _attempt(number)
    if attempt is None:
        if channel is None:
            raise click.UsageError(
                f"There is no payment {number!r} of ours: say where to ask by --channel."
            )
        return _gateway(channel, merchant)
    if attempt.channel not in CHANNELS:
        raise click.ClickException(f"Payment {number} was made by points: there is nobody to ask.")
    _gateway(attempt.channel, attempt.merchant)
    with in_sentences():
        return parts().desk.gateway_of(attempt)


def _gateway(channel: str, merchant: str) -> Gateway:
    with in_sentences():
        found = parts().desk.gateways.of(merchant).get(channel)
    if found is None:
        raise click.ClickException(f"{merchant} has no account at {channel}.")
    return found


def _attempt(number: str) -> PaymentAttempt | None:
    with in_sentences():
        end_read()
        return store.fresh_attempt(number)


@contextmanager
def _plain_numbers() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _said(fault: GatewayFault | None) -> str:
    if fault is None:
        return "-"
    return printable(f"{fault.code}: {fault.detail}" if fault.detail else fault.code)
