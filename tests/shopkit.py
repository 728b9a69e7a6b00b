"""A whole shop for one test: a database, a lock service, the real sandbox, as many processes as
the test wants, and the same application inside the test for direct calls.

Nothing in it is a stand-in: processes are gunicorn on `wsgi:app` (or on a module of the tests that
wires something differently), gateways are the sandbox over HTTP with real signatures.
"""

import json
import os
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from dotenv import dotenv_values
from flask import Flask
from sqlalchemy import select
from werkzeug.security import generate_password_hash

from config.settings import Settings, load_settings
from shop.app import create_app
from shop.catalog.models import Product, StockAdjustment
from shop.clock import Clock
from shop.db import db, transaction
from shop.members.models import Member
from shop.orders.models import Order, OrderLine
from shop.orders.moves import Moves
from shop.points.service import grant
from shop.wiring import Parts, build_parts
from tests.invariants import broken
from tests.processes import ManagedProcess, free_port, make_folder, remove_folder, wait_http

ROOT = Path(__file__).resolve().parents[1]
# Seconds of the sandbox's notice schedule are milliseconds here: a test waits for no retry.
TIME_SCALE = "0.01"
STOCK = 1_000
POINTS = 1_000_000


class Sandbox:
    """One running sandbox and what its merchant must know."""

    def __init__(self) -> None:
        self.folder = make_folder("sandbox")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {
            **os.environ,
            "SANDBOX_DATA": str(self.folder),
            "SANDBOX_TIME_SCALE": TIME_SCALE,
            "SANDBOX_PUBLIC_URL": self.url,
        }
        data = ["--data", str(self.folder)]
        ManagedProcess(
            "sandbox keys",
            [sys.executable, "-m", "sandbox", "keys", *data, "--base-url", self.url],
            log=self.folder / "keys.log",
            env=self.env,
            cwd=ROOT,
        ).run_to_end()
        self.process = ManagedProcess(
            "sandbox",
            [
                *(sys.executable, "-m", "gunicorn", "--worker-class", "gthread"),
                *("--workers", "1", "--threads", "32", "--bind", f"127.0.0.1:{self.port}"),
                *("--no-control-socket", "--limit-request-line", "8190"),
                "sandbox.wsgi:app",
            ],
            log=self.folder / "sandbox.log",
            env=self.env,
            cwd=ROOT,
        )

    @property
    def merchant_env(self) -> dict[str, str]:
        """The settings of the merchant that this sandbox knows."""
        values = dotenv_values(self.folder / "merchant.env")
        return {name: value for name, value in values.items() if value is not None}

    def __enter__(self) -> Self:
        self.process.start()
        wait_http(f"{self.url}/", process=self.process)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.process.terminate()
        remove_folder(self.folder)

    def get(self, path: str) -> Any:
        """GET JSON of the admin API."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=20) as answer:  # noqa: S310
            return json.load(answer)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> Any:
        """POST JSON to the admin API."""
        request = urllib.request.Request(  # noqa: S310 - an address of our own making
            f"{self.url}{path}",
            data=json.dumps(dict(body or {})).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text else None

    def pay(self, out_trade_no: str, *, notice: bool = True) -> None:
        """Play the member's phone: pay what the QR code asks for."""
        self.post(f"/admin/trades/{out_trade_no}/pay?notice={'yes' if notice else 'no'}")

    def clear_faults(self) -> None:
        """Forget the faults that were ordered."""
        request = urllib.request.Request(f"{self.url}/admin/faults", method="DELETE")  # noqa: S310
        with urllib.request.urlopen(request, timeout=20):  # noqa: S310 - as above
            pass

    def charges(self, order_code: str) -> list[Any]:
        """Every time money was taken at a gateway for this order."""
        found = self.get("/admin/charges")
        rows = found["charges"] if isinstance(found, dict) else found
        return [row for row in rows if row["out_trade_no"].startswith(order_code)]


@dataclass
class ShopKit:
    """One shop on one database and one lock service."""

    database_url: str
    lock_url: str
    sandbox: Sandbox
    folder: Path
    extra_env: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: list[ManagedProcess] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the first web process listens, and where the gateways send their notices."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """The environment of every process of this shop."""
        return {
            **os.environ,
            "DATABASE_URL": self.database_url,
            "LOCK_URL": self.lock_url,
            "SECRET_KEY": "test-secret-key-of-32-characters-or-more",
            "PUBLIC_URL": self.url,
            "LOG_LEVEL": "INFO",
            # As many as there are threads: what a test begins at once shall reach the gateway.
            "GATEWAY_CONCURRENCY": "64",
            **self.sandbox.merchant_env,
            **self.extra_env,
        }

    @property
    def settings(self) -> Settings:
        """The same, as the application reads it."""
        return load_settings(self.env)

    def migrate(self) -> Self:
        """Make the tables, by the migrations that everybody runs."""
        self.run("-m", "flask", "--app", "wsgi", "db", "upgrade")
        return self

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        """Run one Python command of the project to its end."""
        ManagedProcess(
            arguments[-1],
            [sys.executable, *arguments],
            log=self.folder / "commands.log",
            env={**self.env, **(env or {})},
            cwd=ROOT,
        ).run_to_end()

    def web(
        self,
        *,
        port: int | None = None,
        module: str = "wsgi:app",
        workers: int = 1,
        threads: int = 16,
        env: Mapping[str, str] | None = None,
    ) -> ManagedProcess:
        """Start a web process, on the shop's own port unless told otherwise."""
        process = self._spawn(port, module=module, workers=workers, threads=threads, env=env)
        self._wait_ready(process)
        return process

    def webs(
        self, count: int, *, module: str = "wsgi:app", env: Mapping[str, str] | None = None
    ) -> list[str]:
        """Start so many web processes side by side, the first on the shop's own port.

        Each is a gunicorn of its own with one worker. Their addresses are returned.
        """
        ports = [self.port, *(free_port() for _ in range(count - 1))]
        started = [
            self._spawn(port, module=module, workers=1, threads=16, env=env) for port in ports
        ]
        for process in started:
            self._wait_ready(process)
        return [f"http://127.0.0.1:{port}" for port in ports]

    def _spawn(
        self,
        port: int | None,
        *,
        module: str,
        workers: int,
        threads: int,
        env: Mapping[str, str] | None,
    ) -> ManagedProcess:
        where = self.port if port is None else port
        process = ManagedProcess(
            f"web-{where}",
            [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.conf.py", module],
            log=self.folder / f"web-{where}.log",
            env={
                **self.env,
                "HOST": "127.0.0.1",
                "PORT": str(where),
                "WEB_WORKERS": str(workers),
                "WEB_THREADS": str(threads),
                **(env or {}),
            },
            cwd=ROOT,
        ).start()
        self.processes.append(process)
        return process

    @staticmethod
    def _wait_ready(process: ManagedProcess) -> None:
        port = process.name.removeprefix("web-")
        wait_http(f"http://127.0.0.1:{port}/readyz", process=process)

    def sweep_once(self) -> None:
        """One round of the sweeper, in a process of its own."""
        self.run("-m", "flask", "--app", "wsgi", "sweep", "--once")

    def stop(self) -> None:
        """Stop every process of this shop, all at the same time."""
        for process in self.processes:
            process.sigcont()
            process.send(process.stop_signal, group=False)
        for process in self.processes:
            process.terminate()
        self.processes.clear()

    def parts(self, *, moves: Moves | None = None, clock: Clock | None = None) -> Parts:
        """The shop's parts for use inside the test."""
        return build_parts(self.settings, moves=moves, clock=clock)

    @contextmanager
    def app(self, parts: Parts | None = None) -> Iterator[Flask]:
        """The application inside the test, with a context pushed."""
        chosen = parts or self.parts()
        app = create_app(parts=chosen)
        with app.app_context():
            try:
                yield app
            finally:
                db.session.remove()
                db.engine.dispose()
                chosen.close()

    def broken(self) -> list[str]:
        """The invariants that do not hold (DESIGN section 6)."""
        return broken(self.database_url)


def make_member(
    parts: Parts, *, points: int = POINTS, login: str | None = None, password: str | None = None
) -> int:
    """A member with points, and a name nobody else has. Needs an application context.

    Without a password nobody can sign in as this member.
    """
    login = login or f"m-{uuid.uuid4().hex[:12]}"
    password_hash = "-" if password is None else generate_password_hash(password)

    def work() -> int:
        now = parts.clock.now()
        member = Member(
            login=login, display_name=login, password_hash=password_hash, created_at=now
        )
        db.session.add(member)
        db.session.flush()
        grant(member.id, points, f"test:{login}", now=now)
        return member.id

    return transaction(work)


def make_product(parts: Parts, *, stock: int = STOCK) -> int:
    """A product worth 10.00 yuan, of which up to 500 points may be paid."""
    sku = f"T-{uuid.uuid4().hex[:12]}"

    def work() -> int:
        product = Product(
            sku=sku,
            name_zh=sku,
            name_en=sku,
            description_zh="",
            description_en="",
            art="mug",
            price_mode="mixed",
            price_fen=1_000,
            points_min=0,
            points_max=500,
            stock_on_hand=stock,
        )
        db.session.add(product)
        db.session.flush()
        db.session.add(
            StockAdjustment(
                product_id=product.id, delta=stock, cause=sku, created_at=parts.clock.now()
            )
        )
        return product.id

    return transaction(work)


def make_order(
    parts: Parts,
    member_id: int,
    product_id: int,
    *,
    points: int = 100,
    amount_fen: int = 900,
    quantity: int = 1,
) -> str:
    """An order in state created, as placing it makes one; its code is returned."""
    code = f"T{uuid.uuid4().hex[:17].upper()}"

    def work() -> str:
        now = parts.clock.now()
        order = Order(
            code=code,
            member_id=member_id,
            submit_token=code,
            state="created",
            version=0,
            lock_fence=0,
            points=points,
            amount_fen=amount_fen,
            created_at=now,
            expires_at=now + timedelta(seconds=parts.settings.order_expiry_s),
        )
        db.session.add(order)
        db.session.flush()
        db.session.add(
            OrderLine(
                order_id=order.id,
                product_id=product_id,
                name_zh="-",
                name_en="-",
                art="mug",
                quantity=quantity,
                points=points,
                amount_fen=amount_fen,
            )
        )
        return code

    return transaction(work)


def order_state(code: str) -> str:
    """The order's state as it is committed now."""
    db.session.rollback()
    return db.session.scalars(select(Order.state).where(Order.code == code)).one()
