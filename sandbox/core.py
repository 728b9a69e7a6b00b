"""What the sandbox's parts share: configuration, merchants, books and the notifier."""

from dataclasses import dataclass

from flask import current_app

from sandbox.config import SandboxConfig
from sandbox.dials import Dials
from sandbox.merchants import Merchants
from sandbox.notifier import Notifier
from sandbox.store import Store

EXTENSION = "sandbox"


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """One sandbox; `close` it when done."""

    dials: Dials
    merchants: Merchants
    store: Store
    notifier: Notifier

    @property
    def config(self) -> SandboxConfig:
        """As it is now."""
        return self.dials.config

    def close(self) -> None:
        """Stop sending and close the books; what was not sent is sent after the next start."""
        self.notifier.stop()
        self.store.close()


def sandbox() -> Sandbox:
    """The sandbox of the running application."""
    found: Sandbox = current_app.extensions[EXTENSION]
    return found
