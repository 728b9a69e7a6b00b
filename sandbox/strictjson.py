"""What Python's JSON reader lets through and the gateways do not."""

from typing import NoReturn


def no_constant(name: str) -> NoReturn:
    """For `parse_constant`: NaN and Infinity are no JSON (RFC 8259, section 6)."""
    raise ValueError(f"{name} is no JSON")


def is_text(value: str) -> bool:
    """Whether it can be written as UTF-8: JSON can escape half of a surrogate pair alone."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
