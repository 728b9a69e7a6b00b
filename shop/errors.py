"""One family of errors. The class docstring is the sentence that people read.

Each error carries its HTTP status and a stable code; one handler in the web layer renders it as
Problem Details (RFC 9457) or as a page. `{names}` in a docstring are filled from the fields.
"""

from typing import Any, ClassVar


class ShopError(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal-error"
    hint: ClassVar[str] = ""
    retry_after_s: ClassVar[int | None] = None
    may_have_acted: ClassVar[bool] = False
    """Whether what was asked for may have been done, wholly or in part."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        super().__init__(self.detail)

    @classmethod
    def sentence(cls) -> str:
        """What this error says, untranslated and with its places still open."""
        return " ".join((cls.__doc__ or "").split())

    @property
    def title(self) -> str:
        """The untranslated sentence, with its places still open."""
        return self.sentence()

    @property
    def detail(self) -> str:
        """The sentence with its fields filled in, in English."""
        return self.title.format(**self.fields)


class OrderNotFound(ShopError):
    """There is no order {order_code} of yours."""

    status = 404
    code = "order-not-found"
    hint = "Look at the list of your orders."


class OrderAlreadyPaid(ShopError):
    """Order {order_code} is already paid."""

    status = 409
    code = "order-already-paid"
    hint = "Nothing more is to be done; nothing was charged again."


class OrderClosed(ShopError):
    """Order {order_code} is closed and cannot be paid any more."""

    status = 409
    code = "order-closed"
    hint = "Place a new order."


class OrderExpired(ShopError):
    """The time to pay order {order_code} is over."""

    status = 409
    code = "order-expired"
    hint = "Place a new order."


class PaymentInProgress(ShopError):
    """A payment of this order is in progress right now."""

    status = 409
    code = "payment-in-progress"
    hint = "Wait a moment, then look at the order again before you retry."
    retry_after_s = 2


class WrongChannel(ShopError):
    """Order {order_code} cannot be paid by {channel}."""

    status = 422
    code = "wrong-channel"
    hint = "Choose one of: {choices}."


class TooManyAttempts(ShopError):
    """Order {order_code} was tried too many times."""

    status = 409
    code = "too-many-attempts"
    hint = "Place a new order."


class NotEnoughPoints(ShopError):
    """You have not enough points for this."""

    status = 409
    code = "not-enough-points"
    hint = "Choose fewer points, or other goods."


class OutOfStock(ShopError):
    """{product} is out of stock."""

    status = 409
    code = "out-of-stock"
    hint = "Choose something else, or fewer."


class PaymentRefused(ShopError):
    """The gateway refused this payment ({fault_code}). Nothing was charged."""

    status = 502
    code = "payment-refused"
    hint = "Try again, or choose the other way to pay."


class GatewayUnsure(ShopError):
    """The gateway gave no clear answer. Nothing is lost: we keep asking."""

    status = 503
    code = "gateway-unsure"
    may_have_acted = True
    hint = "Look at the order again in a few seconds."
    retry_after_s = 5


class GatewayAway(ShopError):
    """{channel} cannot be reached at the moment. Nothing was sent and nothing was charged."""

    status = 503
    code = "gateway-away"
    hint = "Choose the other way to pay, or try again in a minute."
    retry_after_s = 60


class PaymentHeld(ShopError):
    """The payment of order {order_code} does not agree with our books."""

    status = 409
    code = "payment-held"
    hint = "Nothing is lost: our staff will look at it. Do not pay again."


class CancelNotConfirmed(ShopError):
    """Order {order_code} is not cancelled yet: its gateway did not confirm it."""

    status = 503
    code = "cancel-not-confirmed"
    hint = "Cancel it again in a few seconds; until then it can still be paid."
    retry_after_s = 5


class LockServiceUnavailable(ShopError):
    """Payments are paused for a moment. Nothing was charged."""

    status = 503
    code = "lock-service-unavailable"
    hint = "Try again in a few seconds."
    retry_after_s = 3


class DatabaseUnavailable(ShopError):
    """Our books cannot be reached for a moment."""

    status = 503
    code = "database-unavailable"
    hint = "Try again in a few seconds; a payment under way is not lost."
    retry_after_s = 3


class Superseded(ShopError):
    """Someone else moved order {order_code} meanwhile."""

    status = 409
    code = "superseded"
    may_have_acted = True
    hint = "Look at the order again."
    retry_after_s = 1


class MoveRefused(ShopError):
    """Order {order_code} is {state}; what you asked for is not possible now."""

    status = 409
    code = "move-refused"
    hint = "Look at the order again; it may have moved meanwhile."


class IdempotencyKeyReused(ShopError):
    """This idempotency key was already used for another request."""

    status = 422
    code = "idempotency-key-reused"
    hint = "Use a new key for a new request, and the same key only to repeat one."


class IdempotencyKeyMissing(ShopError):
    """This request needs an idempotency key."""

    status = 400
    code = "idempotency-key-missing"
    hint = "Send 1 to 128 printable characters, new for each payment that you mean."
