"""Alipay's two modes: which keys' signatures are believed.

A request names the application's certificate and the root certificates by their SN; an answer names
the certificate whose key signed it. Alipay renews that certificate from time to time; the new one
is fetched by `alipay.open.app.alipaycert.download` and believed if it chains to the configured
root. Sources: OpenAPI, "证书签名方式" and "支付宝公钥证书无感知升级".
"""

import base64
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.x509.oid import NameOID

from config.settings import AlipaySettings, SettingsError
from shop.clock import Clock
from shop.gateways.alipay_chain import cert_sn, certificates_of, chains_to, root_cert_sn
from shop.gateways.keys import MIN_KEY_BITS
from shop.gateways.strangers import strangers_turn

Download = Callable[[str], object]
"""Asks Alipay for the certificate of an SN: the answer's `alipay_cert_content`, not yet believed.
Raises what a gateway call raises."""

MAX_CERTIFICATE_BYTES: Final = 64 * 1024

FETCH_PAUSE_S: Final = 60.0
"""An SN that nobody knows may be a stranger's invention: it must not become a request each time."""

FETCH_WAIT_S: Final = 30.0
"""How long a second answer waits for the first to fetch. A notice waits for nobody."""

_SN = re.compile(r"[0-9a-f]{32}")

log = logging.getLogger(__name__)


class UnknownCertificate(Exception):
    """Signed under a certificate that is not known, or not believed."""


class SigningKeys(Protocol):
    """Alipay's keys in one of the two modes. Thread-safe."""

    request_fields: Mapping[str, str]
    """What this mode adds to every request."""

    def for_answer(self, serial: object, download: Download) -> RSAPublicKey:
        """The key of an answer that names `serial`. Raises UnknownCertificate."""
        ...

    def for_notice(self, serial: str, download: Download) -> Sequence[RSAPublicKey]:
        """The keys that a notice may be signed with; `serial` may be empty. Raises
        UnknownCertificate."""
        ...


class OneKey(SigningKeys):
    """Public-key mode: Alipay's public key, whatever an answer says besides."""

    request_fields: Mapping[str, str] = {}

    def __init__(self, key: RSAPublicKey) -> None:
        self._key = key

    def for_answer(self, serial: object, download: Download) -> RSAPublicKey:
        """See `SigningKeys`."""
        return self._key

    def for_notice(self, serial: str, download: Download) -> Sequence[RSAPublicKey]:
        """See `SigningKeys`."""
        return (self._key,)


class Certificates(SigningKeys):
    """Certificate mode. Asks Alipay for a new certificate only when an answer or notice names one.

    Answers and notices may each cause one request a minute and process: a stranger's notices must
    not keep a true answer's certificate from being fetched, nor wait for one.
    """

    def __init__(self, settings: AlipaySettings, own: RSAPrivateKey, clock: Clock) -> None:
        """Check the three certificates. Raises SettingsError naming the one that is wrong."""
        app = _configured(settings.app_cert_pem, "ALIPAY_APP_CERT_FILE")[0]
        self._chain = _configured(settings.alipay_cert_pem, "ALIPAY_CERT_FILE")
        self._roots = _configured(settings.root_cert_pem, "ALIPAY_ROOT_CERT_FILE")
        self._clock = clock
        self._own = own.public_key().public_numbers()
        root_sn = root_cert_sn(self._roots)
        if _rsa_key(app, "ALIPAY_APP_CERT_FILE").public_numbers() != self._own:
            raise SettingsError(
                "ALIPAY_APP_CERT_FILE: the certificate is not of the key in "
                "ALIPAY_PRIVATE_KEY_FILE; give the certificate that was issued for it."
            )
        if not root_sn:
            raise SettingsError(
                "ALIPAY_ROOT_CERT_FILE: no root certificate with an RSA signature; give Alipay's "
                "file of root certificates (alipayRootCert.crt)."
            )
        first = self._chain[0]
        key = _rsa_key(first, "ALIPAY_CERT_FILE")
        if key.public_numbers() == self._own:
            raise SettingsError(
                "ALIPAY_CERT_FILE: this is the application's own certificate; give Alipay's "
                "(alipayCertPublicKey_RSA2.crt)."
            )
        # Its dates are not looked at: Alipay may have renewed it, which the next answer will tell.
        if not chains_to(self._chain, self._roots, at=None):
            raise SettingsError(
                "ALIPAY_CERT_FILE: the certificate was not issued under those in "
                "ALIPAY_ROOT_CERT_FILE; give both as Alipay's portal shows them together."
            )
        self.request_fields = {"app_cert_sn": cert_sn(app), "alipay_root_cert_sn": root_sn}
        self._known: dict[str, RSAPublicKey] = {cert_sn(first): key}
        self._answers_turn = Lock()
        self._not_before_s = {"answer": 0.0, "notice": 0.0}

    def for_answer(self, serial: object, download: Download) -> RSAPublicKey:
        """See `SigningKeys`. An answer that names no certificate is not believed."""
        if not isinstance(serial, str) or _SN.fullmatch(serial) is None:
            raise UnknownCertificate("the answer names no certificate (alipay_cert_sn)")
        if serial in self._known:
            return self._known[serial]
        if not self._answers_turn.acquire(timeout=FETCH_WAIT_S):
            raise UnknownCertificate("another answer's certificate is still being fetched")
        try:
            if serial not in self._known:
                self._fetch(serial, download, "answer")
            return self._known[serial]
        finally:
            self._answers_turn.release()

    def for_notice(self, serial: str, download: Download) -> Sequence[RSAPublicKey]:
        """See `SigningKeys`. A notice need not name its certificate."""
        if not serial:
            return tuple(self._known.copy().values())
        if _SN.fullmatch(serial) is None:
            raise UnknownCertificate("alipay_cert_sn is malformed")
        if serial not in self._known:
            with strangers_turn() as ours:
                if not ours:
                    raise UnknownCertificate("another notice's certificate is being fetched")
                self._fetch(serial, download, "notice")
        return (self._known[serial],)

    def _fetch(self, serial: str, download: Download, cause: str) -> None:
        """Ask for a certificate and keep it if it is to be believed. Raises UnknownCertificate."""
        if time.monotonic() < self._not_before_s[cause]:
            raise UnknownCertificate(f"certificate {serial} is not known; the last one was asked "
                                     f"for less than {FETCH_PAUSE_S:.0f} s ago")  # fmt: skip
        self._not_before_s[cause] = time.monotonic() + FETCH_PAUSE_S
        try:
            key = self._believed(serial, download(serial))
        except UnknownCertificate:
            raise
        except Exception as error:
            raise UnknownCertificate(f"certificate {serial}: {type(error).__name__}") from error
        self._known[serial] = key
        log.warning(
            "Alipay signs with a new certificate, which was fetched and chains to the configured "
            "root; put it into ALIPAY_CERT_FILE",
            extra={"alipay_cert_sn": serial},
        )

    def _believed(self, serial: str, content: object) -> RSAPublicKey:
        """The key of a downloaded certificate. Raises UnknownCertificate, ValueError.

        A chain to the root is not enough, as applications' certificates have one too: it must be
        issued to the same organisation as the one we know, and not before it.
        """
        chain = _downloaded(content)
        first, known = chain[0], self._chain[0]
        if cert_sn(first) != serial:
            raise UnknownCertificate("another certificate came than the one asked for")
        if not chains_to([*chain, *self._chain[1:]], self._roots, at=self._clock.now()):
            raise UnknownCertificate(
                "the new certificate does not chain to the root, or is expired"
            )
        if _organisation(first) != _organisation(known):
            raise UnknownCertificate("the new certificate was issued to somebody else")
        if first.not_valid_before_utc < known.not_valid_before_utc:
            raise UnknownCertificate("the certificate is older than the configured one")
        key = first.public_key()
        if not isinstance(key, RSAPublicKey) or key.key_size < MIN_KEY_BITS:
            raise UnknownCertificate("the new certificate's key is not RSA, or too short")
        if key.public_numbers() == self._own:
            raise UnknownCertificate("the new certificate is our own")
        return key


def _organisation(certificate: x509.Certificate) -> list[str | bytes]:
    names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return [name.value for name in names]


def _downloaded(content: object) -> list[x509.Certificate]:
    """`alipay_cert_content`: base64 of the certificate file. Raises ValueError."""
    if not isinstance(content, str) or len(content) > MAX_CERTIFICATE_BYTES:
        raise ValueError("alipay_cert_content is missing or too long")
    raw = base64.b64decode("".join(content.split()), validate=True)
    if b"-----BEGIN" in raw:
        return certificates_of(raw)
    return [x509.load_der_x509_certificate(raw)]


def _configured(pem: str, variable: str) -> list[x509.Certificate]:
    """A configured file's certificates. Raises SettingsError."""
    try:
        return certificates_of(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            f"{variable}: {error}; give the file as Alipay's portal hands it out (PEM, beginning "
            "with -----BEGIN CERTIFICATE-----)."
        ) from None


def _rsa_key(certificate: x509.Certificate, variable: str) -> RSAPublicKey:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey) or key.key_size < MIN_KEY_BITS:
        raise SettingsError(
            f"{variable}: give a certificate of an RSA key of at least {MIN_KEY_BITS} bits."
        )
    return key
