"""Several processes run as one: started together, their output on one screen, ended together.

Made for `make run`. (honcho, which is for this, starts each process by a shell, and from its code
it would leave children behind if Ctrl-C came before all of them had reported their PID.)
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

# A little more than gunicorn's own graceful_timeout (config/gunicorn.conf.py).
STOP_TIMEOUT_S = 15.0
POLL_S = 0.1
# Under which the supervisor itself speaks.
OWN_NAME = "payonce"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """The user asked for the end while nothing was being supervised yet."""


class StopRequest:
    """Counts the stop signals. Before supervision they raise Stopped, then they are only noted."""

    def __init__(self) -> None:
        self.count = 0
        self._raises = True

    def install(self) -> None:
        """Take over SIGINT and SIGTERM, and SIGHUP unless nohup has it ignored."""
        for number in STOP_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)

    def only_note(self) -> None:
        """From now on do not raise, so that no child is lost between its start and our list."""
        self._raises = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self._raises:
            raise Stopped


def die_with_parent(which: signal.Signals = signal.SIGTERM) -> list[str]:
    """Command prefix that has the kernel send `which` to the child when we die by any cause.

    Linux only, by setpriv of util-linux; empty elsewhere. The kernel ties it to the parent
    *thread* (prctl(2), PR_SET_PDEATHSIG), so it is empty off the main thread: there the child
    would end with the thread that started it.
    """
    program = shutil.which("setpriv")
    if program is None or threading.current_thread() is not threading.main_thread():
        return []
    return [program, "--pdeathsig", which.name.removeprefix("SIG"), "--"]


@dataclass
class Child:
    """One process of the group: its name on the screen, its command and environment."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    process: subprocess.Popen[str] | None = field(default=None, init=False)

    def start(self, cwd: Path) -> IO[str] | None:
        """Start it in a session of its own, so that Ctrl-C in the terminal reaches us alone.

        Gives its output to be read.
        """
        self.process = subprocess.Popen(
            [*die_with_parent(), *self.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(self.env),
            cwd=cwd,
            start_new_session=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        return self.process.stdout

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs or before."""
        return None if self.process is None else self.process.poll()

    def signal(self, which: signal.Signals, *, group: bool = False) -> None:
        """Send it, or all its group, a signal; one that is gone already is no error."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(self.process.pid, which)
            elif self.process.poll() is None:
                self.process.send_signal(which)


class Supervisor:
    """Runs children until a stop signal comes or one of them ends; then ends them all."""

    def __init__(self, children: Sequence[Child], stop: StopRequest, *, cwd: Path) -> None:
        self.children = children
        self.stop = stop
        self.cwd = cwd
        self._width = max(len(name) for name in (OWN_NAME, *(child.name for child in children)))
        self._screen = threading.Lock()
        self._readers: list[threading.Thread] = []

    def run(self) -> int:
        """0 after a stop signal, 1 after a child ended by itself. No child is left either way."""
        self.stop.only_note()
        failed: Child | None = None
        try:
            for child in self.children:
                if self.stop.count:
                    break
                self._relay(child.name, child.start(self.cwd))
            while not self.stop.count and failed is None:
                failed = next((c for c in self.children if c.status is not None), None)
                time.sleep(POLL_S)
        finally:
            self._end_all()
        if failed is None:
            return 0
        self.say(f"{failed.name} {describe_status(failed.status)}; all others were stopped.")
        return 1

    def say(self, text: str, *, name: str = OWN_NAME) -> None:
        """Write lines to the screen under a name, never mixed with another's line."""
        with self._screen, contextlib.suppress(OSError):  # the terminal may be gone
            for line in text.splitlines() or [""]:
                sys.stdout.write(f"{name:{self._width}} | {line}\n")
            sys.stdout.flush()

    def _relay(self, name: str, output: IO[str] | None) -> None:
        if output is not None:
            reader = threading.Thread(target=self._copy, args=(name, output), daemon=True)
            reader.start()
            self._readers.append(reader)

    def _copy(self, name: str, output: IO[str]) -> None:
        for line in output:
            self.say(line.rstrip("\n"), name=name)

    def _end_all(self) -> None:
        """Ask, wait, then kill. A second Ctrl-C does not wait any longer."""
        asked = self.stop.count
        for child in self.children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while any(child.process and child.status is None for child in self.children):
            if self.stop.count > max(asked, 1) or time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        for child in self.children:
            if child.process is not None:
                if child.status is None:
                    self.say(f"{child.name} did not end when asked: killed.")
                # Also whatever of its group is left without its leader.
                child.signal(signal.SIGKILL, group=True)
                child.process.wait()
        for reader in self._readers:
            reader.join(timeout=1.0)


def describe_status(status: int | None) -> str:
    """An exit status in words."""
    if status is not None and status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended by itself with status {status}"
