"""Reading the list of platform certificates (APIv3, "获取平台证书列表").

Each certificate comes encrypted with the APIv3 key, which only the gateway and the merchant know:
that is what vouches for a certificate that we see for the first time. The authority that signed it
(Tenpay.com) is not checked: the gateway publishes its root only for the merchants' certificates.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.x509 import load_pem_x509_certificate

from shop.gateways.reading import BadField, identifier, rfc3339_utc
from shop.gateways.wechatpay_keys import PlatformCertificate

MAX_CERTIFICATES: Final = 16
"""The list has one certificate, two while they change."""


def read_certificates(
    fields: Mapping[str, Any], decrypt: Callable[[Mapping[str, Any]], str]
) -> list[PlatformCertificate]:
    """The certificates of an answer; those that cannot be used are left out.

    `decrypt` opens one `encrypt_certificate`, and raises ValueError where it cannot. Raises
    BadField where not one can be read.
    """
    listed = fields.get("data")
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_CERTIFICATES:
        raise BadField("data is missing, empty or too long")
    found: list[PlatformCertificate] = []
    trouble = ""
    for one in listed:
        try:
            found.append(_read(one, decrypt))
        except Exception as error:  # noqa: BLE001  # whatever strange bytes make the parsers raise
            trouble = f"{type(error).__name__}: {error}"
    if not found:
        raise BadField(f"no certificate can be read: {trouble}")
    return found


def _read(listed: object, decrypt: Callable[[Mapping[str, Any]], str]) -> PlatformCertificate:
    if not isinstance(listed, dict) or not isinstance(listed.get("encrypt_certificate"), dict):
        raise BadField("no encrypt_certificate")
    certificate = load_pem_x509_certificate(decrypt(listed["encrypt_certificate"]).encode())
    if int(identifier(listed, "serial_no"), 16) != certificate.serial_number:
        raise BadField("serial_no is not the certificate's")
    return PlatformCertificate.of(certificate, retired_at=rfc3339_utc(listed.get("expire_time")))
