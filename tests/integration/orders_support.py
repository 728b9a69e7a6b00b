"""A shop on an empty database for the tests of orders and pages: keys, but no process runs."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask

from shop.app import create_app
from shop.db import db
from tests.processes import remove_folder
from tests.shopkit import Sandbox, ShopKit


@contextmanager
def hanging_up(port: int) -> Iterator[None]:
    """A gateway that takes a request in and hangs up: what became of it, nobody knows."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            with link:
                link.settimeout(5)
                try:
                    link.recv(65_536)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(30)


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
