"""What goods cost, and how points spread over the lines of an order: integers, no I/O.

A line takes from `points_min` to `points_max` points; each point stands for
`money.FEN_PER_POINT` fen of its worth, the rest is cash. Goods priced in points have both bounds
equal and no worth in cash, goods priced in cash have both bounds zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shop.catalog.models import PriceMode, Product
from shop.money import FEN_PER_POINT
from shop.orders.errors import PointsOutOfBounds


@dataclass(frozen=True, kw_only=True)
class Offer:
    """So many of one product at today's price, before points are chosen."""

    product: Product
    quantity: int
    points_min: int
    points_max: int
    worth_fen: int


@dataclass(frozen=True, kw_only=True)
class QuoteLine:
    """One line with its share of the points and of the cash."""

    product: Product
    quantity: int
    points: int
    amount_fen: int


@dataclass(frozen=True, kw_only=True)
class Quote:
    """What an order would cost. `points` and `amount_fen` are exactly the sums of the lines.

    `points_min` and `points_max` bound the member's choice of points; `whole_fen` is what would be
    due in cash if no point stood in for any.
    """

    lines: tuple[QuoteLine, ...]
    points: int
    amount_fen: int
    points_min: int
    points_max: int
    whole_fen: int

    @property
    def price_tag(self) -> str:
        """What the member was shown, whatever split they choose; another tag, another price."""
        return f"{self.whole_fen}-{self.points_min}-{self.points_max}"

    @property
    def stand_in_max(self) -> int:
        """How many points can be chosen above the fewest."""
        return self.points_max - self.points_min


def offer(product: Product, quantity: int) -> Offer:
    """Today's price of so many of a product."""
    if product.price_mode == PriceMode.POINTS:
        points = product.price_points * quantity
        return Offer(
            product=product, quantity=quantity, points_min=points, points_max=points, worth_fen=0
        )
    return Offer(
        product=product,
        quantity=quantity,
        points_min=product.points_min * quantity,
        points_max=product.points_max * quantity,
        worth_fen=product.price_fen * quantity,
    )


def spread(room: Sequence[int], amount: int) -> list[int]:
    """Spread `amount` over places with so much room each, in proportion and exactly.

    Every place gets at least the whole part of its proportion; what is left goes, one each, to the
    largest remainders, the earlier place first. No place gets more than its room. Needs
    0 <= amount <= sum(room).
    """
    whole = sum(room)
    if not 0 <= amount <= whole:
        raise ValueError(f"cannot spread {amount} over {whole}")
    if whole == 0:
        return [0] * len(room)
    shares = [amount * one // whole for one in room]
    # A place with a remainder has room for one more: its exact share is above the whole part and
    # at most its room.
    order = sorted(range(len(room)), key=lambda place: (-(amount * room[place] % whole), place))
    for place in order[: amount - sum(shares)]:
        shares[place] += 1
    return shares


def quote_offers(offers: Sequence[Offer], points: int | None) -> Quote:
    """Price these offers with so many points (None: as few as possible).

    Raises PointsOutOfBounds.
    """
    points_min = sum(one.points_min for one in offers)
    points_max = sum(one.points_max for one in offers)
    chosen = points_min if points is None else points
    if not points_min <= chosen <= points_max:
        raise PointsOutOfBounds(points_min=points_min, points_max=points_max)
    extra = spread([one.points_max - one.points_min for one in offers], chosen - points_min)
    lines = tuple(_line(one, more) for one, more in zip(offers, extra, strict=True))
    return Quote(
        lines=lines,
        points=chosen,
        amount_fen=sum(line.amount_fen for line in lines),
        points_min=points_min,
        points_max=points_max,
        whole_fen=sum(one.worth_fen for one in offers),
    )


def _line(one: Offer, extra_points: int) -> QuoteLine:
    points = one.points_min + extra_points
    stand_in_fen = 0 if one.product.price_mode == PriceMode.POINTS else points * FEN_PER_POINT
    return QuoteLine(
        product=one.product,
        quantity=one.quantity,
        points=points,
        amount_fen=one.worth_fen - stand_in_fen,
    )
