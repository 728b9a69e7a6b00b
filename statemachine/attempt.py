"""The payment attempt's chart (DESIGN section 4)."""

from statemachine import State
from statemachine.strict import StrictChart


class AttemptChart(StrictChart):
    """One try to pay on one channel.

    `opening`: our number is stored, the gateway may or may not know it yet. `pending`: it can be
    paid. Money that comes in after an attempt ended is still money: `succeed` leads out of `failed`
    and `closed` too, so that it is booked and never dropped.
    """

    opening = State("opening", initial=True)
    pending = State("pending")
    failed = State("failed")
    closed = State("closed")
    succeeded = State("succeeded", final=True)

    opened = opening.to(pending)
    succeed = (
        opening.to(succeeded) | pending.to(succeeded) | failed.to(succeeded) | closed.to(succeeded)
    )
    fail = opening.to(failed) | pending.to(failed)
    close = opening.to(closed) | pending.to(closed)


ATTEMPT_STATES = tuple(AttemptChart.states_map)
OPEN_ATTEMPT_STATES = ("opening", "pending")
