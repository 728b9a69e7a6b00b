"""One strict chart class for everything that moves money.

The library's defaults ignore an event that no transition takes, and swallow an exception while
the state moves on; both would lose money in silence.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from statemachine import StateChart
from statemachine.exceptions import TransitionNotAllowed


class MoveNotAllowed(Exception):
    """This move is not allowed from the present state."""

    def __init__(self, subject: str, state: str, event: str, why: str) -> None:
        super().__init__(f"{subject} is {state}: {event} is not allowed ({why})")
        self.subject = subject
        self.state = state
        self.event = event
        self.why = why


class GuardRefused(Exception):
    """Raised by a guard, with the reason in words."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """A transition that the chart allows; making it so is the store's work."""

    from_state: str
    to_state: str
    event: str


class StrictChart(StateChart[Any]):
    """A chart in which nothing is ignored and nothing is swallowed."""

    allow_event_without_transition = False
    catch_errors_as_events = False
    atomic_configuration_update = True
    enable_self_transition_entries = False


class _Subject:
    """The least that the library can bind a state to."""

    def __init__(self, state: str) -> None:
        self.state = state


@cache
def _targets(chart: type[StrictChart]) -> dict[tuple[str, str], str | None]:
    """Every declared (state, event), with its target where no guard has a say.

    Read off the chart once, so that the chart stays the only declaration: building a machine for
    each question would cost more than the database's part of a transition.
    """
    return {
        (state.value, event.id): None
        if list(transition.validators) or list(transition.cond)
        else str(transition.target.value)
        for state in chart.states
        for transition in state.transitions
        for event in transition.events
    }


def allowed_move(chart: type[StrictChart], state: str, event: str, **facts: Any) -> Move:
    """Ask `chart` where `event` leads from `state`, given the facts that its guards look at.

    Raises MoveNotAllowed where the chart has no such move or a guard refuses, and ValueError for a
    state or an event that the chart does not know at all.
    """
    subject = chart.__name__.removesuffix("Chart").lower()
    targets = _targets(chart)
    if state not in chart.states_map:
        raise ValueError(f"{subject}: unknown state {state!r}")
    if event not in {known for _, known in targets}:
        raise ValueError(f"{subject}: unknown event {event!r}")
    unguarded = targets.get((state, event))
    if unguarded is not None:
        return Move(from_state=state, to_state=unguarded, event=event)
    model = _Subject(state)
    machine = chart(model, state_field="state")
    try:
        machine.send(event, **facts)
    except TransitionNotAllowed as error:
        raise MoveNotAllowed(subject, state, event, "the chart has no such move") from error
    except GuardRefused as error:
        raise MoveNotAllowed(subject, state, event, str(error)) from error
    return Move(from_state=state, to_state=str(model.state), event=event)
