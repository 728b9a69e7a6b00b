"""Whose gateways: each merchant has accounts of its own, whose keys may change while we run."""

import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeVar

from shop.gateways.base import Gateway
from shop.merchants.errors import MerchantUnusable, UnknownMerchant

DEFAULT_MERCHANT: Final = "default"
"""The shop's own accounts, configured by the environment."""

LOOK_EVERY_S: Final = 1.0
"""So often, at most, a process looks whether a merchant's credentials changed."""

# Credentials that change while they are read are read again, so often at once.
READ_TRIES: Final = 3

Account = TypeVar("Account")
Account_co = TypeVar("Account_co", covariant=True)


class Gateways(Protocol):
    """The gateways of every merchant. Thread-safe."""

    def of(self, merchant: str) -> Mapping[str, Gateway]:
        """A merchant's gateways by channel. Raises UnknownMerchant, or MerchantUnusable where its
        credentials cannot be read."""
        ...


class FixedGateways(Gateways):
    """Gateways that were made at the start and never change."""

    def __init__(self, merchants: Mapping[str, Mapping[str, Gateway]]) -> None:
        self._merchants = merchants

    def of(self, merchant: str) -> Mapping[str, Gateway]:
        """See `Gateways`."""
        try:
            return self._merchants[merchant]
        except KeyError:
            raise UnknownMerchant(merchant=merchant) from None


class Credentials(Protocol[Account_co]):
    """Where merchants' credentials are kept. Thread-safe."""

    def stamp(self, merchant: str) -> Hashable:
        """Changes whenever the credentials may have changed; cheap. Raises UnknownMerchant, and
        whatever the place they are kept in raises."""
        ...

    def read(self, merchant: str) -> Account_co:
        """The credentials as they are now. Raises ValueError saying what is wrong with them."""
        ...


@dataclass
class _Entry:
    """What is known of one merchant. `gateways` is replaced as a whole, never changed."""

    stamp: Hashable = None
    gateways: Mapping[str, Gateway] | None = None
    trouble: str = ""
    away: bool = False
    look_at: float = 0.0
    turn: threading.Lock = field(default_factory=threading.Lock)


class RotatingGateways(Gateways, Generic[Account]):
    """Gateways made anew when their credentials change, without a restart.

    All gateways of a merchant are made from one reading of its credentials. Who looks is a thread
    that wants a gateway; the others go on with what there is, and so does a call under way, which
    keeps its gateway to its end. New credentials that cannot be used are told once, and the ones
    before stay in use.
    """

    def __init__(
        self,
        credentials: Credentials[Account],
        make: Callable[[str, Account], Mapping[str, Gateway]],
        *,
        told: Callable[[str, str], None],
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """`make` checks the keys and connects to nothing; it raises ValueError. `told` is called
        with merchant and "" where new credentials came into use, else with what is wrong."""
        self._credentials = credentials
        self._make = make
        self._told = told
        self._look_every_s = look_every_s
        self._entries: dict[str, _Entry] = {}
        _all.add(self)

    def of(self, merchant: str) -> Mapping[str, Gateway]:
        """See `Gateways`."""
        entry = self._entries.get(merchant)
        if entry is None:
            # Anybody may name any merchant: what does not exist takes no place here.
            self._credentials.stamp(merchant)
            entry = self._entries.setdefault(merchant, _Entry())
        if self._is_due(entry) and entry.turn.acquire(blocking=entry.gateways is None):
            try:
                if self._is_due(entry):
                    self._look(merchant, entry)
            finally:
                entry.turn.release()
        if entry.gateways is None:
            raise MerchantUnusable(merchant=merchant, trouble=entry.trouble)
        return entry.gateways

    @staticmethod
    def _is_due(entry: _Entry) -> bool:
        """Nothing was read so far, or that is long enough ago."""
        return entry.stamp is None or time.monotonic() >= entry.look_at

    def _look(self, merchant: str, entry: _Entry) -> None:
        """See whether the credentials changed, and take the new ones if they can be used."""
        entry.look_at = time.monotonic() + self._look_every_s
        try:
            for _ in range(READ_TRIES):
                stamp = self._credentials.stamp(merchant)
                entry.away = False
                # Read at one moment, or what was read may be of both.
                if stamp == entry.stamp or self._take(merchant, entry, stamp):
                    return
        except UnknownMerchant:
            self._entries.pop(merchant, None)
            raise
        except Exception as error:
            # Where they are kept cannot be looked at now: that is no reason to stop paying.
            if entry.gateways is None:
                raise
            if not entry.away:
                entry.away = True
                self._told(merchant, f"not looked at: {type(error).__name__}")

    def _take(self, merchant: str, entry: _Entry, stamp: Hashable) -> bool:
        """Read the credentials of this stamp; False where they changed meanwhile."""
        first = entry.gateways is None
        trouble = ""
        try:
            account = self._credentials.read(merchant)
            gateways = MappingProxyType(dict(self._make(merchant, account)))
        except ValueError as error:
            trouble = str(error)
        if self._credentials.stamp(merchant) != stamp:
            return False
        if not trouble:
            entry.gateways = gateways
        entry.stamp = stamp
        if trouble != entry.trouble or (not trouble and not first):
            self._told(merchant, trouble)
        entry.trouble = trouble
        return True

    def trouble(self, merchant: str) -> str:
        """What is wrong with the newest credentials; "" where they are in use."""
        entry = self._entries.get(merchant)
        return entry.trouble if entry else ""

    def renew_locks(self) -> None:
        """In a forked child: no thread of the parent's lives here."""
        for entry in self._entries.values():
            entry.turn = threading.Lock()


_all: "weakref.WeakSet[RotatingGateways[Any]]" = weakref.WeakSet()


def _renew_locks() -> None:
    for gateways in _all:
        gateways.renew_locks()


# A lock that another thread held at the fork would never be free in the child.
os.register_at_fork(after_in_child=_renew_locks)
