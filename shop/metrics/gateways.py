"""The gateways' observer: what the guard tells becomes metrics here."""

from shop.gateways.guard_observe import GatewayObserver
from shop.metrics import instruments
from shop.metrics.tell import harmless

NS_PER_S = 1_000_000_000


class GatewayMetrics(GatewayObserver):
    """Counts and times calls to gateways."""

    @harmless
    def answered(self, channel: str, call: str, outcome: str, took_ns: int) -> None:
        """See GatewayObserver."""
        instruments.GATEWAY_CALLS.labels(channel, call, outcome).inc()
        instruments.GATEWAY_CALL.labels(channel, call).observe(took_ns / NS_PER_S)

    @harmless
    def repeated(self, channel: str, call: str) -> None:
        """See GatewayObserver."""
        instruments.GATEWAY_REPEATED.labels(channel, call).inc()

    @harmless
    def turned_away(self, channel: str, call: str, why: str) -> None:
        """See GatewayObserver."""
        instruments.GATEWAY_TURNED_AWAY.labels(channel, call, why).inc()

    @harmless
    def rests(self, channel: str, resting: bool) -> None:
        """See GatewayObserver."""
        instruments.GATEWAY_RESTING.labels(channel).inc(1 if resting else -1)
