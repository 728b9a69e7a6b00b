"""A payment that another begins between two reads of ours is left alone, lock or no lock."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event

from shop.db import db
from shop.errors import Superseded
from shop.gateways.base import Outcome, PrepayRequest, PrepayResult
from shop.payments.contract import PayCommand
from tests.faults.conftest import KitMaker
from tests.faults.notices import trade_at
from tests.faults.storm import Storm
from tests.faults.yes_lock_wsgi import YesLock
from tests.shopkit import make_member, make_order, make_product, order_state

pytestmark = pytest.mark.faults


def before_statement(app: Flask, words: str, work: Callable[[], None]) -> None:
    """Run `work` once, in a thread of its own, before this thread's first such statement."""
    mine, done = threading.get_ident(), threading.Event()

    @event.listens_for(db.engine, "before_cursor_execute")
    def look(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if threading.get_ident() != mine or done.is_set() or words not in statement:
            return
        done.set()
        other = threading.Thread(target=_in_app, args=(app, work))
        other.start()
        other.join()


def _in_app(app: Flask, work: Callable[[], None]) -> None:
    with app.app_context():
        work()


def test_a_payment_begun_between_two_reads_is_not_closed_at_its_gateway(
    make_kit: KitMaker,
) -> None:
    storm = Storm(kit=make_kit("postgresql-files"), urls=[], says_yes=True)
    with storm.app() as app:
        parts = app.extensions["payonce"]
        assert isinstance(parts.lock, YesLock)
        member_id = make_member(parts)
        code = make_order(parts, member_id, make_product(parts))
        command = PayCommand(member_id=member_id, order_code=code, channel="wechatpay")
        begun = []
        before_statement(
            app, "payment_attempts.open_key =", lambda: begun.append(parts.payments.pay(command))
        )
        with pytest.raises(Superseded):
            parts.payments.pay(command)
        number = begun[0].out_trade_no
        assert number is not None
        assert order_state(code) == "paying"
        assert trade_at(storm.kit.sandbox, number)["state"] == "open"
    assert storm.kit.broken() == []


def test_a_prepay_that_comes_after_another_ended_the_payment_is_told_so(
    make_kit: KitMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway refuses its number, but not the payment of the order: nobody need try again."""
    storm = Storm(kit=make_kit("postgresql-files"), urls=[], says_yes=True)
    with storm.app() as app:
        parts = app.extensions["payonce"]
        member_id = make_member(parts)
        code = make_order(parts, member_id, make_product(parts))
        command = PayCommand(member_id=member_id, order_code=code, channel="wechatpay")
        gateway = type(parts.gateways["wechatpay"])
        prepay = gateway.prepay

        def others() -> None:
            parts.payments.pay(command)
            parts.payments.pay(replace(command, channel="alipay"))

        def late_prepay(self: Any, request: PrepayRequest) -> PrepayResult:
            monkeypatch.setattr(gateway, "prepay", prepay)
            other = threading.Thread(target=_in_app, args=(app, others))
            other.start()
            other.join()
            result: PrepayResult = prepay(self, request)
            assert result.outcome is Outcome.FAILED
            return result

        monkeypatch.setattr(gateway, "prepay", late_prepay)
        with pytest.raises(Superseded):
            parts.payments.pay(command)
        assert order_state(code) == "paying"
    assert storm.kit.broken() == []
