"""What can be wrong with a choice of goods."""

from shop.errors import ShopError


class ProductNotFound(ShopError):
    """These goods are not in the shop (any more)."""

    status = 404
    code = "product-not-found"
    hint = "Look at what else there is."
