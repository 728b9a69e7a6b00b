"""Members, as the applications of WeChat know them: one number per application and member."""

import hashlib
import sqlite3

DEMO_MEMBER = "demo"
OPENID_CHARS = 28


def openid_of(appid: str, member: str = DEMO_MEMBER) -> str:
    """The same each time, and another one for another application or member."""
    digest = hashlib.sha256(f"{appid}/{member}".encode()).hexdigest()
    return f"o{digest[: OPENID_CHARS - 1]}"


def meet(tx: sqlite3.Connection, appid: str, member: str) -> str:
    """Give the application the member's number: from now on it may ask this member for money."""
    openid = openid_of(appid, member)
    tx.execute(
        "INSERT INTO openids (openid, appid, member) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (openid, appid, member),
    )
    return openid


def known(tx: sqlite3.Connection, appid: str, openid: str) -> bool:
    """Whether the sandbox gave this number to this application."""
    found = tx.execute("SELECT 1 FROM openids WHERE openid = ? AND appid = ?", (openid, appid))
    return found.fetchone() is not None
