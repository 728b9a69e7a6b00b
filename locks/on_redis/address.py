"""The URLs of the Redis lock, and what they say."""

from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlencode

from locks.errors import LockConfigError
from locks.on_redis.link import Endpoint
from locks.url_parts import check_options, hosts_and_ports, number, split_url

REDIS_PORT, SENTINEL_PORT = 6379, 26379
# What may follow the question mark. Time-outs and retries are ours to bound, not the URL's.
_TLS_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}
_OPTIONS = {"db", "wait_replicas", *_TLS_OPTIONS}
_SENTINEL_OPTIONS = {"sentinel_user", "sentinel_password"}
_BOOLEANS = {"true", "false", "1", "0", "yes", "no"}
# More replicas than this would make every lease wait for the slowest of many.
MAX_WAIT_REPLICAS = 5
# Redis keeps the number of its databases in 31 bits.
_MAX_DATABASE = 2**31 - 1
_EXAMPLES = {
    "": "host:6379/0",
    "sentinel": "h1:26379,h2:26379,h3:26379/service/0",
    "cluster": "h1:7000,h2:7000,h3:7000",
}


@dataclass(frozen=True)
class RedisAddress:
    """Where the lock's Redis is."""

    servers: tuple[Endpoint, ...]
    """The one server, or some nodes of the cluster, or the sentinels."""
    is_cluster: bool = False
    master: Endpoint | None = None
    """With sentinels: how to log in at the master, whose host and port they tell."""
    service: str = ""
    """With sentinels: the name under which they know the master."""
    wait_replicas: int = 0
    """How many replicas must confirm a grant before it counts."""


def parse_redis_url(url: str) -> RedisAddress:
    """Raises LockConfigError, which never quotes a password.

    redis://user:password@host:6379/0          rediss:// for TLS
    unix:///run/redis.sock?db=0
    redis+sentinel://user:password@h1:26379,h2:26379/service/0?sentinel_password=…
    redis+cluster://user:password@h1:7000,h2:7000
    """
    parts = split_url(url)
    kind = parts.scheme.partition("+")[2]
    known = _OPTIONS | _SENTINEL_OPTIONS if kind == "sentinel" else _OPTIONS
    options = check_options(parts, known)
    _check_tls(parts, options)
    if parts.scheme == "unix":
        return _socket(parts, options)
    if "@" in parts.path:
        raise LockConfigError("In a user or password write %2F for / and %40 for @.")
    example = f"{parts.scheme}://{_EXAMPLES[kind]}"
    userinfo, _, hosts = parts.netloc.rpartition("@")
    if not hosts:
        raise LockConfigError(f"It names no host. Write {example}.")
    if userinfo and ":" not in userinfo:
        raise LockConfigError("It has a user but no password. Write user:password@host.")
    port = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    places = hosts_and_ports(
        hosts,
        port,
        f"A host and its port (1 to 65535) cannot be read. Write {example}, with user:password@ "
        "before it if there are any; a slash in a password is %2F.",
    )
    if kind == "sentinel":
        return _with_sentinels(parts, options, userinfo, places)
    database = _database(parts.path, options)
    if kind == "cluster" and database:
        raise LockConfigError("A Redis Cluster has the database 0 only.")
    if kind == "" and len(places) > 1:
        raise LockConfigError(
            "It names several hosts. Write redis+sentinel:// or redis+cluster:// for what they are."
        )
    servers = tuple(_server(parts, options, userinfo, place, database) for place in places)
    return RedisAddress(servers, kind == "cluster", wait_replicas=_wait_replicas(options))


def _socket(parts: SplitResult, options: dict[str, str]) -> RedisAddress:
    if parts.hostname or not parts.path.strip("/"):
        raise LockConfigError("It names no socket. Write unix:///run/redis.sock?db=0.")
    url = f"unix://{parts.netloc}{parts.path}?db={_database('', options)}"
    return RedisAddress((_endpoint(url),), wait_replicas=_wait_replicas(options))


def _with_sentinels(
    parts: SplitResult, options: dict[str, str], userinfo: str, places: list[tuple[str, int]]
) -> RedisAddress:
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise LockConfigError(
            "It does not say which master the sentinels are asked for. "
            f"Write {parts.scheme}://{_EXAMPLES['sentinel']}."
        )
    # Sentinels are let in by their own user and password, and speak TLS if Redis does.
    user, password = options.get("sentinel_user", ""), options.get("sentinel_password", "")
    own = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return RedisAddress(
        tuple(_server(parts, options, own, place, 0) for place in places),
        master=_server(parts, options, userinfo, places[0], _database(database, options)),
        service=unquote(service),
        wait_replicas=_wait_replicas(options),
    )


def _server(
    parts: SplitResult,
    options: dict[str, str],
    userinfo: str,
    place: tuple[str, int],
    database: int,
) -> Endpoint:
    host, port = place
    if ":" in host:
        host = f"[{host}]"
    tls = urlencode({name: options[name] for name in sorted(_TLS_OPTIONS & set(options))})
    scheme = parts.scheme.partition("+")[0]
    return _endpoint(f"{scheme}://{userinfo}@{host}:{port}/{database}?{tls}")


def _endpoint(url: str) -> Endpoint:
    try:
        return Endpoint.of_url(url)
    except ValueError:  # whose text may quote a password
        raise LockConfigError("redis-py cannot read it: see its hosts and its options.") from None


def _check_tls(parts: SplitResult, options: dict[str, str]) -> None:
    if not parts.scheme.startswith("rediss"):
        for name in sorted(_TLS_OPTIONS & set(options)):
            raise LockConfigError(f"The option {name!r} is for TLS only. Write rediss://.")
    if options.get("ssl_check_hostname", "true").lower() not in _BOOLEANS:
        raise LockConfigError("ssl_check_hostname is true or false.")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise LockConfigError("It has an ssl_keyfile, but no ssl_certfile that belongs to it.")


def _database(path: str, options: dict[str, str]) -> int:
    """From the path or, as redis-py has it, from the option `db`, which counts for more."""
    database = number(options.get("db", path.strip("/")) or "0", _MAX_DATABASE)
    if database is None:
        # Not quoted: after a password that has a bare slash, it is the password's end.
        raise LockConfigError("Redis databases (db) are numbers: redis://host:6379/0.")
    return database


def _wait_replicas(options: dict[str, str]) -> int:
    replicas = number(options.get("wait_replicas", "0"), MAX_WAIT_REPLICAS)
    if replicas is None:
        raise LockConfigError(f"wait_replicas is 0 to {MAX_WAIT_REPLICAS}.")
    return replicas
