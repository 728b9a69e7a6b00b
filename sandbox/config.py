"""The sandbox's one frozen configuration, and what the environment says of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_PUBLIC_URL = "http://127.0.0.1:8001"
DEFAULT_DATA = "var/sandbox"
# A tenth of real time: a person who watches sees the second WeChat notice after 1.5 s.
DEFAULT_TIME_SCALE = 0.1


class ConfigError(ValueError):
    """The sandbox's configuration is wrong."""


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """All that can be chosen.

    `time_scale` multiplies what the *gateway* schedules: waits between notices, the least time
    between refunds, the time a refund is under way. What the merchant or the calendar sets (expiry
    of a payment, the clock window of signatures, the time-out of a notice) is never scaled.
    """

    data: Path = Path(DEFAULT_DATA)
    public_url: str = DEFAULT_PUBLIC_URL
    time_scale: float = DEFAULT_TIME_SCALE
    merchant_name: str = "Payonce"
    # With a seed everything random but RSA keys is told by it: see `chance`.
    seed: str | None = None
    # Bills of a day can be had at once; otherwise, as at the real gateways, on the next day.
    bills_at_once: bool = True
    # A receiver that has not answered by then has refused (WeChat Pay: 5 s).
    notice_timeout_s: float = 5.0
    # WeChat Pay answers a refund with PROCESSING first; it is done after this (scaled).
    refund_delay_s: float = 2.0
    # Least time between partial refunds of one trade (scaled).
    wechatpay_refund_interval_s: float = 60.0
    alipay_refund_interval_s: float = 3.0
    # How long a QR code can be scanned: 2 h at both gateways.
    code_lifetime_s: int = 7_200
    # Sources disagree on two points; both readings can be had, so that a client can be tested
    # against either: the code for closing a paid order, and closing an unknown number.
    wechatpay_close_paid_code: str = "ORDER_PAID"
    wechatpay_close_unknown_as_204: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.time_scale <= 100:
            raise ConfigError(f"SANDBOX_TIME_SCALE={self.time_scale}: give a number in (0, 100].")
        parts = urlsplit(self.public_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
            raise ConfigError(f"SANDBOX_PUBLIC_URL={self.public_url!r}: give an http(s) address.")
        if parts.path not in {"", "/"}:
            raise ConfigError(
                f"SANDBOX_PUBLIC_URL={self.public_url!r}: give no path; WeChat Pay signs the path "
                "from the root."
            )

    @property
    def base_url(self) -> str:
        """`public_url` without a slash at its end."""
        return self.public_url.rstrip("/")

    def scaled_ms(self, seconds: float) -> int:
        """Milliseconds of sandbox time for so many seconds of a gateway's schedule."""
        return round(seconds * 1_000 * self.time_scale)


def config_from_env(env: Mapping[str, str] | None = None) -> SandboxConfig:
    """Read SANDBOX_DATA, _PUBLIC_URL, _TIME_SCALE, _SEED and _BILLS_AT_ONCE. Raises ConfigError."""
    values = os.environ if env is None else env
    text = values.get("SANDBOX_TIME_SCALE", str(DEFAULT_TIME_SCALE))
    try:
        scale = float(text)
    except ValueError:
        raise ConfigError(f"SANDBOX_TIME_SCALE={text!r}: give a number.") from None
    bills = values.get("SANDBOX_BILLS_AT_ONCE", "yes")
    if bills not in {"yes", "no"}:
        raise ConfigError(f"SANDBOX_BILLS_AT_ONCE={bills!r}: give yes or no.")
    return SandboxConfig(
        data=Path(values.get("SANDBOX_DATA", DEFAULT_DATA)),
        public_url=values.get("SANDBOX_PUBLIC_URL", DEFAULT_PUBLIC_URL),
        time_scale=scale,
        seed=values.get("SANDBOX_SEED") or None,
        bills_at_once=bills == "yes",
    )
