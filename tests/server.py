"""What every server of the tests has in common: a free port, a folder, a process, an end."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.processes import ManagedProcess, ProcessFailed, free_port, make_folder, remove_folder

# Another run may take a port in the instant between our look and the server's bind.
START_ATTEMPTS = 3


class Server(ABC):
    """One server process with its folder. `start` may be called again after `process.kill9()`."""

    name: str
    user: str | None = None

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = make_folder(self.name, user=self.user)
        self.process = self._new_process()
        self._prepared = False

    @property
    def log(self) -> Path:
        """Where the server's output goes."""
        return self.folder / f"{self.name}.log"

    @abstractmethod
    def command(self) -> list[str]:
        """Program and arguments, for self.port and self.folder."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it answers in its own protocol."""

    def prepare(self) -> None:  # noqa: B027 - most servers have nothing to prepare
        """Make the data folder, once."""

    def environment(self) -> dict[str, str]:
        """A small, fixed environment: the tester's settings must not reach the server."""
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}

    def _new_process(self) -> ManagedProcess:
        return ManagedProcess(
            self.name,
            self.command(),
            log=self.log,
            env=self.environment(),
            cwd=self.folder,
            user=self.user,
        )

    def start(self) -> Self:
        """Start and wait until it answers. Raises ProcessFailed with the log's end."""
        if self._prepared:
            self.process.start().wait_ready(self.is_ready)
            return self
        self.prepare()
        self._prepared = True
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self.process.start().wait_ready(self.is_ready)
            except ProcessFailed:
                self.process.terminate()
                if attempt == START_ATTEMPTS:
                    raise
                self.port = free_port()
                self.process = self._new_process()
            else:
                break
        return self

    def stop(self) -> None:
        """Stop it and remove its data."""
        self.process.terminate()
        remove_folder(self.folder)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
