"""The hook through which the guard tells what it does. It knows no metrics library."""


class GatewayObserver:
    """Override what you want to know. Called by the threads that call gateways: be quick, be
    thread-safe, and raise nothing. Times are in nanoseconds by the monotonic clock."""

    def answered(self, channel: str, call: str, outcome: str, took_ns: int) -> None:
        """A call was made, its repetitions included, and had this outcome."""

    def repeated(self, channel: str, call: str) -> None:
        """A call is made once more, as its last try certainly did no harm."""

    def turned_away(self, channel: str, call: str, why: str) -> None:
        """A call was not made: `gateway_busy` or `gateway_resting`."""

    def rests(self, channel: str, resting: bool) -> None:
        """A gateway, or one account at it, is left alone from now on; or is asked again."""
