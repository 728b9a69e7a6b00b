"""File locks under faults."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.faults.history.backend import Backend
from tests.faults.history.crew import Lasting
from tests.faults.history.records import FaultLog, now_ns


class FileBackend(Backend):
    """A folder of this host; nothing can be cut off from it, but its files can be deleted."""

    name = "file"

    def __init__(
        self, log: FaultLog, chance: random.Random, keys: Sequence[str], folder: Path
    ) -> None:
        super().__init__(log, chance, keys)
        self._folder = folder / "leases"

    def urls(self) -> list[str]:
        """See Backend."""
        return [self.own_url()]

    def own_url(self) -> str:
        """See Backend."""
        return f"file://{self._folder}"

    def hindrances(self) -> dict[str, Callable[[], Lasting]]:
        """See Backend."""
        return {"delete a pipe": self._delete_pipe}

    def losses(self) -> dict[str, Callable[[], Lasting]]:
        """See Backend."""
        return super().losses() | {"delete a key": self._delete_key}

    # As somebody would who tidies up where he should not.

    def _delete_pipe(self) -> Lasting:
        began, found = now_ns(), sorted((self._folder / "waiting").iterdir())
        if found:
            self._random.choice(found).unlink(missing_ok=True)
            self._log.note("delete a pipe", began)
        return None

    def _delete_key(self) -> Lasting:
        began, key = now_ns(), self._random.choice(self._keys)
        (self._folder / "held" / key).unlink(missing_ok=True)
        self._log.note("delete a key", began, key=key, ends_leases=True)
        return None

    def left_behind(self) -> list[str]:
        """Every file and pipe but the clock of fences, of which a kill may leave a draft."""
        return [
            str(path.relative_to(self._folder))
            for path in self._folder.rglob("*")
            if not path.is_dir() and path.parent / path.stem != self._folder / "fence"
        ]
