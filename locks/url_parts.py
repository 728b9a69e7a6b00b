"""Reading LOCK_URL: what the back ends' URLs have in common. No complaint quotes a password."""

import re
from ipaddress import IPv6Address
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from locks.errors import LockConfigError

MAX_PORT = 65_535
# More digits than any number here has; int() refuses thousands of them by an error of its own.
_MAX_DIGITS = 10
_OPTION = re.compile(r"[a-z_]{1,32}")
# A colon or an at sign in it would be a piece of a user or password.
_HOST_NAME = re.compile(r"[\w.-]+")


def split_url(url: str) -> SplitResult:
    """The parts of a URL. Raises LockConfigError for what no back end can use."""
    if any(sign < " " or sign == "\x7f" for sign in url) or url != url.strip():
        # Some of these urlsplit would leave out without a word.
        raise LockConfigError(
            "It has a control character, or begins or ends with a space. Take it out."
        )
    try:
        url.encode("utf-8")
        unquote(url, errors="strict")
        parts = urlsplit(url)
    except UnicodeError:  # whose object quotes all
        raise LockConfigError(
            "It is not UTF-8, or a %XX in it is not. Write é as it is or as %C3%A9."
        ) from None
    except ValueError:  # whose text may quote a password
        raise LockConfigError("It is not a URL: its host or port cannot be read.") from None
    if "\0" in unquote(url):
        raise LockConfigError("It has a zero sign (%00), which nothing here may have.")
    if "#" in url:
        raise LockConfigError("It has a '#'; in a password or path write %23.")
    return parts


def check_options(parts: SplitResult, known: set[str]) -> dict[str, str]:
    """What follows the question mark. Raises LockConfigError for an option that is not known."""
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in known:
            allowed = f"known are {', '.join(sorted(known))}" if known else "there are none"
            raise LockConfigError(f"It has {_named(name, parts)}; {allowed}.")
    return options


def number(text: str, most: int) -> int | None:
    """The number 0 to `most` that a text of the digits 0 to 9 says; None for any other text."""
    if not (text.isascii() and text.isdecimal()) or len(text) > _MAX_DIGITS:
        return None
    return int(text) if int(text) <= most else None


def hosts_and_ports(hosts: str, default_port: int, complaint: str) -> list[tuple[str, int]]:
    """The servers of `h1:2181,h2,[::1]:2183`. Raises LockConfigError, which says the complaint."""
    return [_host_and_port(host, default_port, complaint) for host in hosts.split(",")]


def _host_and_port(text: str, default_port: int, complaint: str) -> tuple[str, int]:
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        name, port = text, str(default_port)
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
        is_host = _is_ipv6(name)
    else:
        is_host = _HOST_NAME.fullmatch(name) is not None and _can_be_looked_up(name)
    if not is_host or not number(port, MAX_PORT):
        # Not quoted: where the @ was forgotten, or a password has a bare slash, it is a password.
        raise LockConfigError(complaint)
    return name, int(port)


def _can_be_looked_up(name: str) -> bool:
    """Whether each part has 1 to 63 signs; if not, connecting would raise UnicodeError."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _named(option: str, parts: SplitResult) -> str:
    """The option by its name, unless it may be the end of a password that has a bare `?`."""
    _user, at, place = parts.netloc.rpartition("@")
    is_complete = bool(at) or ":" not in place or bool(re.search(r":[0-9]{1,5}$", place))
    if is_complete and "@" not in parts.query and _OPTION.fullmatch(option):
        return f"the option {option!r}"
    return "an option that is not known (in a user or password write %3F for ? and %40 for @)"
