"""Which faults are whose, and which calls are made once more after them."""

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_result,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)

from shop.gateways.base import GatewayFault, Outcome, PrepayResult

# The gateway, or the way to it: the same for every merchant.
HOST_FAULTS: Final = frozenset(
    {
        *("timeout", "unreachable", "server_error"),
        *("SYSTEM_ERROR", "SERVICE_UNAVAILABLE"),
        # Alipay's 20000 says as sub_code which part of it is unwell ("public error codes").
        *("20000", "isp.unknow-error", "aop.unknow-error", "ACQ.SYSTEM_ERROR"),
    }
)
# One merchant's account. Asked too often: WeChat Pay's 429; Alipay's 40005 with its sub_codes, of
# the application and of the method ("public error codes").
TOO_OFTEN: Final = frozenset(
    {"FREQUENCY_LIMITED", "40005", "isv.app-call-limited", "isv.method-call-limited"}
)
ACCOUNT_FAULTS: Final = frozenset({"bad_signature", "bad_answer", *TOO_OFTEN})
# A time-out has cost its time already, and who is asked too often is not asked again at once.
RETRIED_FAULTS: Final = HOST_FAULTS - {"timeout"}

TRIES_MAX: Final = 3
RETRY_WITHIN_S: Final = 1.0
"""No try begins later than this after the first, so a call takes at most this much longer than its
connect and read time-outs."""
FIRST_WAIT_S, LONGEST_WAIT_S, JITTER_S = 0.1, 0.4, 0.1


class Result(Protocol):
    """What every result of a call has."""

    @property
    def outcome(self) -> Outcome:
        """See `Outcome`."""
        ...

    @property
    def fault(self) -> GatewayFault | None:
        """Why it did not simply succeed."""
        ...


R = TypeVar("R", bound=Result)


def fault_code(result: Result) -> str:
    """Why a call has no answer; "" where it has one."""
    unknown = result.outcome is Outcome.UNKNOWN
    return result.fault.code if unknown and result.fault else ""


def never(_result: Result) -> bool:
    """A call that is made once, whatever comes of it."""
    return False


def failed_harmlessly(result: Result) -> bool:
    """For a call that may be made twice: whether another try may soon fare better."""
    return fault_code(result) in RETRIED_FAULTS


def was_not_sent(result: PrepayResult) -> bool:
    """The same for a prepay: only where its first try certainly did not arrive."""
    return not result.sent and failed_harmlessly(result)


def repeatedly(ask: Callable[[], R], again: Callable[[R], bool], tell: Callable[[], None]) -> R:
    """Ask, and ask again while `again` says so and the bounds allow; `tell` hears of each."""
    tries = Retrying(
        retry=retry_if_result(again),
        stop=stop_after_attempt(TRIES_MAX) | stop_before_delay(RETRY_WITHIN_S),
        wait=wait_exponential_jitter(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S, jitter=JITTER_S),
        before_sleep=lambda _state: tell(),
        retry_error_callback=_last_result,
    )
    return tries(ask)


def _last_result(state: RetryCallState) -> object:
    """What the last try gave, once there are no more."""
    if state.outcome is None:
        raise RuntimeError("no try was made")
    return state.outcome.result()
