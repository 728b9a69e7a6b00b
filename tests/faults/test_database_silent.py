"""T11: a database server that is frozen, its connections open, answers nothing: no request hangs.

A host that is paging or a stalled disk looks like this. TCP keepalives do not help: the kernel
answers them.
"""

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.storm import Storm
from tests.processes import http_status, wait_http
from tests.services import DatabaseServer, MariaDbServer, PostgresServer
from tests.shopkit import Sandbox, ShopKit

pytestmark = pytest.mark.faults


def family(pid: int) -> list[int]:
    """A process and all that it started: PostgreSQL serves each session by a process of its own."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []  # it ended meanwhile
    return [pid, *(each for child in children for each in family(int(child)))]


def signal_all(pids: list[int], which: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # a session's process may end meanwhile
            os.kill(pid, which)


@contextmanager
def frozen(server: DatabaseServer) -> Iterator[None]:
    stopped = family(server.process.pid)
    signal_all(stopped, signal.SIGSTOP)
    try:
        yield
    finally:
        signal_all(stopped, signal.SIGCONT)


@pytest.mark.parametrize("kind", [PostgresServer, MariaDbServer])
def test_a_frozen_database_is_a_clear_refusal_and_all_goes_on_when_it_wakes(
    kind: type[PostgresServer | MariaDbServer], sandbox_server: Sandbox, tmp_path: Path
) -> None:
    with kind() as server, server.fresh_database() as url:
        kit = ShopKit(
            database_url=url,
            lock_url=f"file://{tmp_path / 'locks'}",
            sandbox=sandbox_server,
            folder=tmp_path,
        ).migrate()
        try:
            storm = Storm(kit=kit, urls=kit.webs(1))
            member = storm.member()
            code, key = member.order(), uuid.uuid4().hex
            with frozen(server):
                answer = member.client.pay(code, "wechatpay", key=key).send()
                assert (answer.status, answer.code) == (503, "database-unavailable"), answer
                assert int(answer.headers["retry-after"]) > 0
                assert http_status(f"{kit.url}/readyz") in {503, None}
                assert http_status(f"{kit.url}/healthz") == 200
            wait_http(f"{kit.url}/readyz")
            assert member.client.pay(code, "wechatpay", key=key).send().status == 200
            number = member.pay_at_phone(code)
            member.wait_until_order_is(code, "paid")
            charges = kit.sandbox.charges(code)
            assert [charge["out_trade_no"] for charge in charges] == [number]
            assert kit.broken() == []
        finally:
            kit.stop()
