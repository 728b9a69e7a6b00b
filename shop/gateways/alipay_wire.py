"""Alipay OpenAPI on the wire: python-alipay-sdk's signing and verification, our transport.

Changed from the library, by overriding: the timestamp is Chinese time whatever the process's zone
is; requests go over our transport (bounded, no proxy, no redirect); and the signed part of an
answer is found by parsing, where the library counts braces and is misled by one inside a string.
Source of the rules: Alipay OpenAPI, "签名" and "异步通知验签"; GATEWAYS notes B and C.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from alipay import AliPay as Library

from config.settings import AlipaySettings
from shop.clock import Clock
from shop.gateways import keys
from shop.gateways.reading import china_time, is_canonical_base64
from shop.gateways.transport import Transport, TransportFault

SIGN_TYPE: Final = "RSA2"

_WHITE: Final = " \t\r\n"


class Wire(Library):  # type: ignore[misc]  # the library has no annotations
    """The library's client with its I/O replaced. Holds no state that changes; thread-safe."""

    def __init__(
        self,
        settings: AlipaySettings,
        private_pem: str,
        public_pem: str,
        transport: Transport,
        clock: Clock,
    ) -> None:
        # Not verbose: at DEBUG the library would log what it signs.
        super().__init__(
            appid=settings.app_id,
            app_private_key_string=private_pem,
            alipay_public_key_string=public_pem,
            sign_type=SIGN_TYPE,
        )
        self._gateway = settings.base_url
        self._transport = transport
        self._clock = clock

    def build_body(
        self, method: str, biz_content: object = None, **kwargs: object
    ) -> dict[str, Any]:
        """The parameters of one request, stamped with Chinese time."""
        body: dict[str, Any] = super().build_body(method, biz_content, **kwargs)
        body["timestamp"] = china_time(self._clock.now()).strftime("%Y-%m-%d %H:%M:%S")
        return body

    def verified_sync_response(self, data: dict[str, Any], response_type: str) -> Any:
        """Send one request; the value of `response_type`, if its signature holds.

        Raises TransportFault, and what the library raises for unsigned or ill-signed answers.
        """
        answer = self._transport.send(
            "GET", f"{self._gateway}?{self.sign_data(data)}", headers={"User-Agent": "payonce"}
        )
        if answer.status != 200:
            code = "server_error" if answer.status >= 500 else "bad_answer"
            raise TransportFault(code, f"HTTP {answer.status}")
        return self._verify_and_return_sync_response(answer.body.decode("utf-8"), response_type)

    def holds(self, fields: Mapping[str, str], signature: str) -> bool:
        """Whether a notice's signature holds over `fields` (without `sign` and `sign_type`).

        Sources disagree on empty values: either reading of the rule will do, because an empty
        value means nothing to us.
        """
        if not is_canonical_base64(signature):
            return False
        # Copies: the library's `verify` changes the mapping that it is given.
        return bool(
            self.verify(dict(fields), signature)
            or self.verify({key: value for key, value in fields.items() if value}, signature)
        )

    def _get_string_to_be_signed(self, raw_string: str, response_type: str) -> str:
        return member_text(raw_string, response_type)


def member_text(raw: str, name: str) -> str:
    """The text of one member's value in a JSON object, byte for byte as it was sent.

    Raises ValueError if there is no such member.
    """
    decoder = json.JSONDecoder()
    at = _skip(raw, 0, "{")
    while True:
        key, at = decoder.raw_decode(raw, _past_white(raw, at))
        start = _past_white(raw, _skip(raw, at, ":"))
        _, at = decoder.raw_decode(raw, start)
        if key == name:
            return raw[start:at]
        at = _skip(raw, at, ",")


def _past_white(raw: str, at: int) -> int:
    while at < len(raw) and raw[at] in _WHITE:
        at += 1
    return at


def _skip(raw: str, at: int, sign: str) -> int:
    at = _past_white(raw, at)
    if raw[at : at + 1] != sign:
        raise ValueError(f"expected {sign!r} at character {at}")
    return at + 1


def build_library(settings: AlipaySettings, transport: Transport, clock: Clock) -> Wire:
    """The library's client on our transport. Raises SettingsError that says which key is wrong."""
    own = keys.private_key(settings.private_key_pem, "ALIPAY_PRIVATE_KEY_FILE")
    theirs = keys.public_key(
        settings.public_key_pem,
        "ALIPAY_PUBLIC_KEY_FILE",
        own=own,
        own_variable="ALIPAY_PRIVATE_KEY_FILE",
    )
    keys.alipay_names(settings)
    return Wire(settings, keys.private_pem(own), keys.public_pem(theirs), transport, clock)
