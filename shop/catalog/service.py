"""What the shop sells."""

from shop.catalog import store
from shop.catalog.errors import ProductNotFound
from shop.catalog.models import Product


def shelf() -> list[Product]:
    """All goods for sale, in the order of the shop front."""
    return store.products_for_sale()


def find(sku: str) -> Product:
    """The goods under this number. Raises ProductNotFound."""
    product = store.product_by_sku(sku)
    if product is None:
        raise ProductNotFound(sku=sku)
    return product
