"""Fen (integers) and Alipay's yuan strings. No floats anywhere."""

import re
from decimal import Decimal

_YUAN = re.compile(r"(\d{1,9})(?:\.(\d{1,2}))?", re.ASCII)
# Alipay's bounds for an amount: 0.01 to 100,000,000 yuan.
MAX_FEN = 100_000_000_00


def yuan(fen: int) -> str:
    """8888 -> "88.88"."""
    return f"{fen // 100}.{fen % 100:02d}"


def parse_yuan(value: object) -> int | None:
    """Fen of "88.88", "88.8" or "88"; None for anything else, and for amounts out of bounds.

    JSON numbers are taken too (as int or Decimal), as the real gateway does.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    found = _YUAN.fullmatch(str(value))
    if not found:
        return None
    fen = int(found[1]) * 100 + int((found[2] or "0").ljust(2, "0"))
    return fen if 1 <= fen <= MAX_FEN else None
