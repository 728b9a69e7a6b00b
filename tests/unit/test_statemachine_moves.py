"""The charts, asked about every state and every event there is."""

from collections.abc import Iterator

import pytest

from statemachine.attempt import ATTEMPT_STATES, OPEN_ATTEMPT_STATES, AttemptChart
from statemachine.order import ORDER_STATES, OrderChart
from statemachine.strict import Move, MoveNotAllowed, StrictChart, allowed_move

# Written out a second time on purpose (DESIGN section 4): a move that slips into a chart, or out of
# it, must be argued for here too.
ORDER_MOVES = {
    ("created", "begin_payment"): "paying",
    ("failed", "begin_payment"): "paying",
    ("paying", "settle"): "paid",
    ("paying", "fail"): "failed",
    ("created", "close"): "closed",
    ("failed", "close"): "closed",
    ("paying", "close"): "closed",
    ("paid", "begin_refund"): "refunding",
    ("refunding", "refund_in_part"): "paid",
    ("refunding", "refund_failed"): "paid",
    ("refunding", "refund_in_full"): "refunded",
}
ATTEMPT_MOVES = {
    ("opening", "opened"): "pending",
    ("opening", "succeed"): "succeeded",
    ("pending", "succeed"): "succeeded",
    ("failed", "succeed"): "succeeded",
    ("closed", "succeed"): "succeeded",
    ("opening", "fail"): "failed",
    ("pending", "fail"): "failed",
    ("opening", "close"): "closed",
    ("pending", "close"): "closed",
}
CHARTS: tuple[tuple[type[StrictChart], dict[tuple[str, str], str]], ...] = (
    (OrderChart, ORDER_MOVES),
    (AttemptChart, ATTEMPT_MOVES),
)
# Facts with which every guard is content.
GOOD_FACTS: dict[str, object] = {
    "amount_due_fen": 900,
    "amount_paid_fen": 900,
    "confirmed_unpaid": True,
}


def allowed() -> Iterator[tuple[type[StrictChart], str, str, str]]:
    for chart, moves in CHARTS:
        for (state, event), target in moves.items():
            yield chart, state, event, target


def not_declared() -> Iterator[tuple[type[StrictChart], str, str]]:
    for chart, moves in CHARTS:
        events = {event for _, event in moves}
        for state in chart.states_map:
            for event in sorted(events):
                if (state, event) not in moves:
                    yield chart, str(state), event


def declared(chart: type[StrictChart]) -> set[tuple[str, str, str]]:
    return {
        (state.id, event.id, transition.target.id)
        for state in chart.states
        for transition in state.transitions
        for event in transition.events
    }


@pytest.mark.parametrize(("chart", "moves"), CHARTS)
def test_the_chart_declares_exactly_the_moves_of_the_design(
    chart: type[StrictChart], moves: dict[tuple[str, str], str]
) -> None:
    assert declared(chart) == {(state, event, to) for (state, event), to in moves.items()}


@pytest.mark.parametrize(("chart", "state", "event", "target"), list(allowed()))
def test_every_declared_move_is_allowed(
    chart: type[StrictChart], state: str, event: str, target: str
) -> None:
    move = allowed_move(chart, state, event, **GOOD_FACTS)
    assert move == Move(from_state=state, to_state=target, event=event)


@pytest.mark.parametrize(("chart", "state", "event"), list(not_declared()))
def test_every_other_move_is_refused(chart: type[StrictChart], state: str, event: str) -> None:
    with pytest.raises(MoveNotAllowed) as refused:
        allowed_move(chart, state, event, **GOOD_FACTS)
    assert (refused.value.state, refused.value.event) == (state, event)


def test_every_state_is_asked_about_every_event() -> None:
    asked = len(list(allowed())) + len(list(not_declared()))
    assert asked == len(ORDER_STATES) * 8 + len(ATTEMPT_STATES) * 4


@pytest.mark.parametrize("paid_fen", [0, 1, 899, 901, -900, 90_000])
def test_money_of_another_amount_settles_no_order(paid_fen: int) -> None:
    with pytest.raises(MoveNotAllowed, match="due are 900 fen"):
        allowed_move(OrderChart, "paying", "settle", amount_due_fen=900, amount_paid_fen=paid_fen)


def test_an_order_that_is_paying_is_not_closed_on_our_word_alone() -> None:
    for facts in ({}, {"confirmed_unpaid": False}):
        with pytest.raises(MoveNotAllowed, match="the gateway has not confirmed"):
            allowed_move(OrderChart, "paying", "close", **facts)


@pytest.mark.parametrize("state", ["created", "failed"])
def test_an_order_that_nothing_can_pay_is_closed_without_a_word_of_the_gateway(state: str) -> None:
    assert allowed_move(OrderChart, state, "close").to_state == "closed"


@pytest.mark.parametrize("chart", [OrderChart, AttemptChart])
@pytest.mark.parametrize("state", ["", "PAID", "Created", "unknown", "succeeded ", "None"])
def test_an_unknown_state_is_an_error_and_never_the_initial_one(
    chart: type[StrictChart], state: str
) -> None:
    with pytest.raises(ValueError, match="unknown state"):
        allowed_move(chart, state, "close")


@pytest.mark.parametrize("chart", [OrderChart, AttemptChart])
@pytest.mark.parametrize("event", ["", "pay", "Settle", "__init__", "states"])
def test_an_unknown_event_is_an_error(chart: type[StrictChart], event: str) -> None:
    state = str(next(iter(chart.states_map)))
    with pytest.raises(ValueError, match="unknown event"):
        allowed_move(chart, state, event)


def test_final_are_only_the_states_that_nothing_leads_out_of() -> None:
    for chart in (OrderChart, AttemptChart):
        sources = {state for state, _, _ in declared(chart)}
        final = {state.id for state in chart.states if state.final}
        assert final == {str(state) for state in chart.states_map} - sources


def test_an_attempt_is_open_exactly_while_it_can_become_closed() -> None:
    assert set(OPEN_ATTEMPT_STATES) == {state for state, event in ATTEMPT_MOVES if event == "close"}
