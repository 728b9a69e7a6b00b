"""What services may know of the application that they run in: its clock and its settings.

They do not import `wiring`, which chooses implementations and stands above them.
"""

from typing import Protocol, cast

from flask import current_app

from config.settings import Settings
from shop.clock import Clock


class _Chosen(Protocol):
    @property
    def clock(self) -> Clock: ...

    @property
    def settings(self) -> Settings: ...


def clock() -> Clock:
    """The running application's clock."""
    return _chosen().clock


def settings() -> Settings:
    """The running application's configuration."""
    return _chosen().settings


def _chosen() -> _Chosen:
    return cast("_Chosen", current_app.extensions["payonce"])
