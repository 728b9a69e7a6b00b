"""Addresses that lead back into the shop, and no others."""

from urllib.parse import urlsplit


def local_path(target: str | None, fallback: str) -> str:
    """`target` if it is a path of this very host, else `fallback` (no open redirects).

    Browsers read a backslash as a slash, drop control characters, and take `//host` for another
    host (WHATWG URL Standard, "basic URL parser"); all of them are refused.
    """
    if not target or not target.startswith("/") or target.startswith("//"):
        return fallback
    if "\\" in target or any(ord(sign) <= 0x20 or ord(sign) == 0x7F for sign in target):
        return fallback
    try:
        parts = urlsplit(target)
    except ValueError:
        return fallback
    return fallback if parts.scheme or parts.netloc else target
