"""Everything random in the sandbox, but for RSA keys: unguessable, or told by a seed.

Without a seed the system's source is used. With one (`SANDBOX_SEED`), two sandboxes on fresh data
folders that are asked the same things in the same order give the same numbers, nonces, tokens and
event ids; RSA keys stay random, since their maker takes no seed. One source serves the process.
"""

import random
import secrets
import string
import threading

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_HEX = "0123456789abcdef"

_guard = threading.Lock()
_source: random.Random = random.SystemRandom()
_seed = secrets.token_hex()


def sow(seed: str | None) -> None:
    """From now on draw by this seed; None: from the system again."""
    global _source, _seed
    chosen = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311 - wanted
    with _guard:
        _source = chosen
        _seed = seed or secrets.token_hex()


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


def happens(probability: float, occasion: str) -> bool:
    """True so often. It hangs on the seed and the occasion alone, not on what was drawn before, so
    that calls at the same time do not decide each other's fate."""
    return random.Random(f"{_seed}:{occasion}").random() < probability  # noqa: S311 - wanted
