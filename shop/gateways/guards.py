"""The guards of one process: who shares what."""

import threading
from urllib.parse import urlsplit

import structlog

from shop.gateways.base import Cancelling, Gateway
from shop.gateways.guard import CancellingGuard, Guard, Host, Places
from shop.gateways.guard_circuit import Circuit
from shop.gateways.guard_login import GuardedLogin
from shop.gateways.guard_observe import GatewayObserver

log = structlog.get_logger("payonce.gateways")


class Guards:
    """Makes the guards of one process: one host for all its merchants, one account for each.

    The state outlives the gateways, which are made anew when credentials change. Thread-safe.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        concurrency_of_all: int,
        failures: int,
        rest_ms: int,
        observer: GatewayObserver | None = None,
    ) -> None:
        """At most `concurrency` calls at once to one host, `concurrency_of_all` to all together;
        `failures` in a row open a circuit for `rest_ms`."""
        self._concurrency = concurrency
        self._all_places = Places(concurrency_of_all)
        self._failures = failures
        self._rest_s = rest_ms / 1000
        self._observer = observer or GatewayObserver()
        self._lock = threading.Lock()
        self._hosts: dict[tuple[str, str], Host] = {}
        self._accounts: dict[tuple[str, str], Circuit] = {}

    def around(self, gateway: Gateway, *, merchant: str, base_url: str) -> Guard:
        """The gateway of a merchant, guarded. `base_url` says on which host it is."""
        channel, host = gateway.channel, urlsplit(base_url).netloc
        with self._lock:
            at = self._host(channel, host)
            login_at = self._host(channel, "login")
            account = self._accounts.get((channel, merchant))
            if account is None:
                account = self._accounts[channel, merchant] = self._circuit(channel, merchant)
        kind = CancellingGuard if isinstance(gateway, Cancelling) else Guard
        guard = kind(gateway, at, account, self._observer)
        if gateway.payer_login is not None:
            guard.payer_login = GuardedLogin(gateway.payer_login, login_at, channel, self._observer)
        return guard

    def _host(self, channel: str, name: str) -> Host:
        found = self._hosts.get((channel, name))
        if found is None:
            places, circuit = Places(self._concurrency), self._circuit(channel, name)
            made = Host(places, self._all_places, circuit)
            found = self._hosts[channel, name] = made
        return found

    def _circuit(self, channel: str, whose: str) -> Circuit:
        def changed(opened: bool) -> None:
            if opened:
                log.warning("gateway_rests", channel=channel, of=whose, rest_s=self._rest_s)
            else:
                log.info("gateway_is_back", channel=channel, of=whose)
            self._observer.rests(channel, opened)

        return Circuit(failures=self._failures, rest_s=self._rest_s, changed=changed)
