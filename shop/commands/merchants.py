"""`flask --app wsgi merchants …`: whose accounts at the gateways take the money.

Exit status: 0 done, 1 it could not be done or something is wrong, 2 a wrong argument.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import structlog
from cryptography.fernet import Fernet
from flask.cli import with_appcontext
from sqlalchemy.exc import SQLAlchemyError

from config.merchants import AccountSettings, load_account, read_merchant_file
from config.settings import SettingsError
from shop.commands.tables import table
from shop.gateways.base import Gateway, Outcome
from shop.merchants import service
from shop.merchants.errors import MerchantUnusable, UnknownMerchant
from shop.wiring import make_gateways, parts

log = structlog.get_logger("payonce.merchants")


@click.group("merchants")
def merchants() -> None:
    """Merchants' accounts at the gateways: store, look at, try and forget them."""


@merchants.command("list")
@with_appcontext
def list_() -> None:
    """List the merchants, where their credentials are, and which product lines they sell."""
    with in_sentences():
        found = service.merchants(parts().settings)
    rows = [("MERCHANT", "KEPT IN", "SELLS", "CHANGED")]
    for one in found:
        changed = f"{one.updated_at:%Y-%m-%d %H:%M} UTC" if one.updated_at else "-"
        rows.append((one.name, one.source, ", ".join(one.lines) or "-", changed))
    click.echo(table(rows))
    with in_sentences():
        for name in service.nobodys(parts().settings):
            click.echo(f"MERCHANT_LINES or MERCHANT_DEFAULT names {name}, which does not exist.")


@merchants.command("show")
@click.argument("name")
@with_appcontext
def show(name: str) -> None:
    """Show what is known of merchant NAME, but for its secrets."""
    with in_sentences():
        account = service.MerchantCredentials(parts().settings).read(_known(name))
    click.echo(table([("SETTING", "VALUE"), *_particulars(account)]))


@merchants.command("add")
@click.argument("name")
@click.option(
    "--env-file",
    required=True,
    type=click.Path(path_type=Path),
    help="A file of WECHATPAY_ and ALIPAY_ variables; the key files that it names are read, too.",
)
@click.option("--replace", is_flag=True, help="Give a stored merchant new credentials.")
@click.option(
    "--strand-payments",
    is_flag=True,
    help="Even where payments must still be asked after at another account: they wait for it.",
)
@with_appcontext
def add(name: str, env_file: Path, replace: bool, strand_payments: bool) -> None:
    """Store merchant NAME in the database, sealed with CREDENTIALS_KEY.

    Its files are not needed any more afterwards.
    """
    chosen = parts()
    with in_sentences():
        account = load_account(read_merchant_file(env_file))
        make_gateways(chosen.settings, chosen.clock, name, account)
        service.store_account(
            chosen.settings,
            chosen.clock,
            name,
            account,
            replace=replace,
            strand=strand_payments,
        )
    log.warning("merchant_stored_by_operator", merchant=name, replaced=replace)
    click.echo(f"Merchant {name} is stored; running processes use it within a second.")


@merchants.command("remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--surplus-given-back",
    is_flag=True,
    help="What it took beyond what was owed was given back in the gateway's portal.",
)
@with_appcontext
def remove(name: str, yes: bool, surplus_given_back: bool) -> None:
    """Forget the stored credentials of merchant NAME. Its orders and payments stay in the books."""
    if not yes:
        click.confirm(
            f"Forget the credentials of {name}? Its payments cannot be asked after nor refunded "
            "then.",
            abort=True,
        )
    with in_sentences():
        service.remove_account(
            parts().settings, parts().clock, name, surplus_given_back=surplus_given_back
        )
    log.warning("merchant_removed_by_operator", merchant=name)
    click.echo(f"Merchant {name} is forgotten.")


@merchants.command("check")
@click.argument("name", required=False)
@with_appcontext
def check(name: str | None) -> None:
    """Read each merchant's credentials (or those of NAME) and ask its gateways a signed question.

    The question is after a payment that does not exist: it moves nothing.
    """
    with in_sentences():
        settings = parts().settings
        names = [_known(name)] if name else [one.name for one in service.merchants(settings)]
        rows = [("MERCHANT", "CHANNEL", "RESULT"), *(row for one in names for row in _try(one))]
        missing = service.nobodys(settings) if name is None else []
    click.echo(table(rows))
    for one in missing:
        click.echo(f"MERCHANT_LINES or MERCHANT_DEFAULT names {one}, which does not exist.")
    if missing or any(row[2] != "ok" for row in rows[1:]):
        raise click.exceptions.Exit(1)


@merchants.command("reencrypt")
@with_appcontext
def reencrypt() -> None:
    """Seal every stored account anew, with the first key of CREDENTIALS_KEY."""
    with in_sentences():
        done = service.seal_again(parts().settings, parts().clock)
    click.echo(f"Sealed anew: {', '.join(done) or 'none, as none is stored'}.")


@merchants.command("new-key")
def new_key() -> None:
    """Make a key for CREDENTIALS_KEY."""
    click.echo(Fernet.generate_key().decode("ascii"))


def _known(name: str) -> str:
    if name not in {one.name for one in service.merchants(parts().settings)}:
        raise UnknownMerchant(merchant=name)
    return name


def _try(name: str) -> Iterator[tuple[str, str, str]]:
    """One row for each gateway of the merchant, of its newest credentials."""
    chosen = parts()
    try:
        account = service.MerchantCredentials(chosen.settings).read(name)
        gateways = make_gateways(chosen.settings, chosen.clock, name, account)
    except SettingsError as error:
        yield (name, "-", str(error))
        return
    stranded = service.payments_elsewhere(chosen.settings, name, account)
    if stranded:
        yield (name, "-", f"{len(stranded)} payment(s) wait for another account: {stranded[0]}")
    for channel, gateway in gateways.items():
        yield (name, channel, _ask(gateway))


def _ask(gateway: Gateway) -> str:
    found = gateway.query(f"CHECK{secrets.token_hex(8)}")
    if found.outcome is not Outcome.UNKNOWN:
        return "ok"
    fault = found.fault
    return f"{fault.code}: {fault.detail}" if fault else "no believable answer"


def _particulars(account: AccountSettings) -> Iterator[tuple[str, str]]:
    one, other = account.wechatpay, account.alipay
    if one is not None:
        certs = "fetched" if one.fetch_certs else "given" if one.platform_certs_pem else ""
        yield ("WeChat Pay", one.base_url)
        yield ("  merchant number", one.mchid)
        yield ("  application", one.appid)
        yield ("  certificate serial", one.cert_serial)
        yield ("  public key", one.public_key_id or "-")
        yield ("  platform certificates", certs or "-")
        yield ("  products", ", ".join(one.products))
    if other is not None:
        yield ("Alipay", other.base_url)
        yield ("  application", other.app_id)
        yield ("  seller", other.seller_id)
        yield ("  mode", "certificates" if other.alipay_cert_pem else "public key")
        yield ("  products", ", ".join(other.products))


@contextmanager
def in_sentences() -> Iterator[None]:
    """What goes wrong ends a command with one sentence and status 1."""
    try:
        yield
    except UnknownMerchant as error:
        raise click.ClickException(
            f"There is no merchant {error.fields['merchant']!r}: see `merchants list`."
        ) from None
    except MerchantUnusable as error:
        raise click.ClickException(
            f"{error.fields['merchant']} cannot be used: {error.fields['trouble']}"
        ) from None
    except (service.MerchantRefused, SettingsError) as error:
        raise click.ClickException(str(error)) from None
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise click.ClickException(f"The database cannot be used: {reason}") from None
