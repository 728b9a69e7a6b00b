"""Alipay OpenAPI on the wire: python-alipay-sdk's parameters, our transport, signing and checks.

Changed from the library, by overriding: the timestamp is Chinese time whatever the process's zone
is; requests go over our transport (bounded, no proxy, no redirect) as a POST, whose length no
server on the way limits and no access log keeps; RSA is done by `cryptography`, as the
library is slow in loading a key; the signed part of an answer is found by parsing, where the
library counts braces and is misled by one inside a string; and the key that must have signed is
chosen by mode (`alipay_certs`).
Source of the rules: Alipay OpenAPI, "签名", "自行实现验签" and "异步通知验签"; GATEWAYS notes B and
C. That the gateway takes POST and GET alike: the official SDKs, which use both.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from alipay import AliPay as Library
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from config.settings import AlipaySettings
from shop.clock import Clock
from shop.gateways import keys
from shop.gateways.alipay_certs import Certificates, OneKey, SigningKeys, UnknownCertificate
from shop.gateways.reading import china_time, is_canonical_base64
from shop.gateways.transport import Transport, TransportFault

SIGN_TYPE: Final = "RSA2"
CERTIFICATE_DOWNLOAD: Final = "alipay.open.app.alipaycert.download"

_WHITE: Final = " \t\r\n"
_HEADERS: Final = {
    "User-Agent": "payonce",
    "Content-Type": "application/x-www-form-urlencoded;charset=utf-8",
}


class AnswerRefused(Exception):
    """An answer that is not believed: unsigned, ill signed, or under an unknown certificate."""


class Wire(Library):  # type: ignore[misc]  # the library has no annotations
    """The library's client with its I/O replaced. Holds no state that changes; thread-safe."""

    def __init__(
        self,
        settings: AlipaySettings,
        private: RSAPrivateKey,
        theirs: SigningKeys,
        transport: Transport,
        clock: Clock,
    ) -> None:
        # Not verbose: at DEBUG the library would log what it signs.
        super().__init__(appid=settings.app_id, sign_type=SIGN_TYPE)
        self._private = private
        self._gateway = settings.base_url
        self._theirs = theirs
        self._transport = transport
        self._clock = clock

    def ask(self, method: str, content: Mapping[str, Any], **public: str) -> Mapping[str, Any]:
        """Make one call: the fields of its answer, whose signature holds.

        `public` are parameters beside `biz_content`, such as `notify_url`. Raises TransportFault,
        AnswerRefused, and ValueError for what is not an answer.
        """
        raw = self._send(self.build_body(method, dict(content), **public))
        name = method.replace(".", "_") + "_response"
        answer = _object(raw)
        if name not in answer and "error_response" in answer:
            name = "error_response"
        signature = answer.get("sign")
        if not isinstance(signature, str):
            # Gateway-level errors may come unsigned: a hint for the log and no more.
            raise AnswerRefused(f"unsigned answer: {raw}")
        signed = member_text(raw, name)
        try:
            key = self._theirs.for_answer(answer.get("alipay_cert_sn"), self.download_certificate)
        except UnknownCertificate as error:
            raise AnswerRefused(str(error)) from error
        if not _key_holds(key, signed, signature):
            raise AnswerRefused("the answer's signature does not hold")
        return _object(signed)

    def address(self, method: str, content: Mapping[str, Any], **public: str) -> str:
        """A signed address for the member's browser, which asks Alipay itself."""
        signed: str = self.client_api(method, dict(content), **public)
        return f"{self._gateway}?{signed}"

    def download_certificate(self, serial: str) -> object:
        """The content of one of Alipay's certificates, *not* believed: whoever cannot verify an
        answer cannot verify this one's signature either. Raises as `ask` does."""
        raw = self._send(self.build_body(CERTIFICATE_DOWNLOAD, {"alipay_cert_sn": serial}))
        name = CERTIFICATE_DOWNLOAD.replace(".", "_") + "_response"
        fields = _object(raw).get(name)
        if not isinstance(fields, dict):
            raise ValueError("no certificate in the answer")
        return fields.get("alipay_cert_content")

    def build_body(
        self, method: str, biz_content: object = None, **kwargs: object
    ) -> dict[str, Any]:
        """The parameters of one request, stamped with Chinese time."""
        body: dict[str, Any] = super().build_body(method, biz_content, **kwargs)
        body["timestamp"] = china_time(self._clock.now()).strftime("%Y-%m-%d %H:%M:%S")
        return {**body, **self._theirs.request_fields}

    def _load_key(self) -> None:
        """The library's keys are not used."""

    def _sign(self, unsigned_string: str) -> str:
        signature = self._private.sign(unsigned_string.encode(), PKCS1v15(), SHA256())
        return base64.b64encode(signature).decode()

    def holds(self, fields: Mapping[str, str], signature: str) -> bool:
        """Whether a notice's signature holds over `fields` (without `sign` and `sign_type`).

        Sources disagree on empty values, and do not say whether `alipay_cert_sn` is signed: any
        reading of the rule will do, because an empty value means nothing to us, and the number of
        a certificate nothing but which of Alipay's keys to take. Raises UnknownCertificate.
        """
        serial = fields.get("alipay_cert_sn", "")
        candidates = self._theirs.for_notice(serial, self.download_certificate)
        filled = {name: value for name, value in fields.items() if value}
        readings = [dict(fields), filled]
        if serial:
            readings += [_without(one, "alipay_cert_sn") for one in readings]
        contents = {"&".join(f"{name}={one[name]}" for name in sorted(one)) for one in readings}
        return any(
            _key_holds(key, content, signature) for key in candidates for content in contents
        )

    def _send(self, data: dict[str, Any]) -> str:
        """Send one request; the answer's text. Raises TransportFault, UnicodeDecodeError."""
        answer = self._transport.send(
            "POST",
            # The charset stands in the address too, as the body cannot be read without it.
            f"{self._gateway}?charset=utf-8",
            headers=_HEADERS,
            body=self.sign_data(data).encode("ascii"),
        )
        if answer.status != 200:
            code = "server_error" if answer.status >= 500 else "bad_answer"
            raise TransportFault(code, f"HTTP {answer.status}")
        return answer.body.decode("utf-8")


def _key_holds(key: RSAPublicKey, content: str, signature: str) -> bool:
    """Whether `signature` is the key's own over `content` (SHA256withRSA)."""
    if not is_canonical_base64(signature):
        return False
    try:
        key.verify(base64.b64decode(signature), content.encode(), PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def _without(fields: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in fields.items() if key != name}


def _object(raw: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError (and RecursionError for one nested too deeply)."""
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


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
    """The library's client on our transport. Raises SettingsError that says which key or
    certificate is wrong."""
    own = keys.private_key(settings.private_key_pem, "ALIPAY_PRIVATE_KEY_FILE")
    keys.alipay_names(settings)
    theirs: SigningKeys
    if settings.alipay_cert_pem:
        theirs = Certificates(settings, own, clock)
    else:
        theirs = OneKey(
            keys.public_key(
                settings.public_key_pem,
                "ALIPAY_PUBLIC_KEY_FILE",
                own=own,
                own_variable="ALIPAY_PRIVATE_KEY_FILE",
            )
        )
    return Wire(settings, own, theirs, transport, clock)
