"""Reading what people and programs send."""

import re

# Larger than any amount in the shop, and far from any overflow in a database.
_WHOLE_NUMBER = re.compile(r"[0-9]{1,12}")

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def whole_number(text: str | None) -> int | None:
    """A whole number from 0 to 999,999,999,999 in plain digits, or None for anything else."""
    stripped = (text or "").strip()
    return int(stripped) if _WHOLE_NUMBER.fullmatch(stripped) else None


def submit_token(text: str | None) -> str | None:
    """A submit token as our pages make them (`filters.fresh_uuid`), or None for anything else."""
    return text if text is not None and _UUID.fullmatch(text) else None
