"""Reading single values of the configuration. What is wrong is said in a sentence that names it.

`values` is the environment, or a file of the same form.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit


class SettingsError(ValueError):
    """The configuration is wrong."""


def number(name: str, text: str, low: int, high: int) -> int:
    """A whole number within bounds. Raises SettingsError, as all of these do."""
    # A number of so many digits is too large, and int() refuses thousands of them in its own way.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise SettingsError(f"{name}={text!r}: give a whole number from {low} to {high}.")
    return int(text)


def choice(values: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    """One of the words, in any case; the first where nothing is given."""
    text = values.get(name, "").strip() or choices[0]
    for word in choices:
        if word.lower() == text.lower():
            return word
    raise SettingsError(f"{name}={text!r}: give one of {', '.join(choices)}.")


def required(values: Mapping[str, str], name: str, hint: str) -> str:
    """A value that must be there, without white space around it."""
    value = values.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name} is not set: give {hint}.")
    return value


def url(values: Mapping[str, str], name: str, default: str | None) -> str:
    """A web address without a slash at its end."""
    value = values.get(name, default or "").strip().rstrip("/")
    try:
        parts = urlsplit(value)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of brackets that enclose no address, or a port that is no number
        is_address = False
    if not is_address:
        raise SettingsError(f"{name}={value!r}: give a full http:// or https:// address.")
    return value


# Names and an ending: no key in PEM, Base64 or hexadecimal reads so.
_PLAIN_PATH = re.compile(r"/?[\w.-]{1,64}(/[\w.-]{1,64}){0,11}\.[a-z]{2,4}", re.ASCII)

# WeChat Pay, `notify_url`: at most 255 characters, no query; what we put behind is shorter than 55.
PUBLIC_URL_CHARS = 200


def public_url(values: Mapping[str, str], name: str) -> str:
    """The address of the shop, of which the gateways' `notify_url` can be made."""
    value = url(values, name, None)
    parts = urlsplit(value)
    if parts.query or parts.fragment or parts.username is not None or len(value) > PUBLIC_URL_CHARS:
        raise SettingsError(
            f"{name}: WeChat Pay sends no notices there; give scheme, host and path alone, of at "
            f"most {PUBLIC_URL_CHARS} characters."
        )
    return value


def file_text(values: Mapping[str, str], name: str) -> str:
    """The text of the file that the variable names."""
    path = Path(required(values, name, "the path of the key file"))
    text = text_in(path, f"{name}=", "the path of a PEM file, and not the key itself")
    if not text.strip():
        raise SettingsError(f"{name}={path}: the file is empty.")
    return text


def text_in(path: Path, called: str, wanted: str) -> str:
    """The text of a file. `called` begins the sentence about what is wrong, `wanted` ends it.

    Where nothing is, it may be a key that was pasted in the path's place: it is quoted only if it
    can be none.
    """
    is_path = os.path.exists(path) or _PLAIN_PATH.fullmatch(str(path))
    said = f"{called}{path}" if is_path else called.rstrip("= ")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SettingsError(f"{said}: the file is no text; give {wanted}.") from None
    except OSError as error:
        reason = error.strerror
    except ValueError:  # a zero byte within the path
        reason = "no path"
    raise SettingsError(f"{said}: cannot be read ({reason}); give {wanted}.")
