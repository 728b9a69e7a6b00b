"""Who asks, where proxies stand between: X-Forwarded-For, believed from the proxies named alone.

A proxy puts the address of whoever asked it at the end of that header, so it is read from its end
for as long as the one who added the entry is named; what stands before may be anybody's invention.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ANYONE: Final = "*"


class ForwardedFor:
    """WSGI: puts the address of who asked first into `REMOTE_ADDR`.

    `proxies`: addresses and networks with commas between them; with `*` whoever is connected to us
    counts as the one proxy.
    """

    def __init__(self, app: "WSGIApplication", proxies: str) -> None:
        self._app = app
        named = [one.strip() for one in proxies.split(",") if one.strip()]
        self._anyone = ANYONE in named
        self._networks = [ip_network(one) for one in named if one != ANYONE]

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        forwarded = environ.get("HTTP_X_FORWARDED_FOR", "")
        environ["REMOTE_ADDR"] = self.client(environ.get("REMOTE_ADDR", ""), forwarded)
        return self._app(environ, start_response)

    def client(self, peer: str, forwarded: str) -> str:
        """Who asked, by who is connected to us and by what the proxies say. Entries that are no
        address are not read past."""
        found = _address(peer)
        believed = self._anyone
        for entry in reversed(forwarded.split(",")):
            before = _address(entry)
            if before is None or not (believed or self._is_proxy(found)):
                break
            found, believed = before, False
        return peer if found is None else str(found)

    def _is_proxy(self, address: IPv4Address | IPv6Address | None) -> bool:
        return any(address in network for network in self._networks if address is not None)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        # A zone means something on one host only, and IPv4 may come in IPv6's clothes.
        return None if address.scope_id else address.ipv4_mapped or address
    return address
