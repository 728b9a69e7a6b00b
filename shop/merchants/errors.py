"""What can be wrong with whom an order is to be paid to."""

from shop.errors import ShopError


class MerchantUnusable(ShopError):
    """The seller of this order cannot take payments right now. Nothing is lost."""

    status = 503
    code = "merchant-unusable"
    hint = "Try again later, or write to us."
    retry_after_s = 60


class AccountMoved(MerchantUnusable):
    """The seller's account was changed while this payment was open. Nothing is lost."""

    code = "merchant-moved"
    hint = "Do not pay again. Please write to us, so that we can settle your order."


class UnknownMerchant(MerchantUnusable):
    """The seller of this order takes no payments here any more. Nothing is lost."""

    code = "merchant-unknown"
    hint = "Please write to us, so that we can settle your order."
