"""The name of one holding: who it is, for an operator's eyes, and a part that nobody else has."""

import itertools
import os
import re
import secrets

from locks.names import host_name

# So much of a host's name tells it apart from its neighbours.
MAX_HOST_CHARS = 48
# 96 bits: no two processes ever draw the same, and nobody guesses one.
RANDOM_BYTES = 12


class Tokens:
    """Makes `host.pid.random.number`. The random part is drawn once in a process."""

    def __init__(self) -> None:
        host = re.sub("[._]", "-", host_name())[:MAX_HOST_CHARS]
        self._mine = f"{host}.{os.getpid()}.{secrets.token_hex(RANDOM_BYTES)}"
        self._numbers = itertools.count(1)

    def new(self) -> str:
        """One that was never given before. Safe to call in several threads."""
        return f"{self._mine}.{next(self._numbers)}"


def holder_of(token: str) -> str:
    """`host pid`; whatever else was found there, as it is."""
    parts = token.split(".")
    return f"{parts[0]} {parts[1]}" if len(parts) == 4 else token
