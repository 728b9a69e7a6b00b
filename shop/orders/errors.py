"""What can be wrong with an order before it is one."""

from shop.errors import ShopError


class OrderEmpty(ShopError):
    """There is nothing in this order."""

    status = 422
    code = "order-empty"
    hint = "Choose something from the shop first."


class TooManyLines(ShopError):
    """An order can hold at most {most} different goods."""

    status = 422
    code = "too-many-lines"
    hint = "Place two orders instead."


class QuantityOutOfBounds(ShopError):
    """Of one thing you can order from 1 to {most}."""

    status = 422
    code = "quantity-out-of-bounds"
    hint = "Choose another quantity."


class PointsOutOfBounds(ShopError):
    """This order can be paid with {points_min} to {points_max} points."""

    status = 422
    code = "points-out-of-bounds"
    hint = "Go back to the checkout and move the slider."


class SeveralSellers(ShopError):
    """These goods have different sellers and need an order each: {goods}."""

    status = 422
    code = "several-sellers"
    hint = "Order them separately: leave only the goods of one seller in the cart."


class PriceChanged(ShopError):
    """A price has changed since you looked at it. Nothing was ordered."""

    status = 409
    code = "price-changed"
    hint = "Go back to the checkout and look at the new price."


class SubmitTokenMissing(ShopError):
    """This order form is incomplete."""

    status = 400
    code = "submit-token-missing"
    hint = "Open the checkout again and place the order from there."


class SubmitTokenReused(ShopError):
    """This form was already sent: it made order {order_code}, with other goods or points."""

    status = 422
    code = "submit-token-reused"
    hint = "Look at that order, or choose the goods again for a new one."
