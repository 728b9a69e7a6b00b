"""The host's name, for an operator's eyes."""

import re
import socket
from functools import cache

# RFC 1035: a label of a host's name has at most so many signs.
MAX_HOST_SIGNS = 63


@cache
def host_name() -> str:
    """In ASCII, whatever bytes the host calls itself by, and never empty."""
    return re.sub(r"[^0-9A-Za-z._-]", "-", socket.gethostname())[:MAX_HOST_SIGNS] or "-"
