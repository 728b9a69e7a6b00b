"""Which product of a gateway a payment is made by."""

from shop.gateways.base import Product

QR_PRODUCTS = {"wechatpay": Product.NATIVE, "alipay": Product.PRECREATE}
"""What can be paid wherever it is shown, with another device."""
