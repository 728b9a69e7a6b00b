"""Child processes of the tests: started with a log, controlled by PID, never left behind.

Whatever happens (a failing test, Ctrl-C, SIGTERM to pytest), `stop_everything` runs at exit;
if pytest itself is killed with SIGKILL, the kernel sends the children their stop signal.
"""

import atexit
import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.supervise import die_with_parent

# Below the kernel's range for outgoing connections (32768 and up), so that no client of another
# test run is given the port between our look and the server's bind.
FIRST_PORT, LAST_PORT = 20_000, 32_000
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.02
LOG_TAIL_CHARS = 4_000


class MissingProgram(RuntimeError):
    """A program that the tests need is not installed: `make test` installs it."""


class ProcessFailed(RuntimeError):
    """A child process ended, or was not ready in time."""


def find_program(name: str, *extra_folders: str) -> str:
    """Path of a program. Looks in PATH and where Debian keeps servers; raises MissingProgram."""
    folders = [*extra_folders, os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin", "/sbin"]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise MissingProgram(
            f"{name} is not installed. Run `make test`, which installs what is missing, "
            "or scripts/install_system.sh."
        )
    return found


_handed_out: set[int] = set()


def free_port(span: int = 1) -> int:
    """A port on 127.0.0.1 such that it and the `span - 1` ports after it are free now.

    No port is given twice within one run; two runs at once choose at random from 12,000.
    """
    for _ in range(500):
        first = random.randrange(FIRST_PORT, LAST_PORT - span)
        ports = range(first, first + span)
        if _handed_out.isdisjoint(ports) and all(_is_free(port) for port in ports):
            _handed_out.update(ports)
            return first
    raise ProcessFailed(f"No {span} free ports between {FIRST_PORT} and {LAST_PORT}.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def port_answers(port: int) -> bool:
    """Whether something accepts connections on 127.0.0.1:port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def process_state(pid: int) -> str:
    """The kernel's letter for the state of a process (proc(5)): T stopped, Z zombie; "" if gone."""
    try:
        # The name, in brackets, may hold anything; the state follows it.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def process_exists(pid: int) -> bool:
    """Whether the process is there and is more than a zombie waiting for its parent."""
    return process_state(pid) not in {"", "Z"}


def wait_until(
    condition: Callable[[], bool], what: str, *, timeout_s: float = READY_TIMEOUT_S
) -> None:
    """Poll until the condition holds; raises ProcessFailed saying what did not come about."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ProcessFailed(f"Waited {timeout_s:g} s in vain: {what}.")
        time.sleep(POLL_S)


def http_status(url: str) -> int | None:
    """Status of a GET, or None if nobody answers. Never uses a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return None


def wait_http(
    url: str,
    *,
    status: int = 200,
    timeout_s: float = READY_TIMEOUT_S,
    process: "ManagedProcess | None" = None,
) -> None:
    """Wait until GET url answers with this status; fails at once if the process has ended."""

    def answers() -> bool:
        if process is not None:
            process.check_alive()
        return http_status(url) == status

    wait_until(answers, f"{url} answers {status}", timeout_s=timeout_s)


class ManagedProcess:
    """One child, the leader of its own session and process group, its output in a log file.

    Signals go to the whole group unless `group=False`, so that a stopped or killed gunicorn
    takes its workers along, as a host that freezes or dies would.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.env = env
        self.cwd = cwd
        self.user = user
        self.stop_signal = stop_signal
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """PID of the child started last."""
        if self._child is None:
            raise ProcessFailed(f"{self.name} was never started.")
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return None if self._child is None else self._child.poll()

    def start(self) -> Self:
        """Start it (again); the log is appended to."""
        if self._child is not None and self._child.poll() is None:
            raise ProcessFailed(f"{self.name} runs already as PID {self.pid}.")
        user = self.user
        group = None if user is None else pwd.getpwnam(user).pw_gid
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*die_with_parent(self.stop_signal), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self.env is None else dict(self.env),
                cwd=self.cwd,
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
            )
        _register(self)
        return self

    def run_to_end(self, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Start it and wait for its end; raises ProcessFailed unless it succeeds."""
        self.start()
        assert self._child is not None
        try:
            status = self._child.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.terminate()
            raise ProcessFailed(f"{self.name} was not done in {timeout_s:g} s.") from None
        if status != 0:
            raise ProcessFailed(f"{self.name} ended with {status}.\n{self.log_tail()}")

    def wait(self, *, timeout_s: float = READY_TIMEOUT_S) -> int:
        """Wait for it to end by itself and give its exit status."""
        wait_until(lambda: self.returncode is not None, f"{self.name} ends", timeout_s=timeout_s)
        assert self.returncode is not None
        return self.returncode

    def wait_ready(self, ready: Callable[[], bool], *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until ready() holds; raises ProcessFailed with the log's end if it dies first."""

        def look() -> bool:
            self.check_alive()
            return ready()

        try:
            wait_until(look, f"{self.name} is ready", timeout_s=timeout_s)
        except ProcessFailed as error:
            raise ProcessFailed(f"{error}\n{self.log_tail()}") from None

    def check_alive(self) -> None:
        """Raise ProcessFailed, with the end of the log, if it has ended."""
        if self.returncode is not None:
            raise ProcessFailed(f"{self.name} ended with {self.returncode}.\n{self.log_tail()}")

    def log_text(self) -> str:
        """All that it has written so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self) -> str:
        """The last of what it has written."""
        return self.log_text()[-LOG_TAIL_CHARS:]

    def send(self, which: signal.Signals, *, group: bool = True) -> None:
        """Send a signal; one that has ended already is no error."""
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(self.pid, which)
            elif self.returncode is None:
                os.kill(self.pid, which)

    def sigstop(self, *, group: bool = True) -> None:
        """Freeze it, as a long pause of its host would."""
        self.send(signal.SIGSTOP, group=group)

    def sigcont(self, *, group: bool = True) -> None:
        """Let it go on."""
        self.send(signal.SIGCONT, group=group)

    def kill9(self, *, group: bool = True) -> None:
        """End it with SIGKILL and wait until it is gone."""
        self.send(signal.SIGKILL, group=group)
        if self._child is not None:
            self._child.wait(timeout=STOP_TIMEOUT_S)

    def terminate(self, *, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Ask it to end, then make it; the whole group is gone afterwards. Gives its status."""
        if self._child is None:
            return 0
        self.sigcont()
        self.send(self.stop_signal, group=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=timeout_s)
        self.send(signal.SIGKILL)  # whatever of the group did not follow
        status = self._child.wait(timeout=STOP_TIMEOUT_S)
        _running.discard(self)
        return status

    def __enter__(self) -> Self:
        return self if self._child is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.terminate()


_running: set[ManagedProcess] = set()
_folders: set[Path] = set()
_owner_pid = os.getpid()


def _register(process: ManagedProcess) -> None:
    _running.add(process)


def make_folder(name: str, *, user: str | None = None) -> Path:
    """A private temporary folder, removed at the end; its path is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix=f"payonce-{name}-"))
    _folders.add(folder)
    if user is not None:
        shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a folder made by make_folder."""
    shutil.rmtree(folder, ignore_errors=True)
    _folders.discard(folder)


def stop_everything() -> None:
    """Stop every child and remove every folder. A forked copy of the test process does nothing."""
    if os.getpid() != _owner_pid:
        return
    for process in list(_running):
        process.terminate()
    for folder in list(_folders):
        remove_folder(folder)


atexit.register(stop_everything)
