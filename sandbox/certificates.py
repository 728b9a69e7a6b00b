"""X.509: the authorities of both gateways, and the certificates they give.

WeChat Pay: one authority signs the merchants' certificates and the platform's. Alipay: a root and
an intermediate authority, whose certificates and signatures are RSA (algorithms
1.2.840.113549.1.1.*), as certificate mode counts only those; the file of roots also holds one with
another algorithm, as the real one does, which a client must pass over.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sandbox import chance, clock, files

AUTHORITY_LIFE_S = 20 * 365 * 86_400
# As the real platform certificates: five years.
LIFE_S = 5 * 365 * 86_400
# A certificate is valid a little before it is made, for clocks that run behind.
LEEWAY_MS = 86_400_000


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A gateway's own certificate, with the key that signs."""

    certificate: x509.Certificate
    private: rsa.RSAPrivateKey

    @property
    def serial(self) -> str:
        """As WeChat Pay writes it: upper-case hexadecimal."""
        return serial_of(self.certificate)

    @property
    def pem(self) -> str:
        """The certificate alone."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def valid_from_ms(self) -> int:
        """From this moment on."""
        return _ms(self.certificate.not_valid_before_utc)

    @property
    def valid_until_ms(self) -> int:
        """No longer than this."""
        return _ms(self.certificate.not_valid_after_utc)


@dataclass(frozen=True, kw_only=True)
class Authorities:
    """Who signs certificates. `alipay_roots_pem` is the file of roots that merchants get."""

    wechatpay: Certificate
    alipay: Certificate
    alipay_roots_pem: str


def serial_of(certificate: x509.Certificate) -> str:
    """Upper-case hexadecimal."""
    return f"{certificate.serial_number:X}"


def new_serial() -> str:
    """40 hexadecimal digits, as real ones; X.509 allows 159 bits."""
    return "4" + chance.hexadecimal(39).upper()


def newest_valid(found: tuple[Certificate, ...], now: int) -> Certificate:
    """The one to sign with: the last that has become valid and has not expired."""
    valid = [one for one in found if one.valid_from_ms <= now < one.valid_until_ms]
    # None is valid only when a test let them all expire: then the last ever used.
    return sorted(valid or found, key=lambda one: one.valid_from_ms)[-1]


def ensure_authorities(folder: Path) -> Authorities:
    """Make those that are missing, and load."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / "alipay_roots.pem").exists():
        _make(folder)
    return Authorities(
        wechatpay=read(folder / "wechatpay"),
        alipay=read(folder / "alipay"),
        alipay_roots_pem=(folder / "alipay_roots.pem").read_text(),
    )


def _make(folder: Path) -> None:
    now = clock.now_ms()
    wechatpay, root, key = files.new_key(), files.new_key(), files.new_key()
    tenpay = _name("Sandbox WeChat Pay", "Sandbox WeChat Pay Root CA")
    top = _name("Sandbox Alipay", "Sandbox Alipay Root CA")
    middle = _name("Sandbox Alipay", "Sandbox Alipay CA")
    write(folder / "wechatpay", wechatpay, _authority(tenpay, wechatpay, tenpay, wechatpay, now))
    root_certificate = _authority(top, root, top, root, now)
    write(folder / "alipay_root", root, root_certificate)
    write(folder / "alipay", key, _authority(middle, key, top, root, now))
    other = ec.generate_private_key(ec.SECP256R1())
    odd = _name("Sandbox Alipay", "Sandbox Alipay Other Root CA")
    roots = (_authority(odd, other, odd, other, now), root_certificate)
    # Last: its presence says that everything else is there.
    # With blank lines between them, by which some SDKs tell them apart.
    pem = b"\n".join(certificate.public_bytes(Encoding.PEM) for certificate in roots)
    files.write(folder / "alipay_roots.pem", pem)


def _authority(
    subject: x509.Name,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    now: int,
) -> x509.Certificate:
    return (
        _builder(subject, issuer, new_serial(), now - LEEWAY_MS, AUTHORITY_LIFE_S)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(issuer_key, SHA256())
    )


def issue(
    authority: Certificate,
    public: rsa.RSAPublicKey,
    organization: str,
    name: str,
    *,
    serial: str = "",
    valid_from_ms: int,
    life_s: int = LIFE_S,
) -> x509.Certificate:
    """A certificate for this key."""
    subject = _name(organization, name)
    issuer = authority.certificate.subject
    return (
        _builder(subject, issuer, serial or new_serial(), valid_from_ms, life_s)
        .public_key(public)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(authority.private, SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, serial: str, valid_from_ms: int, life_s: int
) -> x509.CertificateBuilder:
    start = datetime.fromtimestamp(valid_from_ms // 1_000, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(int(serial, 16))
        .not_valid_before(start)
        .not_valid_after(start + timedelta(seconds=life_s))
    )


def _name(organization: str, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Certification Authority"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def write(stem: Path, key: rsa.RSAPrivateKey, certificate: x509.Certificate) -> None:
    """<stem>.key.pem, then <stem>.crt: where the second is, the first is too."""
    files.write(stem.with_name(f"{stem.name}.key.pem"), files.private_pem(key))
    files.write(stem.with_name(f"{stem.name}.crt"), certificate.public_bytes(Encoding.PEM))


def read(stem: Path) -> Certificate:
    """What `write` wrote."""
    pem = stem.with_name(f"{stem.name}.crt").read_bytes()
    return Certificate(
        certificate=x509.load_pem_x509_certificate(pem),
        private=files.read_private(stem.with_name(f"{stem.name}.key.pem")),
    )


def read_all(folder: Path) -> tuple[Certificate, ...]:
    """All certificates of a folder, in the order they were made."""
    return tuple(read(path.with_suffix("")) for path in sorted(folder.glob("*.crt")))


def add(
    folder: Path, authority: Certificate, organization: str, name: str, *, start: int, life_s: int
) -> None:
    """Make the next one of a folder, with a key of its own."""
    folder.mkdir(mode=0o700, exist_ok=True)
    key = files.new_key()
    made = issue(
        authority, key.public_key(), organization, name, valid_from_ms=start, life_s=life_s
    )
    write(folder / f"{len(list(folder.glob('*.crt'))) + 1:04d}", key, made)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000)
