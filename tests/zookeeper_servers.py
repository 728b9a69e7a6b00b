"""A real ZooKeeper ensemble of three for the tests, whose servers can be killed and started again.

with Ensemble() as ensemble:
    ensemble.leader().process.kill9()
"""

import socket
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.processes import free_port, wait_until
from tests.services import ZooKeeperServer

SIZE = 3
# Short, so that a lost leader is noticed and another one chosen soon.
TICK_MS = 200


class EnsembleServer(ZooKeeperServer):
    """One of three. Ready when it leads or follows, which takes two of them."""

    def __init__(self, number: int, members: str) -> None:
        self._number = number
        self._members = members
        super().__init__()

    def prepare(self) -> None:
        """Write who it is."""
        super().prepare()
        data = self.folder / "data"
        data.mkdir()
        (data / "myid").write_text(str(self._number))

    def command(self) -> list[str]:
        """As for a server alone, but of three."""
        *java, _, config = super().command()
        with (self.folder / "zoo.cfg").open("a") as file:
            file.write(
                f"tickTime={TICK_MS}\n"
                "initLimit=50\n"
                "syncLimit=10\n"
                "4lw.commands.whitelist=srvr,ruok,cons,stat,mntr,wchs\n"
                f"{self._members}"
            )
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return [*java, main, config]

    def is_ready(self) -> bool:
        """Whether it serves."""
        return self.mode() in ("leader", "follower")

    def mode(self) -> str:
        """`leader`, `follower`, or nothing when it does not serve."""
        return four_letters(self.port, "srvr").partition("Mode: ")[2].partition("\n")[0]


class Ensemble:
    """Three servers on free ports. `start` starts those that do not run."""

    def __init__(self) -> None:
        ports = [(free_port(), free_port()) for _ in range(SIZE)]
        members = "".join(
            f"server.{number}=127.0.0.1:{quorum}:{election}\n"
            for number, (quorum, election) in enumerate(ports, 1)
        )
        self.servers = [EnsembleServer(number, members) for number in range(1, SIZE + 1)]
        self._is_prepared = False

    @property
    def hosts(self) -> str:
        """h1:p1,h2:p2,h3:p3"""
        return ",".join(server.hosts for server in self.servers)

    def leader(self) -> EnsembleServer:
        """The one that leads now; waits for the choice."""
        found: list[EnsembleServer] = []

        def look() -> bool:
            found[:] = [server for server in self.servers if server.mode() == "leader"]
            return len(found) == 1

        wait_until(look, "there is a leader")
        return found[0]

    def followers(self) -> list[EnsembleServer]:
        """The others that run."""
        return [server for server in self.servers if server.mode() == "follower"]

    def settle(self) -> None:
        """Wait until all agree who leads; one that just woke up may believe that it does."""
        modes = sorted(["leader", *["follower"] * (SIZE - 1)])
        wait_until(
            lambda: sorted(server.mode() for server in self.servers) == modes,
            "one leads and all others follow",
        )

    def start(self) -> Self:
        """Start whoever does not run, and wait until all serve."""
        for server in self.servers:
            if not self._is_prepared:
                server.prepare()
            if server.process.returncode is not None or not self._is_prepared:
                server.process.start()
        self._is_prepared = True
        for server in self.servers:
            server.process.wait_ready(server.is_ready)
        return self

    def stop(self) -> None:
        """Stop all and remove their data."""
        for server in self.servers:
            server.stop()

    def watches(self) -> int:
        """How many watches stand, over all servers that run."""
        return sum(watches(server.port) for server in self.servers)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def four_letters(port: int, word: str) -> str:
    """A server's answer to one of its four-letter words; nothing if nobody answers."""
    answer = b""
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=2) as link,
    ):
        link.sendall(word.encode("ascii"))
        while part := link.recv(65_536):
            answer += part
    return answer.decode()


def watches(port: int) -> int:
    """How many watches a server keeps."""
    for line in four_letters(port, "mntr").splitlines():
        name, _, value = line.partition("\t")
        if name == "zk_watch_count":
            return int(value)
    return 0
