"""Aligned columns for a terminal."""

import unicodedata
from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows with two spaces between the columns; the first row is the head."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(_width(row[column]) for row in shown) for column in range(len(shown[0]))]
    return "\n".join(
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in shown
    )


def printable(text: str) -> str:
    """What others wrote must not steer an operator's terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _width(text: str) -> int:
    """Columns on a terminal: Chinese takes two a sign."""
    return sum(2 if unicodedata.east_asian_width(sign) in {"W", "F"} else 1 for sign in text)
