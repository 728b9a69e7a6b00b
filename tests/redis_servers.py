"""Redis as it is run in production, for the tests: with TLS, behind Sentinel, as a Cluster.

    with SentinelKit() as kit:          # a master, a replica, three sentinels
        kit.master.process.kill9()
        kit.wait_for_promotion()

Like all servers of the tests they are real, on free ports of 127.0.0.1, and end with the block.
"""

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import redis

from tests.certificates import Authority
from tests.processes import find_program, free_port, wait_until
from tests.server import Server
from tests.services import RedisServer

# Under load a healthy server may be silent for a moment; a promotion for that would be a fault of
# the test. A killed one is known to be dead after this.
DOWN_AFTER_MS = 2_000
SLOTS = 16_384


class ConfiguredRedis(RedisServer):
    """A Redis with options of its own, `--name value …`, and perhaps a password."""

    def __init__(self, *options: str, password: str | None = None) -> None:
        self._options = list(options)
        self.password = password
        if password is not None:
            self._options += ["--requirepass", password, "--masterauth", password]
        super().__init__()

    def command(self) -> list[str]:
        """As RedisServer's, and then the options."""
        return [*super().command(), *self._options]

    def client(self, **options: Any) -> redis.Redis:
        """A plain client, for the test's own questions."""
        return redis.Redis(port=self.port, password=self.password, decode_responses=True, **options)

    def is_ready(self) -> bool:
        """Answers PING to one who knows the password."""
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class TlsRedis(ConfiguredRedis):
    """A Redis that speaks TLS only. It has the authority's certificate `server`, and asks its
    clients for one of the same authority if `asks_clients`."""

    def __init__(
        self, authority: Authority, *options: str, asks_clients: bool = False, **more: Any
    ) -> None:
        self._authority = authority
        self._answer = "yes" if asks_clients else "no"
        super().__init__(*options, **more)

    def command(self) -> list[str]:
        """The port is for TLS."""
        plain = super().command()
        place = plain.index("--port")
        options = _tls_options(self._authority, self.port) | {"tls-auth-clients": self._answer}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [*plain[:place], *words, *plain[place + 2 :]]

    def client(self, **options: Any) -> redis.Redis:
        """A plain client, for the test's own questions."""
        return super().client(**_tls_client(self._authority), **options)


class SentinelServer(Server):
    """One sentinel that watches one master; it speaks TLS if it has an authority's certificate."""

    name = "sentinel"

    def __init__(
        self,
        service: str,
        master: ConfiguredRedis,
        password: str,
        authority: Authority | None = None,
    ) -> None:
        self._service = service
        self._master_port, self._master_password = master.port, master.password
        self._authority = authority
        self.password = password
        super().__init__()

    def command(self) -> list[str]:
        """Writes the configuration, which the sentinel then keeps up to date itself."""
        service = self._service
        config = self.folder / "sentinel.conf"
        port = f"port {self.port}\n"
        if self._authority is not None:
            options = _tls_options(self._authority, self.port)
            port = "".join(f"{name} {value}\n" for name, value in options.items())
        config.write_text(
            f"{port}"
            "bind 127.0.0.1\n"
            f"dir {self.folder}\n"
            f"requirepass {self.password}\n"
            f"sentinel sentinel-pass {self.password}\n"
            f"sentinel monitor {service} 127.0.0.1 {self._master_port} 2\n"
            f"sentinel auth-pass {service} {self._master_password}\n"
            f"sentinel down-after-milliseconds {service} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {service} 10000\n"
        )
        return [find_program("redis-server"), str(config), "--sentinel"]

    def client(self) -> redis.Redis:
        """A plain client, for the test's own questions."""
        tls = {} if self._authority is None else _tls_client(self._authority)
        return redis.Redis(port=self.port, password=self.password, decode_responses=True, **tls)

    def is_ready(self) -> bool:
        """Answers PING."""
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def state(self) -> dict[str, Any]:
        """What it knows of the master."""
        with self.client() as client:
            state: dict[str, Any] = client.sentinel_master(self._service)
            return state


class _Kit:
    """Several servers that start and end together."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        raise NotImplementedError


class SentinelKit(_Kit):
    """A master, a replica in step with it, and three sentinels that know of each other.

    `master` and `replica` are as they were at the start. All ask for a password.
    """

    service = "shop"
    password = "red:is"
    sentinel_password = "senti/nel"

    @property
    def url(self) -> str:
        """redis+sentinel://… with both passwords."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return (
            f"redis+sentinel://default:red%3Ais@{hosts}/{self.service}/0"
            "?sentinel_password=senti%2Fnel"
        )

    def wait_for_promotion(self) -> None:
        """Until all sentinels name the former replica."""
        wait_until(
            lambda: all(
                sentinel.state()["port"] == self.replica.port for sentinel in self.sentinels
            ),
            "the sentinels name the former replica as master",
        )

    def _start(self) -> None:
        options = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
        self.master = self._stack.enter_context(ConfiguredRedis(*options, password=self.password))
        replicaof = ("--replicaof", "127.0.0.1", str(self.master.port))
        self.replica = self._stack.enter_context(
            ConfiguredRedis(*options, *replicaof, password=self.password)
        )
        wait_until(self._is_in_step, "the replica is in step")
        self.sentinels = [
            self._stack.enter_context(
                SentinelServer(self.service, self.master, self.sentinel_password)
            )
            for _ in range(3)
        ]
        wait_until(
            lambda: all(_knows_the_others(sentinel.state()) for sentinel in self.sentinels),
            "the sentinels know of each other and of the replica",
        )

    def _is_in_step(self) -> bool:
        with self.replica.client() as client:
            return bool(client.info("replication")["master_link_status"] == "up")


def _knows_the_others(state: dict[str, Any]) -> bool:
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)


class ClusterKit(_Kit):
    """Three masters, each with a third of the slots, without replicas; by TLS if there is an
    authority."""

    def __init__(self, authority: Authority | None = None) -> None:
        super().__init__()
        self._authority = authority

    @property
    def url(self) -> str:
        """redis+cluster://… that names the first node only."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def owner_of(self, slot: int) -> int:
        """The number of the node that the slot was given to at the start."""
        return min(slot * 3 // SLOTS, 2)

    def node_id(self, number: int) -> str:
        """The name by which the nodes know each other."""
        with self.nodes[number].client() as client:
            return str(client.cluster("MYID"))

    def move_slot(self, slot: int, source: int, target: int) -> None:
        """Begin to move a slot with all its keys; `finish_move` makes it known."""
        with self.nodes[source].client() as old, self.nodes[target].client() as new:
            new.cluster("SETSLOT", slot, "IMPORTING", self.node_id(source))
            old.cluster("SETSLOT", slot, "MIGRATING", self.node_id(target))
            keys = old.cluster("GETKEYSINSLOT", slot, 1_000)
            if keys:
                old.migrate("127.0.0.1", self.nodes[target].port, keys, 0, 5_000)

    def finish_move(self, slot: int, target: int) -> None:
        """The slot is the target's, and every node knows it."""
        name = self.node_id(target)
        for node in [self.nodes[target], *self.nodes]:
            with node.client() as client:
                client.cluster("SETSLOT", slot, "NODE", name)

    def _start(self) -> None:
        self._bus_ports = [free_port() for _ in range(3)]
        self.nodes = [
            self._stack.enter_context(self._node(bus_port)) for bus_port in self._bus_ports
        ]
        bounds = [number * SLOTS // 3 for number in range(4)]
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                client.cluster("SET-CONFIG-EPOCH", number + 1)
                client.cluster("ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        with self.nodes[0].client() as client:
            for other, bus_port in zip(self.nodes[1:], self._bus_ports[1:], strict=True):
                client.cluster("MEET", "127.0.0.1", other.port, bus_port)
        wait_until(lambda: all(map(_sees_all, self.nodes)), "the nodes make a cluster")

    def _node(self, bus_port: int) -> ConfiguredRedis:
        options = ["--cluster-enabled", "yes", "--cluster-port", str(bus_port)]
        options += ["--cluster-node-timeout", "5000"]
        if self._authority is not None:
            return TlsRedis(self._authority, *options)
        return ConfiguredRedis(*options)


def _sees_all(node: ConfiguredRedis) -> bool:
    with node.client() as client:
        state = client.cluster("INFO")
        return bool(
            state["cluster_state"] == "ok"
            and state["cluster_known_nodes"] == "3"
            and state["cluster_slots_ok"] == str(SLOTS)
        )


def _tls_options(authority: Authority, port: int) -> dict[str, str]:
    """TLS and nothing else, to clients, replicas and other nodes."""
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(authority.folder / "server.pem"),
        "tls-key-file": str(authority.folder / "server.key"),
        "tls-ca-cert-file": str(authority.certificate),
        "tls-auth-clients": "no",
        "tls-replication": "yes",
        "tls-cluster": "yes",
    }


def _tls_client(authority: Authority) -> dict[str, Any]:
    return {
        "ssl": True,
        "ssl_ca_certs": str(authority.certificate),
        "ssl_certfile": str(authority.folder / "server.pem"),
        "ssl_keyfile": str(authority.folder / "server.key"),
        "ssl_check_hostname": False,
    }
