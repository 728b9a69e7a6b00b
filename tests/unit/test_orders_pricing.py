"""How points and cash spread over an order: exact, within every line's bounds, always the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.catalog.models import PriceMode, Product
from shop.money import FEN_PER_POINT
from shop.orders.errors import PointsOutOfBounds
from shop.orders.pricing import Offer, offer, quote_offers, spread

FEN_MAX = 10_000_000
QUANTITIES = st.integers(1, 99)


@st.composite
def products(draw: st.DrawFn) -> Product:
    """A product of any of the three kinds, as the database would allow it."""
    mode = draw(st.sampled_from(list(PriceMode)))
    price = draw(st.integers(1, FEN_MAX))
    if mode is PriceMode.POINTS:
        return Product(price_mode=mode, price_points=price, price_fen=0, points_min=0, points_max=0)
    most = draw(st.integers(0, price)) if mode is PriceMode.MIXED else 0
    least = draw(st.integers(0, most))
    return Product(
        price_mode=mode, price_points=0, price_fen=price, points_min=least, points_max=most
    )


OFFERS = st.lists(st.builds(offer, products(), QUANTITIES), min_size=1, max_size=12)


@given(offers=OFFERS, data=st.data())
def test_every_line_is_within_its_bounds_and_the_sums_are_exact(
    offers: list[Offer], data: st.DataObject
) -> None:
    least = sum(one.points_min for one in offers)
    most = sum(one.points_max for one in offers)
    points = data.draw(st.integers(least, most))
    quote = quote_offers(offers, points)
    assert sum(line.points for line in quote.lines) == quote.points == points
    assert sum(line.amount_fen for line in quote.lines) == quote.amount_fen
    for one, line in zip(offers, quote.lines, strict=True):
        assert one.points_min <= line.points <= one.points_max
        assert line.amount_fen >= 0
        if one.product.price_mode == PriceMode.POINTS:
            assert line.amount_fen == 0
        else:
            assert line.amount_fen + line.points * FEN_PER_POINT == one.worth_fen
    assert quote.points + quote.amount_fen > 0


@given(offers=OFFERS, data=st.data())
def test_a_point_more_is_its_worth_in_cash_less(offers: list[Offer], data: st.DataObject) -> None:
    lowest = quote_offers(offers, None)
    extra = data.draw(st.integers(0, lowest.stand_in_max))
    quote = quote_offers(offers, lowest.points + extra)
    assert quote.amount_fen == lowest.amount_fen - extra * FEN_PER_POINT


@given(offers=OFFERS)
def test_points_outside_the_bounds_are_refused(offers: list[Offer]) -> None:
    least = sum(one.points_min for one in offers)
    most = sum(one.points_max for one in offers)
    for points in (least - 1, most + 1, -1):
        if least <= points <= most:
            continue
        with pytest.raises(PointsOutOfBounds):
            quote_offers(offers, points)


@given(room=st.lists(st.integers(0, FEN_MAX), min_size=1, max_size=20), data=st.data())
def test_a_spread_is_exact_in_proportion_and_never_over_the_room(
    room: list[int], data: st.DataObject
) -> None:
    amount = data.draw(st.integers(0, sum(room)))
    shares = spread(room, amount)
    assert sum(shares) == amount
    for share, space in zip(shares, room, strict=True):
        assert 0 <= share <= space
        # Less than one away from the exact proportion, told without fractions.
        assert abs(share * sum(room) - amount * space) < max(1, sum(room))
    assert spread(room, amount) == shares


def test_what_is_left_over_goes_to_the_largest_remainder_and_then_to_the_first() -> None:
    assert spread([10, 10, 10], 10) == [4, 3, 3]
    assert spread([1, 2, 3], 5) == [1, 2, 2]
    assert spread([0, 0], 0) == [0, 0]


@pytest.mark.parametrize("amount", [-1, 7])
def test_more_than_the_room_cannot_be_spread(amount: int) -> None:
    with pytest.raises(ValueError, match="cannot spread"):
        spread([1, 2, 3], amount)
