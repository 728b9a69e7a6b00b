"""A verified notice as text, for the inbox: what was read once need not be decrypted again."""

import json
from dataclasses import asdict
from datetime import datetime

from shop.gateways.base import Notice, NoticeKind, Outcome


def dump(notice: Notice) -> str:
    """The notice as JSON."""
    values = asdict(notice)
    values["paid_at"] = notice.paid_at.isoformat() if notice.paid_at else None
    return json.dumps(values)


def load(text: str) -> Notice:
    """Read what `dump` wrote."""
    values = json.loads(text)
    return Notice(
        **{
            **values,
            "kind": NoticeKind(values["kind"]),
            "outcome": Outcome(values["outcome"]),
            "paid_at": datetime.fromisoformat(values["paid_at"]) if values["paid_at"] else None,
        }
    )
