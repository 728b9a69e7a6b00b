"""No table calls a payment or a refund failed where money could still move."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shop.gateways import outcomes
from shop.gateways.base import Outcome
from shop.gateways.outcomes_table import CALLS, OF_EVERY_CALL, STATES

SANDBOX = Path(__file__).resolve().parents[2] / "sandbox"
# As the gateways' own pages list them.
DOCUMENTED = {
    "wechatpay": """
        PARAM_ERROR INVALID_REQUEST APPID_MCHID_NOT_MATCH MCH_NOT_EXISTS ORDER_CLOSED
        NO_STATEMENT_EXIST STATEMENT_CREATING SIGN_ERROR NO_AUTH OUT_TRADE_NO_USED RULE_LIMIT
        TRADE_ERROR NOT_ENOUGH USER_ACCOUNT_ABNORMAL ORDER_NOT_EXIST RESOURCE_NOT_EXISTS
        FREQUENCY_LIMITED SYSTEM_ERROR SERVICE_UNAVAILABLE ORDERPAID ORDER_PAID
        NOTPAY SUCCESS REFUND CLOSED REVOKED USERPAYING PAYERROR PROCESSING ABNORMAL""",
    "alipay": """
        10003 20000 20001 40001 40002 40003 40004 40005 40006
        ACQ.TRADE_NOT_EXIST ACQ.TRADE_STATUS_ERROR ACQ.REASON_TRADE_STATUS_INVALID
        ACQ.REASON_ILLEGAL_STATUS ACQ.DISCORDANT_REPEAT_REQUEST ACQ.SYSTEM_ERROR
        ACQ.INVALID_PARAMETER ACQ.SELLER_BALANCE_NOT_ENOUGH ACQ.REFUND_AMT_NOT_EQUAL_TOTAL
        ACQ.REASON_TRADE_BEEN_FREEZEN ACQ.TRADE_HAS_FINISHED ACQ.REASON_TRADE_REFUND_FEE_ERR
        ACQ.TRADE_NOT_ALLOW_REFUND ACQ.REFUND_FEE_ERROR ACQ.TRADE_HAS_CLOSE ACQ.BUYER_NOT_EXIST
        ACQ.BUYER_ENABLE_STATUS_FORBID ACQ.NOT_ALLOW_PARTIAL_REFUND
        ACQ.ONLINE_TRADE_VOUCHER_NOT_ALLOW_REFUND ACQ.TRADE_CANCEL_TIME_OUT
        WAIT_BUYER_PAY TRADE_SUCCESS TRADE_FINISHED TRADE_CLOSED""",
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TABLES = [
    outcomes.WECHATPAY_PREPAY,
    outcomes.WECHATPAY_QUERY,
    outcomes.WECHATPAY_CLOSE,
    outcomes.WECHATPAY_REFUND,
    outcomes.WECHATPAY_REFUND_QUERY,
    outcomes.ALIPAY_PREPAY,
    outcomes.ALIPAY_QUERY,
    outcomes.ALIPAY_CLOSE,
    outcomes.ALIPAY_REFUND,
    outcomes.ALIPAY_REFUND_QUERY,
]


@pytest.mark.parametrize("channel", DOCUMENTED)
def test_every_documented_code_stands_in_one_place_of_the_table(channel: str) -> None:
    by_call = {code for table in CALLS[channel].values() for code in table}
    by_state = {state for table in STATES[channel].values() for state in table}
    places = (by_call, by_state, set(OF_EVERY_CALL))
    found = {code: sum(code in place for place in places) for code in DOCUMENTED[channel].split()}
    assert found == dict.fromkeys(found, 1)


def test_whatever_the_sandbox_says_of_an_alipay_call_is_in_the_table() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in SANDBOX.glob("alipay*.py"))
    said = re.findall(r'(?:business\(|Why(?:Not)?\.\w+: )"([A-Z_]+)"', source)
    assert len(set(said)) > 8
    known = {code for table in CALLS["alipay"].values() for code in table}
    assert {f"ACQ.{code}" for code in said} - known == set()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "code",
    [
        "NEVER_HEARD_OF", "", "SYSTEM_ERROR", "SERVICE_UNAVAILABLE", "FREQUENCY_LIMITED",
        "SIGN_ERROR", "NO_AUTH", "ACQ.SYSTEM_ERROR", "isv.invalid-signature", "20000",
        "timeout", "unreachable", "bad_signature", "bad_answer", "server_error",
    ],
)  # fmt: skip
def test_a_code_that_proves_nothing_is_unknown_for_every_call(
    table: outcomes.Table, code: str
) -> None:
    assert outcomes.outcome_of(table, code) is Outcome.UNKNOWN


@pytest.mark.parametrize("table", [outcomes.WECHATPAY_QUERY, outcomes.ALIPAY_QUERY])
def test_no_error_code_makes_a_queried_payment_failed(table: outcomes.Table) -> None:
    assert set(table.values()) == {Outcome.PENDING, Outcome.UNKNOWN}


@pytest.mark.parametrize("table", [outcomes.WECHATPAY_REFUND_QUERY, outcomes.ALIPAY_REFUND_QUERY])
def test_no_error_code_makes_a_queried_refund_failed(table: outcomes.Table) -> None:
    assert set(table.values()) == {Outcome.UNKNOWN}


@pytest.mark.parametrize(
    ("table", "code"),
    [
        (outcomes.WECHATPAY_REFUND, "RESOURCE_NOT_EXISTS"),
        (outcomes.WECHATPAY_REFUND, "NOT_ENOUGH"),
        (outcomes.ALIPAY_REFUND, "ACQ.DISCORDANT_REPEAT_REQUEST"),
        (outcomes.ALIPAY_REFUND, "ACQ.SELLER_BALANCE_NOT_ENOUGH"),
    ],
)
def test_a_refund_that_may_yet_be_taken_under_its_number_is_not_failed(
    table: outcomes.Table, code: str
) -> None:
    assert outcomes.outcome_of(table, code) is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("table", "code"),
    [
        (outcomes.WECHATPAY_PREPAY, "PARAM_ERROR"),
        (outcomes.ALIPAY_PREPAY, "ACQ.INVALID_PARAMETER"),
    ],
)
def test_a_wrong_parameter_proves_nothing_once_the_deadline_may_be_the_wrong_one(
    table: outcomes.Table, code: str
) -> None:
    def asked(seconds_left: int) -> Outcome:
        expires_at = NOW + timedelta(seconds=seconds_left)
        return outcomes.prepay_refusal(table, code, expires_at=expires_at, now=NOW)

    assert asked(600) is Outcome.FAILED
    assert asked(30) is Outcome.UNKNOWN
    assert asked(-600) is Outcome.UNKNOWN


def test_a_closed_number_stays_failed_after_its_deadline() -> None:
    expires_at = NOW - timedelta(hours=1)
    assert (
        outcomes.prepay_refusal(
            outcomes.WECHATPAY_PREPAY, "ORDER_CLOSED", expires_at=expires_at, now=NOW
        )
        is Outcome.FAILED
    )


def test_both_spellings_of_closing_a_paid_order_are_known() -> None:
    for code in ("ORDERPAID", "ORDER_PAID"):
        assert outcomes.outcome_of(outcomes.WECHATPAY_CLOSE, code) is Outcome.FAILED


def test_a_refunded_trade_was_paid() -> None:
    assert outcomes.WECHATPAY_TRADE_STATES["REFUND"] is Outcome.SUCCEEDED


def test_a_refund_stuck_at_the_bank_is_not_failed() -> None:
    assert outcomes.WECHATPAY_REFUND_STATES["ABNORMAL"] is Outcome.PENDING
