"""The order's chart (DESIGN section 4)."""

from statemachine import State
from statemachine.strict import GuardRefused, StrictChart


class OrderChart(StrictChart):
    """An order from its creation to its end.

    `failed` means "not paid, may be paid again"; `closed` and `refunded` are final.
    """

    created = State("created", initial=True)
    paying = State("paying")
    paid = State("paid")
    failed = State("failed")
    refunding = State("refunding")
    refunded = State("refunded", final=True)
    closed = State("closed", final=True)

    begin_payment = created.to(paying) | failed.to(paying)
    settle = paying.to(paid, validators="the_amount_matches")
    fail = paying.to(failed)
    close = (
        created.to(closed)
        | failed.to(closed)
        | paying.to(closed, validators="the_gateway_confirmed_that_nothing_was_paid")
    )
    begin_refund = paid.to(refunding)
    refund_in_part = refunding.to(paid)
    refund_failed = refunding.to(paid)
    refund_in_full = refunding.to(refunded)

    def the_amount_matches(self, amount_due_fen: int, amount_paid_fen: int) -> None:
        """Money of another amount never pays an order."""
        if amount_due_fen != amount_paid_fen:
            raise GuardRefused(f"due are {amount_due_fen} fen, paid were {amount_paid_fen}")

    def the_gateway_confirmed_that_nothing_was_paid(self, confirmed_unpaid: bool = False) -> None:
        """While a payment may still come in, an order is not closed on our word alone."""
        if not confirmed_unpaid:
            raise GuardRefused("the gateway has not confirmed that nothing was paid")


ORDER_STATES = tuple(OrderChart.states_map)
