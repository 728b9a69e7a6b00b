"""Every code has an outcome that can be read in the docs, and words that a member can read."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

from shop.commands.outcomes import markdown, prepay_outcomes
from shop.errors import GatewayAway, GatewayUnsure, PaymentRefused, ShopError, Superseded
from shop.gateways import outcomes
from shop.gateways.base import Outcome
from shop.gateways.guard import BUSY, RESTING
from shop.gateways.guard_retry import ACCOUNT_FAULTS, HOST_FAULTS
from shop.gateways.outcomes_table import CALLS, OF_EVERY_CALL, STATES
from shop.pages.translations import FOLDER
from shop.payments.words import REASONS, words_for

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "gateways.md"
# What a member's own request calls.
CALLS_OF_A_MEMBER = ("prepay", "query", "close")
SPOKEN = sorted(
    {code for calls in CALLS.values() for call in CALLS_OF_A_MEMBER for code in calls[call]}
    | set(OF_EVERY_CALL)
)


def test_the_page_of_the_gateways_is_as_the_tables_are() -> None:
    assert PAGE.read_text(encoding="utf-8").endswith(f"\n\n{markdown()}")


def test_every_table_of_the_code_is_drawn() -> None:
    drawn = [table for calls in (*CALLS.values(), *STATES.values()) for table in calls.values()]
    declared = [one for name, one in vars(outcomes).items() if name.startswith(("WECH", "ALIP"))]
    assert len(declared) > 10
    assert all(any(one is table for table in drawn) for one in declared)


@pytest.mark.parametrize("code", SPOKEN)
def test_every_code_that_a_members_request_can_meet_has_a_reason(code: str) -> None:
    assert code in REASONS


def test_every_code_that_tells_of_a_gateway_or_an_account_has_a_reason() -> None:
    assert (HOST_FAULTS | ACCOUNT_FAULTS) - set(REASONS) == set()


@pytest.fixture(scope="module")
def catalogue() -> Catalog:
    with (FOLDER / "zh" / "LC_MESSAGES" / "messages.po").open("rb") as file:
        return read_po(file, locale="zh")


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("code", [*sorted(REASONS), "NEVER_HEARD_OF", "isv.invalid-app-id"])
def test_the_words_for_a_code_are_there_in_both_languages(
    code: str, sent: bool, catalogue: Catalog
) -> None:
    for outcome in (Outcome.FAILED, Outcome.UNKNOWN):
        words = words_for(code, outcome, sent=sent)
        for sentence in (words.sentence(), words.hint):
            message = catalogue.get(sentence)
            assert sentence
            assert message is not None
            assert message.string
        assert words(order_code="X", channel="alipay", fault_code=code).detail


@pytest.mark.parametrize("code", [*sorted(REASONS), "NEVER_HEARD_OF"])
def test_no_words_promise_more_than_the_outcome_proves(code: str) -> None:
    assert issubclass(words_for(code, Outcome.FAILED), PaymentRefused | Superseded)
    assert issubclass(words_for(code, Outcome.UNKNOWN), GatewayUnsure)
    assert issubclass(words_for(code, Outcome.UNKNOWN, sent=False), GatewayAway)
    assert "Nothing was charged" not in words_for(code, Outcome.UNKNOWN).sentence()


def test_what_was_not_sent_for_want_of_a_place_and_for_a_rest_is_told_apart() -> None:
    told: list[type[ShopError]] = [
        words_for(code, Outcome.UNKNOWN, sent=False) for code in (BUSY, RESTING, "unreachable")
    ]
    assert all(one is not other for one, other in pairwise(told))


def test_a_code_that_no_table_has_means_unknown_to_the_page_as_well() -> None:
    assert prepay_outcomes("timeout") == {Outcome.UNKNOWN}
    assert prepay_outcomes("PARAM_ERROR") == {Outcome.FAILED}


def test_the_command_shows_the_tables() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "from shop.commands.outcomes import outcomes; outcomes()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "WeChat Pay: error codes by call" in shown
    assert "OUT_TRADE_NO_USED" in shown
