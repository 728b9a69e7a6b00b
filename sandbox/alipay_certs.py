"""Alipay's certificate mode: serial numbers, what a request must say, who signs an answer.

A certificate's SN is the MD5, in hexadecimal, of its issuer's name and its serial number in
decimal; the name is written from its last part to its first, as CN=…,OU=…,O=…,C=…. A file of roots
has the SNs of those that are signed with RSA (1.2.840.113549.1.1.*), joined by `_`. (Alipay, open
platform, "自行实现签名", certificate mode; the same in the official npm `alipay-sdk`,
`antcertutil`.)
"""

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from sandbox import certificates
from sandbox.keys import Keys

# Names of the parts that an issuer's name may have (RFC 4519 and the SDKs' own lists).
_PARTS = {
    NameOID.COMMON_NAME: "CN",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.COUNTRY_NAME: "C",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.LOCALITY_NAME: "L",
}
_RSA_SIGNATURES = "1.2.840.113549.1.1."


class Refused(Exception):
    """What a request says of its certificates is wrong: the gateway's sub_code and message."""

    def __init__(self, sub_code: str, message: str) -> None:
        super().__init__(f"{sub_code}: {message}")
        self.sub_code = sub_code
        self.message = message


@dataclass(frozen=True, kw_only=True)
class Signer:
    """With what Alipay signs for one merchant; `cert_sn` is empty in public-key mode."""

    key: rsa.RSAPrivateKey
    cert_sn: str = ""


def cert_sn(certificate: x509.Certificate) -> str:
    """A certificate's SN."""
    # One part after another, the last first: the order in which RFC 4514 writes names too.
    parts = [
        f"{_PARTS.get(part.oid, part.oid.dotted_string)}={part.value!s}"
        for part in reversed(list(certificate.issuer))
    ]
    text = f"{','.join(parts)}{certificate.serial_number}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=64)
def root_sn(roots_pem: str) -> str:
    """The SN of a file of roots."""
    return "_".join(
        cert_sn(root)
        for root in x509.load_pem_x509_certificates(roots_pem.encode())
        if root.signature_algorithm_oid.dotted_string.startswith(_RSA_SIGNATURES)
    )


def check_request(keys: Keys, app_cert_sn: str, alipay_root_cert_sn: str, now: int) -> None:
    """Certificate mode: both numbers must be there and right. Raises Refused."""
    if not app_cert_sn:
        raise Refused("isv.missing-app-cert-sn", "缺少应用公钥证书序列号")
    if not alipay_root_cert_sn:
        raise Refused("isv.missing-alipay-root-cert-sn", "缺少支付宝根证书序列号")
    app = x509.load_pem_x509_certificate(keys.alipay_app_cert_pem.encode())
    if app_cert_sn != cert_sn(app):
        raise Refused("isv.app-cert-not-exist", "应用公钥证书不存在")
    if datetime.fromtimestamp(now / 1_000, UTC) > app.not_valid_after_utc:
        raise Refused("isv.app-cert-expired", "应用公钥证书已过期")
    if alipay_root_cert_sn != root_sn(keys.alipay_roots_pem):
        raise Refused("isv.invalid-alipay-root-cert-sn", "无效的支付宝根证书序列号")


def signer(keys: Keys, *, certified: bool, now: int) -> Signer:
    """The public-key mode's key, or the newest certificate that is valid now."""
    if not certified:
        return Signer(key=keys.alipay_private)
    newest = certificates.newest_valid(keys.alipay_certificates, now)
    return Signer(key=newest.private, cert_sn=cert_sn(newest.certificate))


def download(keys: Keys, wanted_sn: str) -> str:
    """The certificate of this SN and its issuer's, PEM in base64. Raises Refused."""
    for known in keys.alipay_certificates:
        if cert_sn(known.certificate) == wanted_sn:
            pem = known.pem + keys.alipay_intermediate_pem
            return base64.b64encode(pem.encode()).decode()
    raise Refused("isv.alipay-cert-not-exist", "支付宝公钥证书不存在")
