"""A shop on an empty database for the tests of orders and pages: keys, but no process runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask

from shop.app import create_app
from shop.db import db
from tests.processes import remove_folder
from tests.shopkit import Sandbox, ShopKit


@contextmanager
def shop_app(database_url: str, folder: Path, **env: str) -> Iterator[Flask]:
    """The migrated, seeded application; no gateway is called in it.

    No context is pushed: a request made inside one would share its `g` with the next.
    """
    sandbox = Sandbox()
    kit = ShopKit(
        database_url=database_url,
        lock_url=f"file://{folder / 'locks'}",
        sandbox=sandbox,
        folder=folder,
        extra_env=env,
    ).migrate()
    parts = kit.parts()
    app = create_app(parts=parts)
    try:
        app.test_cli_runner().invoke(args=["seed"], catch_exceptions=False)
        yield app
    finally:
        with app.app_context():
            db.session.remove()
            db.engine.dispose()
        parts.close()
        remove_folder(sandbox.folder)
