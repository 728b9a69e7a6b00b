"""`flask --app wsgi gateways …`: asking, fetching bills and cancelling by hand, at the sandbox."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from flask import current_app

from tests.integration.payments_support import Buyer, Shop, shop_inside
from tests.shopkit import Sandbox

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox()
    made.env["SANDBOX_BILLS_AT_ONCE"] = "yes"
    with made as running:
        yield running


@pytest.fixture(scope="module")
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("by-hand")
    with shop_inside("sqlite", folder, request, sandbox) as made:
        yield made


@pytest.fixture
def buyer(shop: Shop) -> Iterator[Buyer]:
    yield Buyer(shop)
    assert shop.broken() == []


def run(*arguments: str, answer: str | None = None) -> Result:
    """Run `flask gateways …` in the application of this module."""
    return current_app.test_cli_runner().invoke(args=["gateways", *arguments], input=answer)


def fields(result: Result) -> dict[str, str]:
    """The table that a command printed."""
    lines = (line.split("  ", 1) for line in result.output.splitlines() if "  " in line)
    return {name: value.strip() for name, value in lines}


def today() -> str:
    """The day in China."""
    return (datetime.now(UTC) + timedelta(hours=8)).date().isoformat()


@pytest.mark.parametrize("channel", ["wechatpay", "alipay"])
def test_a_payment_is_asked_after_by_either_number(buyer: Buyer, channel: str) -> None:
    code = buyer.order()
    buyer.pay(code, channel)
    number = buyer.number(code)
    before = run("query", number)
    assert fields(before)["outcome"] in {"not paid so far", "not known to the gateway"}
    assert buyer.pay_at_phone(number)
    paid = run("query", number)
    assert paid.exit_code == 0, paid.output
    found = fields(paid)
    assert (found["outcome"], found["amount"]) == ("paid", "9.00 yuan")
    same = run("query", "--transaction-id", found["transaction"], "--channel", channel)
    assert fields(same)["out_trade_no"] == number
    # Asking books nothing: that is the sweeper's.
    assert buyer.state(code) == "paying"
    buyer.sweep(after_s=60)
    assert buyer.state(code) == "paid"


def test_a_wrong_question_is_told_in_a_sentence(buyer: Buyer) -> None:
    for arguments, status, said in (
        (["query"], 2, "one of the two"),
        (["query", "X1", "--transaction-id", "Y1"], 2, "one of the two"),
        (["query", "--transaction-id", "Y1"], 2, "needs --channel"),
        (["query", "NOBODYS01"], 2, "There is no payment 'NOBODYS01' of ours"),
        (["query", "NOBODYS01", "--channel", "wechatpay"], 1, "not known to the gateway"),
        (["query", "no/number", "--channel", "wechatpay"], 2, "not a number fit"),
        (["query", "X1", "--channel", "alipay", "--merchant", "nobody"], 1, "no merchant 'nobody'"),
        (["cancel", "NOBODYS01", "--yes"], 2, "There is no payment"),
    ):
        told = run(*arguments)
        assert (told.exit_code, said in told.output) == (status, True), told.output
    code = buyer.order(points=1_000, amount_fen=0)
    buyer.pay(code, "points")
    assert "made by points" in run("query", buyer.number(code)).output


@pytest.mark.parametrize("channel", ["wechatpay", "alipay"])
def test_a_bill_is_written_whole_or_not_at_all(buyer: Buyer, channel: str, tmp_path: Path) -> None:
    code = buyer.order()
    buyer.pay(code, channel)
    number = buyer.number(code)
    buyer.pay_at_phone(number)
    buyer.sweep(after_s=60)
    out = tmp_path / "bill.csv"
    day = today()
    done = run("bill", "--channel", channel, "--date", day, "--out", str(out))
    assert done.exit_code == 0, done.output
    assert number in out.read_text(encoding="utf-8-sig")
    before = out.read_bytes()
    none = run("bill", "--channel", channel, "--date", "2020-01-01", "--out", str(out))
    assert none.exit_code in {1, 3}, none.output
    assert "No file was written" in none.output
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bill.csv"]
    nowhere = run("bill", "--channel", channel, "--date", day, "--out", "/nowhere/bill.csv")
    assert (nowhere.exit_code, "cannot be written" in nowhere.output) == (1, True)


def test_an_alipay_payment_is_cancelled_only_when_that_is_meant(buyer: Buyer) -> None:
    code = buyer.order()
    buyer.pay(code, "alipay")
    number = buyer.number(code)
    assert buyer.pay_at_phone(number)
    refused = run("cancel", number, "--yes")
    assert refused.exit_code == 1
    assert f"Payment {number} is paid" in refused.output
    assert fields(run("query", number))["trade state"] == "TRADE_SUCCESS"
    kept = run("cancel", number, "--paid", answer="n\n")
    assert kept.exit_code == 1
    assert "IS PAID goes back" in kept.output
    assert "count as paid all the same" in " ".join(kept.output.split())
    assert fields(run("query", number))["trade state"] == "TRADE_SUCCESS"
    done = run("cancel", number, "--paid", "--yes")
    assert done.exit_code == 0, done.output
    assert fields(done)["action"] == "refund"
    assert fields(run("query", number))["trade state"] == "TRADE_CLOSED"
    with buyer.shop.clock.later(60):
        buyer.parts.sweeper.run_once()
    assert buyer.state(code) == "paid"


def test_wechatpay_has_no_cancelling(buyer: Buyer) -> None:
    code = buyer.order()
    buyer.pay(code, "wechatpay")
    told = run("cancel", buyer.number(code), "--yes")
    assert (told.exit_code, "knows no cancelling" in told.output) == (1, True)
    buyer.cancel(code)
