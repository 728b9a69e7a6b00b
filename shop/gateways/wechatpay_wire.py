"""WeChat Pay APIv3 on the wire: wechatpayv3's calls and cryptography on a transport of ours.

The library makes the calls' paths and bodies, signs, and opens ciphertexts; this module takes away
what it does besides: an own connection per call without time-out, no look at the clock, and a
request for `/v3/certificates` at its construction and whenever a serial is strange to it. Source of
the rules: APIv3, "签名验证" and "如何使用微信支付公钥验签"; GATEWAYS notes A and C.
"""

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from wechatpayv3 import WeChatPay as Library
from wechatpayv3 import WeChatPayType
from wechatpayv3.core import Core
from wechatpayv3.type import RequestType
from wechatpayv3.utils import aes_decrypt, rsa_sign

from config.settings import WeChatPaySettings
from shop.clock import Clock
from shop.gateways import keys
from shop.gateways.reading import BadField
from shop.gateways.transport import Answer, Transport, TransportFault
from shop.gateways.wechatpay_certificates import read_certificates
from shop.gateways.wechatpay_envelope import SIGNATURE_TYPE, EnvelopeRefused, open_envelope
from shop.gateways.wechatpay_keys import PlatformCertificate, PlatformKeys


def new_nonce() -> str:
    """32 characters that were never used before."""
    return secrets.token_hex(16).upper()


class Wire(Core):  # type: ignore[misc]  # the library has no annotations
    """The library's core with its I/O replaced. Thread-safe; what changes is in `keys`."""

    def __init__(
        self,
        settings: WeChatPaySettings,
        private_key: RSAPrivateKey,
        platform: PlatformKeys,
        *,
        transport: Transport,
        clock: Clock,
        nonce: Callable[[], str] = new_nonce,
    ) -> None:
        # No logger: at DEBUG the library writes decrypted notices to it.
        super().__init__(
            mchid=settings.mchid,
            cert_serial_no=settings.cert_serial,
            private_key=None,
            apiv3_key=settings.apiv3_key,
        )
        # The library would read the key from PEM once more, which is the most of its construction.
        self._private_key = private_key
        self._gate_way = settings.base_url
        self._platform = platform
        self._transport = transport
        self._clock = clock
        self.nonce = nonce
        if settings.fetch_certs:
            platform.fetch_by(self._fetch_certificates)

    def request(
        self, path: str, method: RequestType = RequestType.GET, data: object = None
    ) -> tuple[int, bytes]:
        """Sign, send and verify one call: its status and its body.

        A 2xx answer is returned only if its signature holds (204 too, over the empty body); other
        answers are never signed. Raises TransportFault, EnvelopeRefused.
        """
        self._platform.make_ready()
        answer = self._send(path, method.value, data)
        if 200 <= answer.status < 300:
            open_envelope(
                answer.headers, answer.body, self._platform.key_of_answer, self._clock.now()
            )
        return answer.status, answer.body

    def download(
        self,
        url: str,
        *,
        sink: Callable[[bytes], None],
        max_bytes: int,
        total_timeout_s: float,
    ) -> Answer:
        """A signed GET of an address that the gateway gave, as `Transport.download`.

        The address must be on the gateway's own host, as it gets our signature. Files are not
        signed. Raises TransportFault.
        """
        if not url.startswith(f"{self._gate_way}/"):
            raise TransportFault("bad_answer", "the file is not on the gateway's own host")
        path = url.removeprefix(self._gate_way)
        return self._transport.download(
            "GET",
            url,
            {**self._headers(path, "GET", ""), "Accept": "*/*"},
            sink=sink,
            max_bytes=max_bytes,
            total_timeout_s=total_timeout_s,
        )

    def open_notice(self, headers: Iterable[tuple[str, str]], body: bytes) -> str:
        """The text of a notice whose signature, serial and clock hold. Raises EnvelopeRefused."""
        return open_envelope(headers, body, self._platform.key_of_notice, self._clock.now())

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

    def _send(self, path: str, method: str, data: object = None) -> Answer:
        body = "" if data is None else json.dumps(data, ensure_ascii=False)
        headers = self._headers(path, method, body)
        if body:
            headers["Content-Type"] = "application/json"
        return self._transport.send(
            method, self._gate_way + path, headers=headers, body=body.encode() or None
        )

    def _headers(self, path: str, method: str, body: str) -> dict[str, str]:
        timestamp, nonce = str(int(self._clock.now().timestamp())), self.nonce()
        signature = rsa_sign(self._private_key, f"{method}\n{path}\n{timestamp}\n{nonce}\n{body}\n")
        headers = {
            "Accept": "application/json",
            "User-Agent": "payonce (wechatpayv3)",
            "Authorization": (
                f'{SIGNATURE_TYPE} mchid="{self._mchid}",nonce_str="{nonce}",'
                f'signature="{signature}",timestamp="{timestamp}",serial_no="{self._cert_serial_no}"'
            ),
        }
        # Without it the gateway signs its answer by a platform certificate.
        if self._platform.public_key_id:
            headers["Wechatpay-Serial"] = self._platform.public_key_id
        return headers

    def _fetch_certificates(self) -> list[PlatformCertificate]:
        """GET /v3/certificates. Raises TransportFault.

        The answer is signed like any other, maybe by a certificate that it brings: so it is
        decrypted first, and then its signature must hold by one of the keys known by now.
        """
        answer = self._send("/v3/certificates", "GET")
        if answer.status != 200:
            raise TransportFault("bad_answer", f"HTTP {answer.status}")
        try:
            brought = read_certificates(read_json(answer.body), self._open_certificate)
            open_envelope(
                answer.headers,
                answer.body,
                lambda serial: self._platform.key_among(serial, brought),
                self._clock.now(),
            )
        except BadField as error:
            raise TransportFault("bad_answer", str(error)) from None
        except EnvelopeRefused as error:
            raise TransportFault("bad_signature", str(error)) from None
        return brought

    def _open_certificate(self, sealed: Mapping[str, Any]) -> str:
        if sealed.get("algorithm") != "AEAD_AES_256_GCM":
            raise BadField("the algorithm is not AEAD_AES_256_GCM")
        text = self.decrypt(
            ciphertext=sealed["ciphertext"],
            nonce=sealed["nonce"],
            associated_data=sealed.get("associated_data") or "",
        )
        if text is None:
            raise BadField("it cannot be decrypted: is the APIv3 key right?")
        return text

    def _init_certificates(self) -> None:
        """The library's would make a request."""


class Client(Library):  # type: ignore[misc]  # the library has no annotations
    """The library's client on our wire: its own constructor would make another core."""

    def __init__(self, settings: WeChatPaySettings, wire: Wire) -> None:
        self._type = WeChatPayType.NATIVE
        self._mchid = settings.mchid
        self._appid = settings.appid
        self._notify_url = None
        self._partner_mode = False
        self._core = wire


def build_library(
    settings: WeChatPaySettings,
    transport: Transport,
    clock: Clock,
    nonce: Callable[[], str] = new_nonce,
) -> tuple[Client, Wire]:
    """The library's client on our wire. Raises SettingsError that says which key is wrong."""
    own = keys.private_key(settings.private_key_pem, "WECHATPAY_PRIVATE_KEY_FILE")
    keys.apiv3_key(settings.apiv3_key, "WECHATPAY_APIV3_KEY_FILE")
    keys.wechatpay_names(settings)
    theirs = None
    if settings.public_key_id:
        theirs = keys.public_key(
            settings.public_key_pem,
            "WECHATPAY_PUBLIC_KEY_FILE",
            own=own,
            own_variable="WECHATPAY_PRIVATE_KEY_FILE",
        )
    given = []
    if settings.platform_certs_pem:
        given = keys.certificates(settings.platform_certs_pem, "WECHATPAY_PLATFORM_CERTS", own=own)
    platform = PlatformKeys(
        public_key_id=settings.public_key_id,
        public_key=theirs,
        given=[PlatformCertificate.of(one) for one in given],
        clock=clock,
    )
    wire = Wire(settings, own, platform, transport=transport, clock=clock, nonce=nonce)
    return Client(settings, wire), wire


def read_json(body: bytes) -> Mapping[str, Any]:
    """A JSON object. Raises TransportFault `bad_answer` for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise TransportFault("bad_answer", f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise TransportFault("bad_answer", "not a JSON object")
    return value
