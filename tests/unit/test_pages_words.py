"""What the time line says of the moves that it is told."""

import pytest
from flask import Flask
from flask_babel import Babel

from shop.orders.models import Transition
from shop.pages.words import move_sentence


def said(cause: str, *, with_points: bool) -> str:
    app = Flask("words")
    Babel(app)
    move = Transition(subject="order", event="fail", cause=cause, actor="member", to_state="failed")
    with app.test_request_context():
        return move_sentence(move, channel="", surplus=False, with_points=with_points)


@pytest.mark.parametrize("with_points", [False, True])
def test_a_change_of_channel_is_the_member_s_choice_and_no_failure(with_points: bool) -> None:
    assert said("change of channel", with_points=with_points) == "You chose another way to pay."


def test_points_come_back_only_where_there_were_any() -> None:
    assert "Points" in said("query", with_points=True)
    assert said("query", with_points=False) == "That payment came to nothing. You can pay again."
