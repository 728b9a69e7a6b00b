"""No table calls a payment or a refund failed where money could still move."""

from datetime import UTC, datetime, timedelta

import pytest

from shop.gateways import outcomes
from shop.gateways.base import Outcome

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
