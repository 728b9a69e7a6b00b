"""Whose gateways: each merchant has accounts of its own."""

from collections.abc import Mapping
from typing import Final, Protocol

from shop.gateways.base import Gateway

DEFAULT_MERCHANT: Final = "default"
"""The shop's own accounts, configured by the environment."""


class UnknownMerchant(LookupError):
    """No merchant of this name is configured (any more)."""


class Gateways(Protocol):
    """The gateways of every merchant. Thread-safe."""

    def of(self, merchant: str) -> Mapping[str, Gateway]:
        """A merchant's gateways by channel. Raises UnknownMerchant."""
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
            raise UnknownMerchant(merchant) from None
