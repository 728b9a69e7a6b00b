"""A member's cart."""

from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError

from shop import current
from shop.cart import store
from shop.cart.models import QUANTITY_MAX
from shop.catalog.models import Product
from shop.db import transaction
from shop.orders.errors import QuantityOutOfBounds, TooManyLines
from shop.orders.service import LINES_MAX

# Two first additions of one product at once: the second finds the row of the first.
ADD_TRIES = 2


@dataclass(frozen=True, kw_only=True)
class CartLine:
    """So many of one product in the cart."""

    product: Product
    quantity: int


def contents(member_id: int) -> list[CartLine]:
    """What is in the cart, oldest first."""
    return [
        CartLine(product=product, quantity=quantity)
        for product, quantity in store.items_of(member_id)
    ]


def count(member_id: int) -> int:
    """How many pieces are in the cart."""
    return store.count_of(member_id)


def add(member_id: int, product_id: int, quantity: int) -> None:
    """Put so many more of a product into the cart; what is above the most stays out.

    Raises QuantityOutOfBounds, and TooManyLines where the cart holds as many kinds of goods as
    one order can.
    """
    _require_quantity(quantity)
    for tries_left in reversed(range(ADD_TRIES)):
        try:
            transaction(lambda: _add(member_id, product_id, quantity))
            return
        except IntegrityError:
            if tries_left == 0:
                raise


def set_quantity(member_id: int, product_id: int, quantity: int) -> None:
    """Change how many of a product there are in the cart. Raises QuantityOutOfBounds."""
    _require_quantity(quantity)
    transaction(lambda: store.set_quantity(member_id, product_id, quantity))


def remove(member_id: int, product_id: int) -> None:
    """Take a product out of the cart; one that is not in it is no error."""
    transaction(lambda: store.remove_items(member_id, [product_id]))


def _add(member_id: int, product_id: int, quantity: int) -> None:
    if store.raise_quantity(member_id, product_id, quantity):
        return
    if store.lines_of(member_id) >= LINES_MAX:
        raise TooManyLines(most=LINES_MAX)
    store.insert_item(member_id, product_id, quantity, current.clock().now())


def _require_quantity(quantity: int) -> None:
    if not 1 <= quantity <= QUANTITY_MAX:
        raise QuantityOutOfBounds(most=QUANTITY_MAX)
