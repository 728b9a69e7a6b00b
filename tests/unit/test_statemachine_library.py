"""Our folder `statemachine/` beside the library of the same name, and the library made strict."""

import importlib
from pathlib import Path

import pytest
from statemachine.exceptions import TransitionNotAllowed
from statemachine.statemachine import StateChart

import statemachine
from shop.commands.states import PAGE, states_page
from statemachine import State
from statemachine.order import OrderChart
from statemachine.strict import StrictChart

ROOT = Path(__file__).resolve().parents[2]


class Door(StrictChart):
    """A chart whose action fails."""

    shut = State("shut", initial=True)
    open = State("open", final=True)

    unlock = shut.to(open)

    def on_unlock(self) -> None:
        raise OSError("the key broke")


def folders() -> tuple[Path, Path]:
    """Ours and the library's."""
    ours, library = (Path(folder) for folder in statemachine.__path__)
    return ours, library


def modules(folder: Path) -> set[str]:
    names = {file.stem for file in folder.glob("*.py")}
    return (names | {one.parent.name for one in folder.glob("*/__init__.py")}) - {"__init__"}


def test_our_folder_is_searched_before_the_librarys() -> None:
    ours, library = folders()
    assert ours == ROOT / "statemachine"
    assert (library / "statemachine.py").exists()


def test_no_module_of_ours_bears_a_name_of_the_librarys() -> None:
    ours, library = folders()
    assert modules(ours) >= {"order", "attempt", "strict"}
    assert modules(library) >= {"state", "statemachine", "exceptions"}
    assert modules(ours) & modules(library) == set()


def test_there_is_no_test_folder_that_would_hide_the_package() -> None:
    assert not (ROOT / "tests" / "statemachine").exists()


def test_the_package_gives_the_librarys_own_classes() -> None:
    assert importlib.import_module("statemachine.statemachine").StateChart is StateChart
    assert statemachine.StateChart is StateChart
    assert statemachine.State is importlib.import_module("statemachine.state").State


class Subject:
    state = "shut"


def test_an_action_that_raises_is_not_swallowed_and_the_state_stays() -> None:
    subject = Subject()
    door = Door(subject, state_field="state")
    with pytest.raises(OSError, match="the key broke"):
        door.send("unlock")
    assert subject.state == "shut"


def test_an_event_that_no_move_takes_is_an_error() -> None:
    order = OrderChart()
    with pytest.raises(TransitionNotAllowed):
        order.send("settle", amount_due_fen=1, amount_paid_fen=1)


def test_the_librarys_own_chart_would_swallow_and_ignore() -> None:
    """What the strict class is for: were the library's defaults ever safe, it could go."""
    assert StateChart.allow_event_without_transition
    assert StateChart.catch_errors_as_events
    assert not StrictChart.allow_event_without_transition
    assert not StrictChart.catch_errors_as_events


def test_the_page_of_the_states_is_as_the_charts_are() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == states_page()
