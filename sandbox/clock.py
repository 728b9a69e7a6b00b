"""Moments are milliseconds since the epoch; both gateways speak Beijing time."""

import re
import time
from datetime import UTC, datetime, timedelta, timezone

BEIJING = timezone(timedelta(hours=8))
_RFC3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})", re.ASCII
)
_PLAIN = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}", re.ASCII)


def now_ms() -> int:
    """This moment."""
    return time.time_ns() // 1_000_000


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1_000, UTC).astimezone(BEIJING).replace(microsecond=0)


def rfc3339(ms: int) -> str:
    """As WeChat Pay writes it: 2026-11-23T20:15:00+08:00."""
    return _moment(ms).isoformat()


def plain(ms: int) -> str:
    """As Alipay writes it, in Beijing: 2026-11-23 20:15:00."""
    return _moment(ms).strftime("%Y-%m-%d %H:%M:%S")


def day(ms: int) -> str:
    """20261123, in Beijing."""
    return _moment(ms).strftime("%Y%m%d")


def compact(ms: int) -> str:
    """20261123201500, in Beijing."""
    return _moment(ms).strftime("%Y%m%d%H%M%S")


def parse_rfc3339(text: str) -> int | None:
    """Milliseconds, or None where the text is no RFC 3339 moment with an offset."""
    if not _RFC3339.fullmatch(text):
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1_000)
    except (ValueError, OverflowError):
        return None


def parse_plain(text: str) -> int | None:
    """Milliseconds for Alipay's yyyy-MM-dd HH:mm:ss in Beijing, or None."""
    if not _PLAIN.fullmatch(text):
        return None
    try:
        moment = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=BEIJING)
        return round(moment.timestamp() * 1_000)
    except (ValueError, OverflowError):
        return None
