"""What the tests of the lock library share: other processes that hold leases, and a bad network.

Run as a program it is such a process: `python -m tests.integration.locks_support hold URL KEY
LEASE_MS WAIT_MS` or `… storm URL KEY FOLDER THREADS ROUNDS`.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from locks import LeaseLock, LeaseLost, LockError, from_url, hold

ROOT = Path(__file__).resolve().parents[2]
STORM_LEASE_MS, STORM_WAIT_MS, STORM_HOLD_S = 10_000, 60_000, 0.001
END_TIMEOUT_S = 30


class Collision(AssertionError):
    """Two were inside at once."""


def storm(lock: LeaseLock, key: str, folder: Path, threads: int, rounds: int) -> None:
    """Let many threads hold the key in turn; raises Collision if two hold it at once.

    The proof is the file system's: `inside` can be made only while it does not exist. Each holder
    adds its fence to `fences`.
    """
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(rounds):
                with hold(lock, key, lease_ms=STORM_LEASE_MS, wait_ms=STORM_WAIT_MS) as lease:
                    _go_inside(folder, lease.fence)
        except (LockError, Collision) as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]


def _go_inside(folder: Path, fence: int) -> None:
    inside = folder / "inside"
    try:
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        raise Collision(f"Another was inside when fence {fence} came.") from None
    time.sleep(STORM_HOLD_S)
    with (folder / "fences").open("a") as log:
        log.write(f"{fence}\n")
    with suppress(FileNotFoundError):  # only if another one came in against the rule
        inside.unlink()


class Process:
    """Another Python process that runs this module. It can be asked, frozen and killed."""

    def __init__(self, *arguments: str | int | Path) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def listen(self) -> str:
        """Its next line; empty when it has ended."""
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    def tell(self, word: str) -> None:
        """Send it a line."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{word}\n")
        self._child.stdin.flush()

    def ask(self, word: str) -> str:
        """Send it a line and give its answer."""
        self.tell(word)
        return self.listen()

    def freeze(self) -> None:
        """SIGSTOP, and wait until it has stopped."""
        self._child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._child.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """SIGCONT."""
        self._child.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """Let it come to its end by itself; gives its exit status."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, and nobody asks for its status yet: it stays a zombie."""
        self._child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return self._child.wait(END_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.kill()
        self._child.wait(END_TIMEOUT_S)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def holder(url: str, key: str, *, lease_ms: int, wait_ms: int = 0) -> Process:
    """A process that takes the key and says `held <fence>`, or `LockTimeout`.

    It answers `check` with `held` or `lost`, and `release` with `released`.
    """
    return Process("hold", url, key, lease_ms, wait_ms)


class Proxy:
    """A TCP proxy before a server. It can lose replies, freeze, or refuse everybody."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._lose: Callable[[bytes], bool] | None = None
        self._links: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thawed = threading.Event()
        self._thawed.set()
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_reply_once(self, to: Callable[[bytes], bool]) -> None:
        """The next request for which `to` holds reaches the server, but its reply is lost and the
        connection breaks."""
        self._lose = to

    def freeze(self) -> None:
        """From now on nothing passes in either direction, and nothing breaks."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Everything passes again."""
        self._thawed.set()

    def cut(self) -> None:
        """Break all connections there are."""
        links, self._links = self._links, []
        for link in links:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        self._listener.close()
        self._thawed.set()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._links += [client, server]
            losing = threading.Event()
            for source, sink, is_request in ((client, server, True), (server, client, False)):
                threading.Thread(
                    target=self._pump, args=(source, sink, is_request, losing), daemon=True
                ).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, is_request: bool, losing: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._thawed.wait()
                if is_request and self._lose is not None and self._lose(data):
                    self._lose = None
                    losing.set()
                elif not is_request and losing.is_set():
                    self.lost += 1
                    break
                sink.sendall(data)
        for link in (source, sink):
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)


def _hold(url: str, key: str, lease_ms: str, wait_ms: str) -> None:
    lock = from_url(url)
    print("started", flush=True)
    try:
        lease = lock.acquire(key, lease_ms=int(lease_ms), wait_ms=int(wait_ms))
    except LockError as error:
        print(type(error).__name__, flush=True)
        return
    print(f"held {lease.fence}", flush=True)
    for line in sys.stdin:
        if line.strip() == "release":
            lease.release()
            print("released", flush=True)
            continue
        try:
            lease.ensure_held()
            is_held = True
        except LeaseLost:
            is_held = False
        # The two ways to learn of a loss must agree.
        agrees = is_held is not lease.lost.is_set()
        print(("held" if is_held else "lost") if agrees else "contradiction", flush=True)


def _storm(url: str, key: str, folder: str, threads: str, rounds: str) -> None:
    storm(from_url(url), key, Path(folder), int(threads), int(rounds))


if __name__ == "__main__":
    _COMMANDS: dict[str, Callable[..., None]] = {"hold": _hold, "storm": _storm}
    _COMMANDS[sys.argv[1]](*sys.argv[2:])
