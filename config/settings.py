"""One frozen, typed `Settings`, read from the environment and checked at start.

Every name in the environment is listed here and in the README's table. Units stand last in the
names. A wrong value stops the start with a sentence that says which one, and how to mend it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOCK_UNAVAILABLE = ("refuse", "database")
# The databases that the shop is tested on, each with the driver that requirements.txt brings.
DATABASE_DRIVERS = ("sqlite", "postgresql+psycopg", "mysql+pymysql", "mariadb+pymysql")


class SettingsError(ValueError):
    """The configuration is wrong."""


@dataclass(frozen=True, kw_only=True)
class WeChatPaySettings:
    """One WeChat Pay merchant in public-key mode (APIv3). Key material is read from files."""

    base_url: str
    mchid: str
    appid: str
    cert_serial: str
    private_key_pem: str = field(repr=False)
    apiv3_key: str = field(repr=False)
    public_key_id: str
    public_key_pem: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class AlipaySettings:
    """One Alipay application in public-key mode (RSA2). Key material is read from files."""

    base_url: str
    app_id: str
    seller_id: str
    private_key_pem: str = field(repr=False)
    public_key_pem: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that can be configured. Times carry their unit in the name."""

    database_url: str = field(repr=False)
    lock_url: str = field(repr=False)
    secret_key: str = field(repr=False)
    public_url: str
    wechatpay: WeChatPaySettings
    alipay: AlipaySettings
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
    order_expiry_s: int = 1_800
    # First look of the sweeper at a payment that nobody heard of since.
    sweep_first_ms: int = 5_000
    sweep_interval_ms: int = 1_000
    log_level: str = "INFO"
    # Who asks for /metrics must say it; without one there is no such page.
    metrics_token: str = field(default="", repr=False)
    # Read from the environment by prometheus-client itself, too.
    metrics_folder: str = ""

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
        port=_number("PORT", values.get("PORT") or str(WebSettings.port), 1, 65_535),
        workers=_number(
            "WEB_WORKERS", values.get("WEB_WORKERS") or str(WebSettings.workers), 1, 256
        ),
        threads=_number(
            "WEB_THREADS", values.get("WEB_THREADS") or str(WebSettings.threads), 1, 256
        ),
        forwarded_allow_ips=_networks(values, "FORWARDED_ALLOW_IPS"),
    )


def load_settings(env: Mapping[str, str] | None = None) -> Settings:
    """Read the environment. Raises SettingsError naming the variable that is missing or wrong."""
    values = os.environ if env is None else env
    settings = Settings(
        database_url=_database_url(values, "DATABASE_URL"),
        lock_url=_required(values, "LOCK_URL", "redis://…, zookeeper://… or file:///…"),
        secret_key=_secret(values, "SECRET_KEY"),
        public_url=_url(values, "PUBLIC_URL", None),
        wechatpay=WeChatPaySettings(
            base_url=_url(values, "WECHATPAY_BASE_URL", "https://api.mch.weixin.qq.com"),
            mchid=_required(values, "WECHATPAY_MCHID", "the merchant number"),
            appid=_required(values, "WECHATPAY_APPID", "the application bound to the merchant"),
            cert_serial=_required(
                values, "WECHATPAY_CERT_SERIAL", "the merchant certificate's serial number"
            ),
            private_key_pem=_file(values, "WECHATPAY_PRIVATE_KEY_FILE"),
            apiv3_key=_file(values, "WECHATPAY_APIV3_KEY_FILE").strip(),
            public_key_id=_required(values, "WECHATPAY_PUBLIC_KEY_ID", "PUB_KEY_ID_…"),
            public_key_pem=_file(values, "WECHATPAY_PUBLIC_KEY_FILE"),
        ),
        alipay=AlipaySettings(
            base_url=_url(values, "ALIPAY_BASE_URL", "https://openapi.alipay.com/gateway.do"),
            app_id=_required(values, "ALIPAY_APP_ID", "the application's number"),
            seller_id=_required(values, "ALIPAY_SELLER_ID", "the seller's account, 2088…"),
            private_key_pem=_file(values, "ALIPAY_PRIVATE_KEY_FILE"),
            public_key_pem=_file(values, "ALIPAY_PUBLIC_KEY_FILE"),
        ),
        lock_unavailable=_choice(values, "LOCK_UNAVAILABLE", LOCK_UNAVAILABLE),
        log_level=_log_level(values, "LOG_LEVEL"),
        metrics_token=_metrics_token(values, "METRICS_TOKEN"),
        metrics_folder=values.get("PROMETHEUS_MULTIPROC_DIR", ""),
    )
    return replace(settings, **_numbers(values))


_NUMBERS = {
    "LOCK_LEASE_MS": (1_000, 600_000),
    "LOCK_WAIT_MS": (0, 30_000),
    "WEBHOOK_LOCK_WAIT_MS": (0, 4_000),
    "GATEWAY_CONNECT_TIMEOUT_MS": (100, 30_000),
    "GATEWAY_READ_TIMEOUT_MS": (100, 60_000),
    "ORDER_EXPIRY_S": (10, 7 * 86_400),
    "SWEEP_FIRST_MS": (100, 600_000),
    "SWEEP_INTERVAL_MS": (50, 600_000),
}


def _numbers(values: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, int] = {}
    for name, (low, high) in _NUMBERS.items():
        text = values.get(name)
        if text is None:
            continue
        found[name.lower()] = _number(name, text, low, high)
    return found


def _number(name: str, text: str, low: int, high: int) -> int:
    # A number of so many digits is too large, and int() refuses thousands of them in its own way.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise SettingsError(f"{name}={text!r}: give a whole number from {low} to {high}.")
    return int(text)


def _choice(values: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    """One of the words, in any case; the first where nothing is given."""
    text = values.get(name, "").strip() or choices[0]
    if text.lower() not in choices:
        raise SettingsError(f"{name}={text!r}: give one of {', '.join(choices)}.")
    return text.lower()


def _log_level(values: Mapping[str, str], name: str) -> str:
    text = values.get(name) or "INFO"
    if text.upper() not in LOG_LEVELS:
        raise SettingsError(f"{name}={text!r}: give one of {', '.join(LOG_LEVELS)}.")
    return text.upper()


def _database_url(values: Mapping[str, str], name: str) -> str:
    """The address, unchanged. Errors quote nothing but its scheme: it may hold a password."""
    value = _required(values, name, "for example sqlite:////srv/payonce.db")
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


def _required(values: Mapping[str, str], name: str, hint: str) -> str:
    value = values.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name} is not set: give {hint}.")
    return value


def _secret(values: Mapping[str, str], name: str) -> str:
    value = _required(values, name, "at least 32 random characters")
    if len(value) < 32:
        raise SettingsError(f"{name} is too short: give at least 32 random characters.")
    return value


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


def _url(values: Mapping[str, str], name: str, default: str | None) -> str:
    value = values.get(name, default or "").strip().rstrip("/")
    try:
        parts = urlsplit(value)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of brackets that enclose no address, or a port that is no number
        is_address = False
    if not is_address:
        raise SettingsError(f"{name}={value!r}: give a full http:// or https:// address.")
    return value


def _file(values: Mapping[str, str], name: str) -> str:
    path = Path(_required(values, name, "the path of the key file"))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SettingsError(f"{name}={path}: the file is no text; give a PEM file.") from None
    except OSError as error:
        raise SettingsError(
            f"{name}={path}: cannot be read ({error.strerror}); give the path of the key file."
        ) from error
    if not text.strip():
        raise SettingsError(f"{name}={path}: the file is empty.")
    return text
