"""Where `make run` lives: its folder and its addresses, found to be usable before it starts."""

import fcntl
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_PORT = 8_000


class CannotStart(Exception):
    """What was asked for is not possible; the message says what to change."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this run lives: its folder and its addresses."""

    data: Path
    host: str
    port: int

    @property
    def sandbox_port(self) -> int:
        """The sandbox listens one port above the shop."""
        return self.port + 1

    @property
    def reachable_host(self) -> str:
        """The host to call ourselves by, which is not the wildcard we may listen on."""
        return "127.0.0.1" if self.host in {"", "0.0.0.0"} else self.host  # noqa: S104 - compared

    @property
    def sandbox_url(self) -> str:
        """Where the sandbox is reached."""
        return f"http://{self.reachable_host}:{self.sandbox_port}"

    @property
    def own_url(self) -> str:
        """Where the shop is reached without any proxy."""
        return f"http://{self.reachable_host}:{self.port}"

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> "Place":
        """Read DATA_DIR, HOST and PORT. Raises CannotStart."""
        text = env.get("PORT") or str(DEFAULT_PORT)
        is_number = text.isascii() and text.isdigit() and len(text) < 10
        if not is_number or not 1 <= int(text) <= 65_534:
            raise CannotStart(f"PORT={text}: give a number from 1 to 65534, as in PORT=9000.")
        data = Path(env.get("DATA_DIR") or "var")
        return cls(
            data=(ROOT / data).resolve(), host=env.get("HOST") or "127.0.0.1", port=int(text)
        )


def check_ports(place: Place) -> None:
    """Raise CannotStart naming the port that is taken, or the host that is none of ours."""
    for port, whose in ((place.port, "the shop"), (place.sandbox_port, "the sandbox gateways")):
        with socket.socket() as probe:
            # As gunicorn does it: what a run that has just ended leaves behind is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                # Port 0 asks only whether the host is ours, whatever is said of the port.
                with socket.socket() as any_port:
                    any_port.bind((place.host, 0))
            except (OSError, UnicodeError):
                raise CannotStart(
                    f"HOST={place.host}: this machine has no such IPv4 address or name; give "
                    "127.0.0.1 (this machine alone) or 0.0.0.0 (all that can reach it)."
                ) from None
            try:
                probe.bind((place.host, port))
            except OSError as error:
                raise CannotStart(
                    f"Port {port}, wanted for {whose}, cannot be had ({error.strerror}).\n"
                    f"Choose another: make run {_elsewhere(place)}"
                ) from None


def _elsewhere(place: Place) -> str:
    """Arguments for a run beside whatever is in the way; a run in our folder keeps the folder."""
    port = 9_000 if place.port < 9_000 else place.port + 1_000
    if port > 65_534:
        port = DEFAULT_PORT
    return f"PORT={port}" + (f" DATA_DIR={_folder_beside(place, port)}" if _held(place) else "")


def _folder_beside(place: Place, port: int) -> Path:
    """A folder in the data folder, which is as writable, and as invisible to git."""
    folder = place.data / str(port)
    return folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder


def _held(place: Place) -> bool:
    """Whether another run has claimed the data folder."""
    try:
        with (place.data / "run.lock").open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def prepare_folder(place: Place) -> None:
    """Make the data folder and, at first start, the secret key in it. Raises CannotStart."""
    try:
        place.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_secret_key(place.data)
    except OSError as error:
        raise CannotStart(
            f"DATA_DIR={place.data}: cannot be made or written in ({error.strerror}); give a "
            "folder of yours, as in make run DATA_DIR=var."
        ) from None


def hold_folder(place: Place) -> IO[str]:
    """Claim the data folder for this run, as long as the file given back is open.

    Raises CannotStart if another run has it: two would hand out each other's addresses.
    """
    lock = (place.data / "run.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise CannotStart(
            f"Another run is using {place.data}.\nEnd it, or choose another folder: make run "
            f"PORT={place.port} DATA_DIR={_folder_beside(place, place.port)}"
        ) from None
    return lock


def _make_secret_key(data: Path) -> None:
    """Make DATA_DIR/secret_key, readable by its owner only, whole or not at all."""
    target = data / "secret_key"
    if target.exists():
        return
    draft = data / f"secret_key.{os.getpid()}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(48) + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target)
