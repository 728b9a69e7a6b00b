"""Money as integers: fen (1/100 yuan) and points, two distinct types.

Nothing in this project holds money as a float. Conversions from the gateways' yuan strings are
exact or refused.
"""

import re
from typing import NewType

Fen = NewType("Fen", int)
Points = NewType("Points", int)

FEN_PER_POINT = 1
"""What one point pays for where points stand in for cash. A whole number, so that a split of
points and cash never rounds."""

_YUAN = re.compile(r"(-?)(\d{1,13})(?:\.(\d{1,2}))?")


def yuan_text(amount_fen: int) -> str:
    """The amount as the gateways write it: `8888` fen is `"88.88"`."""
    sign = "-" if amount_fen < 0 else ""
    return f"{sign}{abs(amount_fen) // 100}.{abs(amount_fen) % 100:02d}"


def fen_from_yuan(text: str) -> Fen:
    """Read a yuan amount such as `"88.88"`, `"88.8"` or `"88"`, exactly.

    Raises ValueError for anything else, a third decimal included: rounding would make or lose
    money.
    """
    match = _YUAN.fullmatch(text.strip())
    if match is None or not text.isascii():
        raise ValueError(f"not an amount in yuan with at most two decimals: {text!r}")
    sign, yuan, cents = match.groups()
    fen = int(yuan) * 100 + int((cents or "").ljust(2, "0"))
    return Fen(-fen if sign else fen)
