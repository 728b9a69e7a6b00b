"""WeChat Pay APIv3 on the wire: wechatpayv3's signing and verification on a transport of ours.

The library signs requests and verifies signatures; this module takes away what it does besides: an
own connection per call without time-out, no look at the clock, and a request for
`/v3/certificates` whenever a serial is strange to it. Source of the rules: APIv3, "签名验证" and
"如何使用微信支付公钥验签"; GATEWAYS notes A and C.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from wechatpayv3 import WeChatPay as Library
from wechatpayv3 import WeChatPayType
from wechatpayv3.core import Core
from wechatpayv3.type import RequestType
from wechatpayv3.utils import aes_decrypt, build_authorization

from config.settings import WeChatPaySettings
from shop.clock import Clock
from shop.gateways import keys
from shop.gateways.reading import is_canonical_base64
from shop.gateways.transport import Answer, Transport, TransportFault

MAX_CLOCK_SKEW_S: Final = 300
"""A signature older or newer than this is a replay, or a clock to be mended (APIv3: 5 minutes)."""

SIGNATURE_TYPE: Final = "WECHATPAY2-SHA256-RSA2048"

_SIGNED_HEADERS: Final = (
    "Wechatpay-Serial",
    "Wechatpay-Timestamp",
    "Wechatpay-Nonce",
    "Wechatpay-Signature-Type",
    "Wechatpay-Signature",
)
_VISIBLE = re.compile(r"[\x21-\x7e]{1,1024}")
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)


class EnvelopeRefused(Exception):
    """The signature around an answer or a notice was not believed. `reason` as `NoticeRefused`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Wire(Core):  # type: ignore[misc]  # the library has no annotations
    """The library's core with its I/O replaced. Holds no state that changes; thread-safe."""

    def __init__(
        self,
        settings: WeChatPaySettings,
        private_pem: str,
        public_pem: str,
        transport: Transport,
        clock: Clock,
    ) -> None:
        # No logger: at DEBUG the library writes decrypted notices to it.
        super().__init__(
            mchid=settings.mchid,
            cert_serial_no=settings.cert_serial,
            private_key=private_pem,
            apiv3_key=settings.apiv3_key,
            public_key=public_pem,
            public_key_id=settings.public_key_id,
        )
        self._gate_way = settings.base_url
        self._transport = transport
        self._clock = clock

    def request(
        self, path: str, method: RequestType = RequestType.GET, data: object = None
    ) -> tuple[int, bytes]:
        """Sign, send and verify one call: its status and its body.

        A 2xx answer is returned only if its signature holds (204 too, over the empty body); other
        answers are never signed. Raises TransportFault, EnvelopeRefused.
        """
        body = "" if data is None else json.dumps(data, ensure_ascii=False)
        headers = {
            "Accept": "application/json",
            "User-Agent": "payonce (wechatpayv3)",
            "Wechatpay-Serial": self._public_key_id,
            "Authorization": build_authorization(
                path, method.value, self._mchid, self._cert_serial_no, self._private_key, data=body
            ),
        }
        if body:
            headers["Content-Type"] = "application/json"
        answer: Answer = self._transport.send(
            method.value, self._gate_way + path, headers=headers, body=body.encode() or None
        )
        if 200 <= answer.status < 300:
            self.open_envelope(answer.headers, answer.body)
        return answer.status, answer.body

    def open_envelope(self, headers: Iterable[tuple[str, str]], body: bytes) -> str:
        """The text of a body whose signature, serial and clock hold. Raises EnvelopeRefused."""
        signed = _signed_headers(headers)
        if signed["Wechatpay-Serial"] != self._public_key_id:
            raise EnvelopeRefused("unknown_serial", "not signed by the configured public key")
        self._check_clock(signed["Wechatpay-Timestamp"])
        if signed["Wechatpay-Signature-Type"] != SIGNATURE_TYPE:
            raise EnvelopeRefused("bad_signature", "not " + SIGNATURE_TYPE)
        # The gateway's probes ("WECHATPAY/SIGNTEST/…") take this way like any other bad signature.
        if not is_canonical_base64(signed["Wechatpay-Signature"]):
            raise EnvelopeRefused("bad_signature", "the signature is not base64")
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise EnvelopeRefused("bad_signature", f"the body is not UTF-8: {error}") from None
        if not self._verify_signature(signed, text):
            raise EnvelopeRefused("bad_signature", "the signature does not hold")
        return text

    def decrypt(self, *, ciphertext: str, nonce: str, associated_data: str) -> str | None:
        """Open a notice's resource with the APIv3 key; None if its tag does not hold.

        Raises ValueError for a nonce or base64 that cannot be.
        """
        text: str | None = aes_decrypt(
            nonce=nonce,
            ciphertext=ciphertext,
            associated_data=associated_data,
            apiv3_key=self._apiv3_key,
        )
        return text

    def _update_certificates(self) -> None:
        """Unreachable behind the serial check; if ever reached, no request may go out."""
        raise EnvelopeRefused("unknown_serial", "certificates are not fetched in public-key mode")

    def _check_clock(self, timestamp: str) -> None:
        if _SECONDS.fullmatch(timestamp) is None:
            raise EnvelopeRefused("malformed", "Wechatpay-Timestamp is not a number of seconds")
        # Whole seconds on both sides: a part of one must not push a notice out of the window.
        age_s = int(self._clock.now().timestamp()) - int(timestamp)
        if abs(age_s) > MAX_CLOCK_SKEW_S:
            raise EnvelopeRefused("stale", f"signed {age_s} s ago by our clock")


def _signed_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The five headers of a signature, each exactly once and free of control characters.

    Only these go to the library: it would also read Django's and FastAPI's spellings, and a line
    feed within the nonce would let the border between nonce and body be moved.
    """
    wanted = {name.lower(): name for name in _SIGNED_HEADERS}
    found: dict[str, str] = {}
    for key, value in headers:
        name = wanted.get(key.lower())
        if name is None:
            continue
        if name in found:
            raise EnvelopeRefused("malformed", f"{name} stands twice")
        if _VISIBLE.fullmatch(value) is None:
            raise EnvelopeRefused("malformed", f"{name} is empty, too long or not plain text")
        found[name] = value
    missing = [name for name in _SIGNED_HEADERS if name not in found]
    if missing:
        raise EnvelopeRefused("malformed", f"without {', '.join(missing)}")
    return found


def build_library(
    settings: WeChatPaySettings, transport: Transport, clock: Clock
) -> tuple[Library, Wire]:
    """The library's client on our wire. Raises SettingsError that says which key is wrong."""
    own = keys.private_key(settings.private_key_pem, "WECHATPAY_PRIVATE_KEY_FILE")
    theirs = keys.public_key(
        settings.public_key_pem,
        "WECHATPAY_PUBLIC_KEY_FILE",
        own=own,
        own_variable="WECHATPAY_PRIVATE_KEY_FILE",
    )
    keys.apiv3_key(settings.apiv3_key, "WECHATPAY_APIV3_KEY_FILE")
    keys.wechatpay_names(settings)
    private_pem, public_pem = keys.private_pem(own), keys.public_pem(theirs)
    library = Library(
        WeChatPayType.NATIVE,
        mchid=settings.mchid,
        private_key=private_pem,
        cert_serial_no=settings.cert_serial,
        appid=settings.appid,
        apiv3_key=settings.apiv3_key,
        public_key=public_pem,
        public_key_id=settings.public_key_id,
    )
    wire = Wire(settings, private_pem, public_pem, transport, clock)
    library._core = wire
    return library, wire


def read_json(body: bytes) -> Mapping[str, Any]:
    """A JSON object. Raises TransportFault `bad_answer` for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise TransportFault("bad_answer", f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise TransportFault("bad_answer", "not a JSON object")
    return value
