"""A process of the shop that freezes where told, and the member who asks it."""

import os
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shop.gateways.base import Gateway, GatewayFault, Outcome, PrepayRequest, PrepayResult
from shop.payments.contract import PayCommand
from shop.wiring import build_parts
from tests.books import books
from tests.faults.storm import Member, Storm
from tests.processes import ManagedProcess, free_port, process_state, wait_until
from tests.shopclient import Answer
from tests.shopkit import ShopKit


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A process that freezes where told, and one beside it that takes over."""

    storm: Storm
    freezing_url: str
    order_file: Path
    member: Member

    @contextmanager
    def frozen_at(self, point: str, request: Callable[[str], Answer]) -> Iterator["Future[Answer]"]:
        """Send `request` to the one process and go on when that is frozen at `point`.

        Afterwards it is let go on, and its answer is there.
        """
        pid_file = self.order_file.with_suffix(".pid")
        self.order_file.write_text(point)
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(request, self.freezing_url)
            wait_until(pid_file.exists, f"the process comes to {point}")
            pid = int(pid_file.read_text())
            try:
                wait_until(lambda: process_state(pid) == "T", "the process is stopped")
                yield answer
                assert not answer.done()
            finally:
                pid_file.unlink()
                os.kill(pid, signal.SIGCONT)

    def pay(self, code: str, channel: str, url: str | None = None) -> Answer:
        return self.member.client.pay(code, channel, key=uuid.uuid4().hex, url=url).send()

    def books(self) -> dict[str, Any]:
        return books(self.storm.kit.database_url)


def pair_of(kit: ShopKit, folder: Path) -> Pair:
    """The two processes on a shop that was made ready; they end with it."""
    order_file = folder / "freeze"
    _, url = _freezing_web(kit, order_file)
    storm = Storm(kit=kit, urls=kit.webs(1))
    return Pair(storm=storm, freezing_url=url, order_file=order_file, member=storm.member())


@contextmanager
def freezing_pair(kit: ShopKit, folder: Path) -> Iterator[Pair]:
    """A process on the lock service of now, which freezes where told, and a member."""
    order_file = folder / f"freeze-{kit.lock_url.partition(':')[0]}"
    process, url = _freezing_web(kit, order_file)
    storm = Storm(kit=kit, urls=[url])
    yield Pair(storm=storm, freezing_url=url, order_file=order_file, member=storm.member())
    kit.processes.remove(process)
    process.kill9()


def _freezing_web(kit: ShopKit, order_file: Path) -> tuple[ManagedProcess, str]:
    port = free_port()
    process = kit.web(
        port=port,
        module="tests.faults.freezing_wsgi:app",
        env={"FREEZE_FILE": str(order_file)},
    )
    return process, f"http://127.0.0.1:{port}"


def pay_refused_by_gateway(kit: ShopKit, member_id: int, code: str) -> None:
    """A pay request of another process whose gateway refuses: the order ends as failed.

    Raises PaymentRefused.
    """

    def refuse(request: PrepayRequest) -> PrepayResult:
        return PrepayResult(outcome=Outcome.FAILED, fault=GatewayFault(code="PARAM_ERROR"))

    gateways: Mapping[str, Gateway] = build_parts(kit.settings).gateways
    vars(gateways["wechatpay"])["prepay"] = refuse
    with kit.app(build_parts(kit.settings, gateways=gateways)) as app:
        app.extensions["payonce"].payments.pay(
            PayCommand(member_id=member_id, order_code=code, channel="wechatpay")
        )
