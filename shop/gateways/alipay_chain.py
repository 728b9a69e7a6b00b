"""Alipay's numbers (SN) of certificates, and whether one was issued under another.

Sources: OpenAPI, "证书签名方式"; the SN as computed by the official SDKs (Java:
AntCertificationUtil; npm: antcertutil).
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

MAX_CHAIN: Final = 8
MAX_CERTIFICATES: Final = 32
"""Alipay's file of root certificates has four."""

_RSA_SIGNATURES: Final = "1.2.840.113549.1.1"
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")


def cert_sn(certificate: x509.Certificate) -> str:
    """Alipay's number of a certificate: MD5 of the issuer's name (RFC 2253, hence last part first)
    and the serial number in decimal."""
    text = f"{certificate.issuer.rfc4514_string()}{certificate.serial_number}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def root_cert_sn(roots: Sequence[x509.Certificate]) -> str:
    """The numbers of all root certificates signed with RSA, joined by `_`; the others (SM2, ECDSA)
    are left out."""
    return "_".join(
        cert_sn(root)
        for root in roots
        if root.signature_algorithm_oid.dotted_string.startswith(_RSA_SIGNATURES)
    )


def certificates_of(pem: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM text in their order; words between them are passed over.

    Raises ValueError for none, for too many, and for one that cannot be read.
    """
    blocks = _BLOCK.findall(pem)
    if not blocks:
        raise ValueError("no certificate in PEM")
    if len(blocks) > MAX_CERTIFICATES:
        raise ValueError(f"more than {MAX_CERTIFICATES} certificates")
    return [x509.load_pem_x509_certificate(block) for block in blocks]


def chains_to(
    chain: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    *,
    at: datetime | None,
) -> bool:
    """Whether the first certificate was issued, by those after it, under one of the roots.

    With `at`, every certificate on the way must be valid at that moment.
    """
    here = chain[0]
    for _ in range(MAX_CHAIN):
        if at is not None and not here.not_valid_before_utc <= at <= here.not_valid_after_utc:
            return False
        root = _issuer(here, roots, anchors=True)
        if root is not None:
            return at is None or root.not_valid_before_utc <= at <= root.not_valid_after_utc
        above = _issuer(here, chain[1:], anchors=False)
        if above is None:
            return False
        here = above
    return False


def _issuer(
    certificate: x509.Certificate, candidates: Sequence[x509.Certificate], *, anchors: bool
) -> x509.Certificate | None:
    """Whose signature a certificate truly bears: an authority's, or a configured root's, which is
    one by being configured."""
    for candidate in candidates:
        if candidate == certificate or certificate.issuer != candidate.subject:
            continue
        try:
            if anchors or _is_authority(candidate):
                certificate.verify_directly_issued_by(candidate)
                return candidate
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
    return None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return constraints.value.ca
