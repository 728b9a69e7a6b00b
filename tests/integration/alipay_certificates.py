"""Alipay's certificate mode for tests: an authority of our own, and both sides' certificates.

As Alipay's: a root, an intermediate authority, and under it the certificates of applications and
Alipay's own; the file of Alipay's certificate has the intermediate's behind it.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID

from config.settings import AlipaySettings
from shop.gateways.alipay_chain import cert_sn
from tests.integration.gateway_server import Reply, alipay_reply
from tests.integration.keys import AlipayKeys, KeyPair, alipay_keys, new_key_pair

LIFE = timedelta(days=365)


@dataclass(frozen=True, kw_only=True)
class Authority:
    """Who signs certificates."""

    name: x509.Name
    key: KeyPair
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        """Its own certificate."""
        return text_of(self.certificate)


@dataclass(frozen=True, kw_only=True)
class Certified:
    """One application and Alipay, in certificate mode."""

    keys: AlipayKeys
    root: Authority
    middle: Authority
    app: x509.Certificate
    alipay: x509.Certificate

    def settings(
        self, base_url: str = "http://127.0.0.1:9/gateway.do", **changes: Any
    ) -> AlipaySettings:
        """The shop's side."""
        made = replace(
            self.keys.settings(base_url),
            public_key_pem="",
            app_cert_pem=text_of(self.app),
            alipay_cert_pem=text_of(self.alipay) + self.middle.pem,
            root_cert_pem=self.root.pem,
        )
        return replace(made, **changes)

    def issue(self, public_pem: str, **changes: Any) -> x509.Certificate:
        """One more certificate of Alipay's, by the intermediate authority."""
        return issue(changes.pop("by", self.middle), public_pem, **changes)


def name_of(organisation: str, common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Certification Authority"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def authority(common: str, *, under: Authority | None = None) -> Authority:
    """A root, or an authority under one."""
    key, name = new_key_pair(), name_of("Ant Tests", common)
    by = under or Authority(name=name, key=key, certificate=None)  # type: ignore[arg-type]  # itself
    certificate = issue(by, key.public_pem, subject=name, ca=True)
    return Authority(name=name, key=key, certificate=certificate)


def issue(
    by: Authority,
    public_pem: str,
    *,
    organisation: str = "支付宝(中国)网络技术有限公司",
    subject: x509.Name | None = None,
    start: datetime | None = None,
    life: timedelta = LIFE,
    ca: bool = False,
) -> x509.Certificate:
    """A certificate for a public key."""
    public = load_pem_public_key(public_pem.encode())
    private = load_pem_private_key(by.key.private_pem.encode(), None)
    assert isinstance(public, RSAPublicKey)
    assert isinstance(private, RSAPrivateKey)
    begins = start or datetime.now(UTC) - timedelta(days=10)
    return (
        x509.CertificateBuilder()
        .subject_name(subject or name_of(organisation, "alipay-2088"))
        .issuer_name(by.name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + life)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(private, SHA256())
    )


@cache
def certified() -> Certified:
    """The process's certificates, for the process's keys."""
    keys, root = alipay_keys(), authority("Root R1")
    middle = authority("Class 2 R1", under=root)
    return Certified(
        keys=keys,
        root=root,
        middle=middle,
        app=issue(middle, keys.app.public_pem, organisation="A shop"),
        alipay=issue(middle, keys.alipay.public_pem),
    )


def text_of(certificate: x509.Certificate) -> str:
    """PEM."""
    return certificate.public_bytes(Encoding.PEM).decode()


def certified_reply(
    keys: AlipayKeys, certificate: x509.Certificate, method: str, fields: Mapping[str, Any]
) -> Reply:
    """A signed answer that names the certificate, as certificate mode's do."""
    plain = alipay_reply(keys, method, fields).body.decode()
    return Reply(body=f'{plain[:-1]},"alipay_cert_sn":"{cert_sn(certificate)}"}}'.encode())


def download_reply(content: object) -> Reply:
    """The answer to alipay.open.app.alipaycert.download. Nobody who needs it can verify it."""
    method = "alipay.open.app.alipaycert.download"
    fields = {"code": "10000", "msg": "Success", "alipay_cert_content": content}
    return alipay_reply(alipay_keys(), method, fields)


def content_of(*certificates: x509.Certificate) -> str:
    """`alipay_cert_content`."""
    return base64.b64encode("".join(text_of(one) for one in certificates).encode()).decode()
