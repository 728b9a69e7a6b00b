"""Where merchants' credentials are, and what an operator does about them.

A merchant is found in this order: the default one by the environment, others by their file in
MERCHANTS_DIR, then by their row in the database.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from config.merchants import (
    DEFAULT,
    AccountSettings,
    default_variables,
    files_named,
    is_merchant_name,
    load_account,
    look_of,
    merchant_file,
    merchants_in,
    read_merchant_file,
)
from config.settings import Settings, SettingsError
from shop.clock import Clock
from shop.db import end_read, transaction
from shop.gateways.registry import Credentials
from shop.merchants import store
from shop.merchants.cipher import seal, unseal
from shop.merchants.errors import UnknownMerchant

log = structlog.get_logger("payonce.merchants")

ENVIRONMENT, FILE, DATABASE = "environment", "file", "database"
# Of payments and orders that a sentence names.
LISTED_MAX = 10


class MerchantRefused(Exception):
    """An operator's wish that cannot be done; the text says why, and how to mend it."""


class MerchantCredentials(Credentials[AccountSettings]):
    """The credentials of all merchants, as they are now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def stamp(self, merchant: str) -> Hashable:
        """See `Credentials`: what the files look like, or the version of the row."""
        path = merchant_file(self._settings.merchants_dir, merchant)
        if path is None and merchant != DEFAULT:
            version = store.version_of(merchant) if is_merchant_name(merchant) else None
            if version is None:
                raise UnknownMerchant(merchant=merchant)
            return (DATABASE, version)
        before = look_of(path) if path is not None else ()
        try:
            files = files_named(self._variables(merchant, path))
        except SettingsError as error:
            return (FILE, before, str(error))
        return (FILE, before, tuple(look_of(one) for one in files))

    def read(self, merchant: str) -> AccountSettings:
        """See `Credentials`. Raises SettingsError."""
        path = merchant_file(self._settings.merchants_dir, merchant)
        if path is not None or merchant == DEFAULT:
            return load_account(self._variables(merchant, path))
        sealed = store.sealed_of(merchant)
        if sealed is None:
            raise UnknownMerchant(merchant=merchant)
        return unseal(self._settings.credentials_keys, merchant, sealed)

    def _variables(self, merchant: str, path: Path | None) -> dict[str, str]:
        if merchant == DEFAULT:
            settings = self._settings
            return default_variables(settings.gateway_variables, settings.merchants_dir)
        if path is None:
            raise UnknownMerchant(merchant=merchant)
        return read_merchant_file(path)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One merchant in the list: where its credentials are, and which goods it sells."""

    name: str
    source: str
    lines: tuple[str, ...]
    updated_at: datetime | None = None


def merchants(settings: Settings) -> list[Listed]:
    """All merchants, the default one first. One with a file and a row is listed by its file."""
    end_read()
    rows = {row.name: row.updated_at for row in store.accounts()}
    end_read()
    files = [name for name in merchants_in(settings.merchants_dir) if name != DEFAULT]
    source = dict.fromkeys(rows, DATABASE) | dict.fromkeys(files, FILE)
    names = [DEFAULT, *sorted(source)]
    return [
        Listed(
            name=name,
            source=source.get(name, ENVIRONMENT),
            lines=_lines_of(settings, name),
            updated_at=rows.get(name) if source.get(name) == DATABASE else None,
        )
        for name in names
    ]


def nobodys(settings: Settings) -> list[str]:
    """Merchants that the configuration sends goods to, and that do not exist."""
    known = {one.name for one in merchants(settings)}
    wanted = {settings.merchant_default, *settings.merchant_lines.values()}
    return sorted(wanted - known)


def tell_at_start(settings: Settings) -> None:
    """Log what cannot be right in the configuration, and does not keep the shop from starting."""
    parts = urlsplit(settings.public_url)
    gateways = (settings.wechatpay.base_url, settings.alipay.base_url)
    if (parts.scheme != "https" or _is_local(parts.hostname or "")) and not all(
        _is_local(urlsplit(gateway).hostname or "") for gateway in gateways
    ):
        # https, no address, no localhost (WeChat Pay, `notify_url`). The sandbox takes any, and is
        # the only gateway at such an address itself.
        log.warning(
            "no_notices_will_come",
            public_url=settings.public_url,
            hint="WeChat Pay and Alipay send notices to an https:// address with a public name.",
        )
    wanted = {settings.merchant_default, *settings.merchant_lines.values()}
    if wanted <= {DEFAULT, *merchants_in(settings.merchants_dir)}:
        return
    try:
        missing = nobodys(settings)
    except SQLAlchemyError as error:
        log.warning("merchants_not_looked_at", error=type(error).__name__)
        return
    for name in missing:
        log.error(
            "merchant_does_not_exist",
            merchant=name,
            hint="MERCHANT_LINES or MERCHANT_DEFAULT sends goods to it, which cannot be paid.",
        )


def _is_local(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return True


def store_account(
    settings: Settings,
    clock: Clock,
    name: str,
    account: AccountSettings,
    *,
    replace: bool,
    strand: bool = False,
) -> None:
    """Seal an account into the database. Raises MerchantRefused, SettingsError.

    Refused also where payments that were begun at another account must still be asked after, unless
    `strand` wishes so: they wait until that account is back.
    """
    if not is_merchant_name(name) or name == DEFAULT:
        raise MerchantRefused(
            f"{name!r} cannot be the name of a stored merchant: give 1 to 32 small letters, digits "
            f"and hyphens, and not {DEFAULT}, which the environment configures."
        )
    if merchant_file(settings.merchants_dir, name) is not None:
        raise MerchantRefused(
            f"{name} has a file in MERCHANTS_DIR, which would hide the row: change or remove it."
        )
    sealed, now = seal(settings.credentials_keys, name, account), clock.now()
    stranded = [] if strand else payments_elsewhere(settings, name, account)
    if stranded:
        raise MerchantRefused(
            f"This is another account than the one where {_some(stranded)} must still be asked "
            f"after: store it under a new name and leave {name} until they are done, or add "
            "--strand-payments; they wait then, until the account before is stored again."
        )
    if replace:
        if not transaction(lambda: store.replace_account(name, sealed, now)):
            raise MerchantRefused(f"There is no stored merchant {name}: leave --replace out.")
        return
    try:
        transaction(lambda: store.insert_account(name, sealed, now))
    except IntegrityError:
        raise MerchantRefused(
            f"There is a stored merchant {name} already: add --replace to give it new keys."
        ) from None


def payments_elsewhere(settings: Settings, name: str, account: AccountSettings) -> list[str]:
    """Payments under way of a merchant that were begun at another account than these.

    Where one was begun is known since it is kept; of those before, by the stored account.
    """
    end_read()
    found = store.payments_under_way(name)
    end_read()
    if not found:
        return []
    try:
        before = MerchantCredentials(settings).read(name)
    except (UnknownMerchant, SettingsError):
        before = AccountSettings()
    return [
        one.out_trade_no
        for one in found
        if (one.account or before.account_at(one.channel) or account.account_at(one.channel))
        != account.account_at(one.channel)
    ]


def remove_account(
    settings: Settings, clock: Clock, name: str, *, surplus_given_back: bool = False
) -> None:
    """Forget a stored merchant's credentials; its orders and payments stay in the books.

    Raises MerchantRefused while its gateways must still be asked of a payment, while orders can
    still be paid to it, while notices wait to be applied, and while the configuration sends goods
    to it; also where it holds surplus money, unless an operator says that it was given back.
    """
    wanted = {settings.merchant_default, *settings.merchant_lines.values()}
    if name in wanted:
        raise MerchantRefused(
            f"{name} is to be paid for goods: change MERCHANT_LINES or MERCHANT_DEFAULT first."
        )

    def work() -> bool:
        payments = [one.out_trade_no for one in store.payments_under_way(name)]
        orders = store.unpaid_orders(name, clock.now())
        notices = store.waiting_notices(name)
        if payments or orders or notices:
            raise MerchantRefused(
                f"{name} has payments under way: {_some(payments)}; orders to be paid: "
                f"{_some(orders)}; notices to be applied: {notices}. Wait until they are done; "
                "the sweeper ends what is over."
            )
        surplus = [] if surplus_given_back else store.surplus_payments(name)
        if surplus:
            raise MerchantRefused(
                f"{name} took more than was owed by {_some(surplus)}: give it back in the "
                "gateway's portal, then add --surplus-given-back."
            )
        return store.delete_account(name)

    if not transaction(work):
        raise MerchantRefused(f"There is no stored merchant {name}: see `merchants list`.")


def seal_again(settings: Settings, clock: Clock) -> list[str]:
    """Seal every stored account with the first of the keys; their names. Raises SettingsError
    where one does not open, and then changes none."""

    def work() -> list[str]:
        done = []
        for row in store.accounts():
            account = unseal(settings.credentials_keys, row.name, row.sealed)
            sealed = seal(settings.credentials_keys, row.name, account)
            if not store.replace_account(row.name, sealed, clock.now(), version=row.version):
                raise MerchantRefused(f"{row.name} was changed meanwhile: run it again.")
            done.append(row.name)
        return done

    return transaction(work)


def _some(numbers: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(numbers) - LISTED_MAX} more" if len(numbers) > LISTED_MAX else ""
    return ", ".join(numbers[:LISTED_MAX]) + more or "none"


def _lines_of(settings: Settings, name: str) -> tuple[str, ...]:
    lines = [line for line, merchant in settings.merchant_lines.items() if merchant == name]
    return tuple([*sorted(lines), *(["(all other)"] if settings.merchant_default == name else [])])
