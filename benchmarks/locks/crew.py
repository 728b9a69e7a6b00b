"""The processes that hold and wait: started once, given one lock after the other to work with."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from benchmarks.locks.contenders import WAIT_S, Contender
from benchmarks.locks.figures import Turn
from scripts.supervise import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
SIZE = 16
ANSWER_TIMEOUT_S = WAIT_S + 30.0
END_TIMEOUT_S = 10.0
# The kernel's name for the CPU clock of another process (clock_getcpuclockid(3)): ~pid, then the
# kind of clock in the last three bits, where 2 is the scheduler's own account in nanoseconds.
_CPU_CLOCK_OF_A_PROCESS = 2


class WorkerFailed(RuntimeError):
    """A process of the crew did not do what it was told."""


class Worker:
    """One process (see benchmarks.locks.worker)."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [*die_with_parent(signal.SIGKILL), sys.executable, "-m", "benchmarks.locks.worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the parent's alone
        )
        self._rest = b""

    def tell(self, do: str, **arguments: object) -> None:
        """Give a command; its answer must be fetched before the next."""
        line = json.dumps({"do": do, **arguments}) + "\n"
        try:
            os.write(self._pipe_in(), line.encode("utf-8"))
        except BrokenPipeError:
            raise WorkerFailed("a process of the crew has ended") from None

    def answer(self) -> dict[str, Any]:
        """The answer to the last command. Raises WorkerFailed, for an error or for silence."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while b"\n" not in self._rest:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._pipe_out()], [], [], left_s)[0]:
                raise WorkerFailed(f"no answer within {ANSWER_TIMEOUT_S:g} s")
            chunk = os.read(self._pipe_out(), 1 << 16)
            if not chunk:
                raise WorkerFailed("a process of the crew has ended")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.tell(do, **arguments)
        return self.answer()

    def cpu_ns(self) -> int:
        """CPU time of the whole process so far, all its threads; asks nothing of the process."""
        return time.clock_gettime_ns((~self._child.pid << 3) | _CPU_CLOCK_OF_A_PROCESS)

    def switches(self) -> int:
        """How often its threads were given a core so far; of those that live."""
        statuses = Path(f"/proc/{self._child.pid}/task").glob("*/status")
        return sum(
            int(line.split()[1])
            for status in statuses
            for line in status.read_text(encoding="ascii", errors="replace").splitlines()
            if "ctxt_switches" in line
        )

    def freeze(self) -> None:
        """SIGSTOP, and wait until it has stopped."""
        self._child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._child.pid, os.WSTOPPED)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone, its connections closed."""
        self._child.kill()
        self._child.wait(END_TIMEOUT_S)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    @staticmethod
    def first_to_answer(workers: "list[Worker]") -> "Worker":
        """Whichever answers first; its answer is fetched. Raises WorkerFailed as `answer` does."""
        pipes = {worker._pipe_out(): worker for worker in workers}
        ready = select.select(list(pipes), [], [], ANSWER_TIMEOUT_S)[0]
        if not ready:
            raise WorkerFailed(f"no answer within {ANSWER_TIMEOUT_S:g} s")
        worker = pipes[ready[0]]
        worker.answer()
        return worker

    def _pipe_in(self) -> int:
        return _open_pipe(self._child.stdin)

    def _pipe_out(self) -> int:
        return _open_pipe(self._child.stdout)


def _open_pipe(pipe: IO[bytes] | None) -> int:
    if pipe is None or pipe.closed:
        raise WorkerFailed("a process of the crew has ended")
    return pipe.fileno()


class Crew:
    """Some workers. One that was killed, or is no longer to be trusted, is replaced."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self.workers: list[Worker] = []

    def __enter__(self) -> Self:
        try:
            for _ in range(self._size):
                self.workers.append(Worker())
            _await(self.workers)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        for worker in self.workers:
            worker.kill()

    def replace(self, *old: Worker) -> None:
        """Kill these and put new ones in their places."""
        new = []
        for worker in old:
            worker.kill()
            new.append(Worker())
            self.workers[self.workers.index(worker)] = new[-1]
        _await(new)

    def at(
        self,
        contender: Contender,
        address: str,
        lease_ms: int,
        count: int = SIZE,
        *,
        first: int = 0,
    ) -> "Gang":
        """`with crew.at(…) as gang`: at most `count` of the workers from `first` on, connected."""
        return Gang(self, self.workers[first : first + count], contender, address, lease_ms)


def _await(workers: list[Worker]) -> None:
    """Wait until all have come up: a process that starts takes CPU from what is measured."""
    for worker in workers:
        worker.tell("hello")
    for worker in workers:
        worker.answer()


class Gang:
    """Some workers of the crew while they use one lock; after a failure they are replaced."""

    def __init__(
        self, crew: Crew, workers: list[Worker], contender: Contender, address: str, lease_ms: int
    ) -> None:
        self.crew = crew
        self.workers = workers
        self.contender = contender
        self._address = address
        self._lease_ms = lease_ms

    def __enter__(self) -> Self:
        with ExitStack() as on_failure:
            on_failure.callback(self.crew.replace, *self.workers)
            self._all(
                "open",
                contender=self.contender.name,
                address=self._address,
                lease_ms=self._lease_ms,
            )
            on_failure.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._all("close")
        else:
            self.crew.replace(*self.workers)

    def _all(self, do: str, **arguments: object) -> list[dict[str, Any]]:
        return self.each(lambda worker: worker.tell(do, **arguments))

    def each(self, tell: Callable[[Worker], None]) -> list[dict[str, Any]]:
        """Tell all, then fetch the answers of all."""
        for worker in self.workers:
            tell(worker)
        return [worker.answer() for worker in self.workers]

    def work(self, key: str, **how: object) -> list[list[Turn]]:
        """All work on one key at once; gives each thread's turns."""
        answers = self._all("work", key=key, **how)
        threads = [thread for answer in answers for thread in answer["turns"]]
        return [[Turn(who, *times) for times in thread] for who, thread in enumerate(threads)]
