"""One frozen, typed `Settings`, read from the environment and checked at start.

Every name in the environment is listed here and in the README's table. Units stand last in the
names. A wrong value stops the start with a sentence that says which one, and how to mend it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from config.gateways import AlipaySettings, WeChatPaySettings, load_alipay, load_wechatpay
from config.merchants import (
    DEFAULT,
    default_variables,
    gateway_variables,
    merchant_lines,
    merchant_name,
    merchants_folder,
)
from config.values import SettingsError, choice, number, public_url, required

__all__ = ["AlipaySettings", "Settings", "SettingsError", "WeChatPaySettings", "load_settings"]

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOCK_UNAVAILABLE = ("refuse", "database")
# The databases that the shop is tested on, each with the driver that requirements.txt brings.
DATABASE_DRIVERS = ("sqlite", "postgresql+psycopg", "mysql+pymysql", "mariadb+pymysql")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that can be configured. Times carry their unit in the name."""

    database_url: str = field(repr=False)
    lock_url: str = field(repr=False)
    secret_key: str = field(repr=False)
    public_url: str
    wechatpay: WeChatPaySettings
    alipay: AlipaySettings
    # Where these were read from, to be read again when it changes: no secrets, but their paths.
    gateway_variables: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    # Files of further merchants, NAME.env; empty: none.
    merchants_dir: str = ""
    # Opens what merchants' accounts in the database are sealed with; the first one seals.
    credentials_keys: tuple[str, ...] = field(default=(), repr=False)
    # Who takes the money for a product line, and for all others.
    merchant_lines: Mapping[str, str] = field(default_factory=dict)
    merchant_default: str = DEFAULT
    # It is renewed while held, so a gateway call may take longer; it bounds only how long a dead
    # holder blocks an order.
    lock_lease_ms: int = 15_000
    # A second pay request waits this long for the first, then answers "in progress".
    lock_wait_ms: int = 3_000
    # Gateways must be acknowledged within 5 s (WeChat Pay); a stored notice is enough for that.
    webhook_lock_wait_ms: int = 1_000
    # While the lock service is away: refuse (503), or claim orders by their rows in the database.
    lock_unavailable: str = "refuse"
    gateway_connect_timeout_ms: int = 3_000
    gateway_read_timeout_ms: int = 8_000
    # Calls to one gateway at once in a process: two that hang leave threads for everything else.
    # Unless set, it follows WEB_THREADS.
    gateway_concurrency: int = 3
    # And to all gateways together; it follows WEB_THREADS.
    gateway_concurrency_of_all: int = 6
    # A gateway that failed so often in a row is left alone for so long.
    gateway_failures: int = 3
    gateway_rest_ms: int = 10_000
    order_expiry_s: int = 1_800
    # First look of the sweeper at a payment that nobody heard of since.
    sweep_first_ms: int = 5_000
    sweep_interval_ms: int = 1_000
    log_level: str = "INFO"
    # Who asks for /metrics must say it; without one there is no such page.
    metrics_token: str = field(default="", repr=False)
    # Read from the environment by prometheus-client itself, too.
    metrics_folder: str = ""
    # Whose X-Forwarded-For is believed, as in WebSettings.
    forwarded_allow_ips: str = ""

    @property
    def secure_cookies(self) -> bool:
        """Whether members reach the shop over https, so that cookies may be marked Secure."""
        return self.public_url.startswith("https://")


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """How gunicorn serves the shop (config/gunicorn.conf.py)."""

    # Never 0.0.0.0 by default, which is what gunicorn makes of PORT by itself.
    host: str = "127.0.0.1"
    port: int = 8_000
    workers: int = 2
    threads: int = 8
    # Addresses and networks with commas between them; empty: nobody.
    forwarded_allow_ips: str = ""


def load_web_settings(env: Mapping[str, str] | None = None) -> WebSettings:
    """Read what concerns the web server alone; an empty value counts as none.

    Raises SettingsError naming the variable that is wrong.
    """
    values = os.environ if env is None else env
    return WebSettings(
        host=values.get("HOST") or WebSettings.host,
        port=number("PORT", values.get("PORT") or str(WebSettings.port), 1, 65_535),
        workers=number(
            "WEB_WORKERS", values.get("WEB_WORKERS") or str(WebSettings.workers), 1, 256
        ),
        threads=_web_threads(values),
        forwarded_allow_ips=_networks(values, "FORWARDED_ALLOW_IPS"),
    )


def _web_threads(values: Mapping[str, str]) -> int:
    return number("WEB_THREADS", values.get("WEB_THREADS") or str(WebSettings.threads), 1, 256)


def load_settings(env: Mapping[str, str] | None = None) -> Settings:
    """Read the environment. Raises SettingsError naming the variable that is missing or wrong."""
    values = os.environ if env is None else env
    folder = merchants_folder(values, "MERCHANTS_DIR")
    default = default_variables(values, folder)
    settings = Settings(
        database_url=_database_url(values, "DATABASE_URL"),
        lock_url=required(values, "LOCK_URL", "redis://…, zookeeper://… or file:///…"),
        secret_key=_secret(values, "SECRET_KEY"),
        public_url=public_url(values, "PUBLIC_URL"),
        wechatpay=load_wechatpay(default),
        alipay=load_alipay(default),
        gateway_variables=gateway_variables(values),
        merchants_dir=folder,
        credentials_keys=_fernet_keys(values, "CREDENTIALS_KEY"),
        merchant_lines=merchant_lines(values, "MERCHANT_LINES"),
        merchant_default=merchant_name(values, "MERCHANT_DEFAULT", DEFAULT),
        lock_unavailable=choice(values, "LOCK_UNAVAILABLE", LOCK_UNAVAILABLE),
        log_level=_log_level(values, "LOG_LEVEL"),
        metrics_token=_metrics_token(values, "METRICS_TOKEN"),
        metrics_folder=values.get("PROMETHEUS_MULTIPROC_DIR", ""),
        forwarded_allow_ips=_networks(values, "FORWARDED_ALLOW_IPS"),
    )
    # With gateways that hang, threads are left for everything else; of two that hang, both go on.
    of_all = max(1, _web_threads(values) - 2)
    chosen = {"gateway_concurrency": max(1, of_all // 2), **_numbers(values)}
    of_all = max(of_all, chosen["gateway_concurrency"])
    return replace(settings, gateway_concurrency_of_all=of_all, **chosen)


_NUMBERS = {
    "LOCK_LEASE_MS": (1_000, 600_000),
    "LOCK_WAIT_MS": (0, 30_000),
    "WEBHOOK_LOCK_WAIT_MS": (0, 4_000),
    "GATEWAY_CONNECT_TIMEOUT_MS": (100, 30_000),
    "GATEWAY_READ_TIMEOUT_MS": (100, 60_000),
    "GATEWAY_CONCURRENCY": (1, 1_000),
    "GATEWAY_FAILURES": (1, 1_000),
    "GATEWAY_REST_MS": (100, 600_000),
    # Less than some 75 s before its end no payment of an order is begun any more.
    "ORDER_EXPIRY_S": (120, 7 * 86_400),
    "SWEEP_FIRST_MS": (100, 600_000),
    "SWEEP_INTERVAL_MS": (50, 600_000),
}


def _numbers(values: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, int] = {}
    for name, (low, high) in _NUMBERS.items():
        text = values.get(name)
        if text is None:
            continue
        found[name.lower()] = number(name, text, low, high)
    return found


def _log_level(values: Mapping[str, str], name: str) -> str:
    text = values.get(name) or "INFO"
    if text.upper() not in LOG_LEVELS:
        raise SettingsError(f"{name}={text!r}: give one of {', '.join(LOG_LEVELS)}.")
    return text.upper()


def _database_url(values: Mapping[str, str], name: str) -> str:
    """The address, unchanged. Errors quote nothing but its scheme: it may hold a password."""
    value = required(values, name, "for example sqlite:////srv/payonce.db")
    try:
        scheme = make_url(value).drivername
    except (ArgumentError, ValueError):
        raise SettingsError(
            f"{name} is not the address of a database: give for example "
            "sqlite:////srv/payonce.db or postgresql+psycopg://user:password@host/payonce."
        ) from None
    if scheme in DATABASE_DRIVERS:
        return value
    family = scheme.partition("+")[0]
    if family == "postgres":
        family = "postgresql"
    drivers = [driver for driver in DATABASE_DRIVERS if driver.partition("+")[0] == family]
    written = " or ".join(f"{driver}://" for driver in drivers or DATABASE_DRIVERS)
    raise SettingsError(f"{name} begins with {scheme}://: write {written}… instead.")


def _networks(values: Mapping[str, str], name: str) -> str:
    text = values.get(name, "").strip()
    for address in text.split(",") if text else []:
        try:
            if address.strip() != "*":
                ip_network(address.strip())
        except ValueError:
            raise SettingsError(
                f"{name}={text!r}: {address.strip()!r} is no IP address or network; give the "
                "proxies' addresses with commas between them, as in 10.0.0.5,10.1.0.0/16."
            ) from None
    return text


def _secret(values: Mapping[str, str], name: str) -> str:
    value = required(values, name, "at least 32 random characters")
    if len(value) < 32:
        raise SettingsError(f"{name} is too short: give at least 32 random characters.")
    return value


def _fernet_keys(values: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Fernet keys with commas between them. Errors quote none."""
    keys = tuple(one.strip() for one in values.get(name, "").split(",") if one.strip())
    for place, key in enumerate(keys, start=1):
        try:
            Fernet(key)
        except ValueError:
            raise SettingsError(
                f"{name}: key {place} of {len(keys)} is none; make one with "
                "`flask --app wsgi merchants new-key`."
            ) from None
    return keys


def _metrics_token(values: Mapping[str, str], name: str) -> str:
    """The token, if there is one; then the folder must be named in which the processes add up."""
    folder = "PROMETHEUS_MULTIPROC_DIR"
    if folder in values and not values[folder].strip():
        # prometheus-client would take it for the folder it was started in.
        raise SettingsError(f"{folder} is empty: give a folder, or leave it out.")
    if not values.get(name, "").strip():
        return ""
    if not values.get(folder):
        raise SettingsError(
            f"{folder} is not set, but {name} is: give a folder for the metrics of all the shop's "
            "processes on this host."
        )
    return _secret(values, name)
