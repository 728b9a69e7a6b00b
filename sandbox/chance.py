"""Everything random in the sandbox, but for RSA keys: unguessable, or told by a seed.

Without a seed the system's source is used. With one (`SANDBOX_SEED`), two sandboxes on fresh data
folders that are asked the same things in the same order give the same numbers, nonces, tokens and
event ids; RSA keys stay random, since their maker takes no seed. One source serves the process.
"""

import random
import string
import threading

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_HEX = "0123456789abcdef"

_guard = threading.Lock()
_source: random.Random = random.SystemRandom()


def sow(seed: str | None) -> None:
    """From now on draw by this seed; None: from the system again."""
    global _source
    chosen = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311 - wanted
    with _guard:
        _source = chosen


def text(length: int, alphabet: str = ALPHABET) -> str:
    """So many letters and digits."""
    with _guard:
        return "".join(_source.choice(alphabet) for _ in range(length))


def digits(length: int) -> str:
    """So many decimal digits."""
    return text(length, string.digits)


def hexadecimal(length: int) -> str:
    """So many lower-case hexadecimal digits."""
    return text(length, _HEX)


def token() -> str:
    """What nobody guesses: about 142 bits."""
    return text(24)


def happens(probability: float) -> bool:
    """True so often."""
    with _guard:
        return _source.random() < probability
