"""How the gateways treat a merchant: a few choices per merchant, changed while they run.

`wechatpay_notices`: what signs WeChat Pay's notices; `both` is the migration from certificates to
the public key, where either may come (here by turns). `wechatpay_certificates`: `no` for a merchant
that has only the public key, for whom /v3/certificates has nothing. `wechatpay_next_refund`: what
becomes of the next refund that WeChat Pay accepts; used up by it.
"""

import sqlite3

# The first of each is the default.
CHOICES: dict[str, tuple[str, ...]] = {
    "wechatpay_notices": ("public_key", "certificate", "both"),
    "wechatpay_certificates": ("yes", "no"),
    "wechatpay_next_refund": ("success", "abnormal", "closed"),
}


class BadSetting(ValueError):
    """No such setting, or no such choice."""


def get(tx: sqlite3.Connection, merchant: str, name: str) -> str:
    """What is chosen."""
    row = tx.execute(
        "SELECT value FROM merchant_settings WHERE merchant = ? AND name = ?", (merchant, name)
    ).fetchone()
    return CHOICES[name][0] if row is None else str(row["value"])


def put(tx: sqlite3.Connection, merchant: str, name: str, value: str) -> None:
    """Choose. Raises BadSetting, which names what there is."""
    if name not in CHOICES:
        raise BadSetting(f"setting {name!r}: give one of {', '.join(CHOICES)}")
    if value not in CHOICES[name]:
        raise BadSetting(f"{name}={value!r}: give one of {', '.join(CHOICES[name])}")
    tx.execute(
        "INSERT INTO merchant_settings (merchant, name, value) VALUES (?, ?, ?)"
        " ON CONFLICT (merchant, name) DO UPDATE SET value = excluded.value",
        (merchant, name, value),
    )


def take(tx: sqlite3.Connection, merchant: str, name: str) -> str:
    """What is chosen; from now on it is the default again."""
    chosen = get(tx, merchant, name)
    tx.execute("DELETE FROM merchant_settings WHERE merchant = ? AND name = ?", (merchant, name))
    return chosen


def of(tx: sqlite3.Connection, merchant: str) -> dict[str, str]:
    """All of a merchant's."""
    return {name: get(tx, merchant, name) for name in CHOICES}
