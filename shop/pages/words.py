"""States and moves in people's words."""

from flask import Flask
from flask_babel import gettext
from flask_babel import lazy_gettext as _l

from shop.orders.models import Transition

CHANNEL_NAMES = {
    "points": _l("points"),
    "wechatpay": _l("WeChat Pay"),
    "alipay": _l("Alipay"),
}

ORDER_STATE_NAMES = {
    "created": _l("waiting for payment"),
    "paying": _l("being paid"),
    "paid": _l("paid"),
    "failed": _l("not paid"),
    "refunding": _l("being refunded"),
    "refunded": _l("refunded"),
    "closed": _l("closed"),
}

ACTOR_NAMES = {
    "member": _l("you"),
    "partner": _l("our partner"),
    "gateway": _l("the payment service"),
    "sweeper": _l("the shop"),
    "operator": _l("our staff"),
}


def _(message: str, **values: object) -> str:
    """The sentence in the page's language, with its places filled in."""
    return str(gettext(message, **values))


def channel_name(channel: str) -> str:
    """What people call this way to pay."""
    return str(CHANNEL_NAMES.get(channel, channel))


def order_state_name(state: str) -> str:
    """What people call this state."""
    return str(ORDER_STATE_NAMES.get(state, state))


def actor_name(actor: str) -> str:
    """Who did it, seen by the member."""
    return str(ACTOR_NAMES.get(actor, actor))


def move_sentence(move: Transition, *, channel: str, surplus: bool, with_points: bool) -> str:
    """One recorded move as a sentence. `channel` and `surplus` say more of an attempt's move,
    `with_points` whether its order takes any."""
    if move.subject == "attempt":
        return _attempt_sentence(move, channel_name(channel), surplus=surplus)
    return _order_sentence(move, with_points=with_points)


def _order_sentence(move: Transition, *, with_points: bool) -> str:
    match move.event:
        case "begin_payment":
            if move.cause == "pay by points":
                return _("You chose to pay with points.")
            return _("Payment began. What you ordered is set aside for you.")
        case "settle":
            return _("The order is paid. Thank you!")
        case "fail":
            if move.cause == "change of channel":
                return _("You chose another way to pay.")
            if not with_points:
                return _("That payment came to nothing. You can pay again.")
            return _("That payment came to nothing. Points set aside are back; you can pay again.")
        case "close":
            if move.actor == "member":
                return _("You cancelled the order. Nothing was charged.")
            return _("The time to pay ran out, so the order was closed. Nothing was charged.")
        case "begin_refund":
            return _("A refund began.")
        case "refund_in_part":
            return _("A part of the order was refunded.")
        case "refund_failed":
            return _("The refund did not go through.")
        case "refund_in_full":
            return _("The order was refunded in full.")
    return _("The order is now: %(state)s.", state=order_state_name(move.to_state))


def _attempt_sentence(move: Transition, channel: str, *, surplus: bool) -> str:
    match move.event:
        case "opened":
            return _("%(channel)s is ready to take the payment.", channel=channel)
        case "succeed":
            if surplus:
                return _(
                    "%(channel)s took money that this order did not need any more. It is recorded"
                    " as owed back to you.",
                    channel=channel,
                )
            return _("%(channel)s confirmed your payment.", channel=channel)
        case "fail":
            return _("%(channel)s refused the payment. Nothing was charged.", channel=channel)
        case "close":
            return _("The payment by %(channel)s was closed without a charge.", channel=channel)
    return channel


def init_words(app: Flask) -> None:
    """Give the words to all templates."""
    app.add_template_filter(channel_name)
    app.add_template_filter(order_state_name)
    app.add_template_filter(actor_name)
    app.add_template_filter(move_sentence)
