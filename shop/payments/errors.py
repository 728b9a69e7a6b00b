"""What a member is told when a gateway did not do as asked, by reason.

Under `PaymentRefused` nothing was opened, under `GatewayAway` nothing was sent, under
`GatewayUnsure` it may have been. For a program the code of these three is all there is to act on;
the sentence tells a person more. shop/payments/words.py says which gateway code is which.
The last ones are refusals of our own, before a gateway is asked.
"""

from shop.errors import GatewayAway, GatewayUnsure, PaymentRefused, ShopError


class GatewayResting(GatewayAway):
    """{channel} has not answered for a while, so we give it a short rest. Nothing was sent and
    nothing was charged."""

    hint = "Choose the other way to pay, or try again in half a minute."
    retry_after_s = 30


class GatewayBusy(GatewayAway):
    """Too many payments by {channel} are waiting for it right now. Nothing was sent and nothing
    was charged."""

    hint = "Try again in a few seconds, or choose the other way to pay."
    retry_after_s = 5


class AmountRefused(PaymentRefused):
    """{channel} does not take this amount from you. Nothing was charged."""

    hint = "You may have reached a limit of your account there: choose the other way to pay."


class WordRefused(PaymentRefused):
    """{channel} refuses a word in this order's description. Nothing was charged."""

    hint = "It is not your fault. Choose the other way to pay."


class MerchantRefused(PaymentRefused):
    """Our account at {channel} is not set up rightly for this. Nothing was charged."""

    hint = "It is not your fault. Choose the other way to pay."


class AccountUnsure(GatewayUnsure):
    """{channel} says that an account is not in order, so it may not take this payment."""

    hint = "Look at your account there; this page keeps asking what became of the payment."


class LimitUnsure(GatewayUnsure):
    """{channel} says that a rule or a limit stands against this payment."""

    hint = "This page keeps asking. If nothing comes of it, choose the other way to pay."


class MerchantUnsure(GatewayUnsure):
    """{channel} does not accept how our account there is set up. It is not your fault."""

    hint = "We keep asking. If nothing comes of it, choose the other way to pay."


class KnownAtGateway(GatewayUnsure):
    """{channel} knows this payment already; it may be paid. We are asking."""

    hint = "Do not pay again: look at the order in a few seconds."


class TooOftenAtGateway(GatewayUnsure):
    """{channel} is asked too often right now. Nothing is lost: we keep asking, more slowly."""

    hint = "Look at the order again in half a minute."
    retry_after_s = 30


class ChannelNotHere(ShopError):
    """Order {order_code} cannot be paid by {channel} on this device."""

    status = 422
    code = "channel-not-here"
    hint = "Open this page on a computer or in your phone's own browser, or choose another way."


class TooLateToPay(ShopError):
    """It is too late to begin a payment of order {order_code}: its time is all but over."""

    status = 409
    code = "too-late-to-pay"
    hint = "Place a new order. If you have paid already, look at the order in a few seconds."
