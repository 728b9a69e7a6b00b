"""The same guard before who tells the payer's openid: another host, asked while a member waits."""

from shop.gateways.base import LoginRefused, PayerLogin
from shop.gateways.guard import BUSY, RESTING, Host
from shop.gateways.guard_observe import GatewayObserver
from shop.gateways.guard_retry import HOST_FAULTS


class GuardedLogin(PayerLogin):
    """A payer's login behind places and a circuit. A code works once, so nothing is repeated."""

    def __init__(
        self, login: PayerLogin, host: Host, channel: str, observer: GatewayObserver
    ) -> None:
        self._login = login
        self._host = host
        self._channel = channel
        self._observer = observer
        self.appid = login.appid

    def authorize_url(self, redirect_uri: str, state: str) -> str:
        """See `PayerLogin`."""
        return self._login.authorize_url(redirect_uri, state)

    def openid_of(self, code: str) -> str:
        """See `PayerLogin`. Raises LoginRefused, also where the call was not made."""
        turn = self._host.circuit.enter()
        if turn is None:
            raise self._turned_away(RESTING)
        failed: bool | None = None
        try:
            place = self._host.take()
            if place is None:
                raise self._turned_away(BUSY)
            try:
                openid = self._login.openid_of(code)
            except LoginRefused as error:
                failed = error.code in HOST_FAULTS
                raise
            finally:
                self._host.give_back(place)
            failed = False
            return openid
        finally:
            self._host.circuit.leave(turn, failed=failed)

    def _turned_away(self, why: str) -> LoginRefused:
        self._observer.turned_away(self._channel, "openid", why)
        return LoginRefused(why, "not asked")
