"""What can be changed while the sandbox runs: its configuration, replaced as a whole."""

import threading
from dataclasses import replace

from sandbox.config import SandboxConfig


class Dials:
    """The configuration as it is now. A restart begins with the one it is given."""

    def __init__(self, config: SandboxConfig) -> None:
        self._guard = threading.Lock()
        self._config = config

    @property
    def config(self) -> SandboxConfig:
        """Take it anew for each use."""
        return self._config

    def turn(self, *, time_scale: float | None, bills_at_once: bool | None) -> SandboxConfig:
        """Change what is not None. Raises ConfigError. What was scheduled keeps its time."""
        with self._guard:
            known = self._config
            self._config = replace(
                known,
                time_scale=known.time_scale if time_scale is None else time_scale,
                bills_at_once=known.bills_at_once if bills_at_once is None else bills_at_once,
            )
            return self._config
