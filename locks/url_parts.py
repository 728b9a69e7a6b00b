"""Reading LOCK_URL: what the back ends' URLs have in common."""

from urllib.parse import SplitResult, parse_qsl

from locks.errors import LockConfigError


def check_options(parts: SplitResult, known: set[str]) -> dict[str, str]:
    """What follows the question mark. Raises LockConfigError for an option that is not known."""
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in known:
            allowed = f"known are {', '.join(sorted(known))}" if known else "there are none"
            raise LockConfigError(f"It has the option {name!r}; {allowed}.")
    if parts.fragment:
        raise LockConfigError("It has a '#'; in a password write %23.")
    return options


def hosts_and_ports(hosts: str, default_port: int, example: str) -> list[tuple[str, int]]:
    """The servers of `h1:2181,h2,[::1]:2183`. Raises LockConfigError, which shows the example."""
    return [_host_and_port(host, default_port, example) for host in hosts.split(",")]


def _host_and_port(text: str, default_port: int, example: str) -> tuple[str, int]:
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        name, port = text, str(default_port)
    if not name or not port.isdecimal() or not 0 < int(port) < 65_536:
        # Not quoted: after a password that has a bare slash, it is the password's beginning.
        raise LockConfigError(
            f"A host and its port (1 to 65535) cannot be read. Write {example}; "
            "a slash in a password is %2F."
        )
    return name.removeprefix("[").removesuffix("]"), int(port)
