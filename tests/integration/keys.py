"""Key material for tests: made once per process, never written to the repository.

`WeChatPayKeys` and `AlipayKeys` hold both sides, so that a test can play the gateway.
"""

import secrets
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from config.settings import AlipaySettings, WeChatPaySettings


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """An RSA pair in PEM: PKCS#8 and SubjectPublicKeyInfo."""

    private_pem: str
    public_pem: str


@dataclass(frozen=True, kw_only=True)
class WeChatPayKeys:
    """One merchant and its platform."""

    merchant: KeyPair
    platform: KeyPair
    apiv3_key: str
    mchid: str = "1900000109"
    appid: str = "wxd678efh567hg6787"
    cert_serial: str = "444F4864EA9B34415A4E4C1D5E6F708192A3B4C5"
    public_key_id: str = "PUB_KEY_ID_0119000001092024081400111900000001"

    def settings(self, base_url: str = "http://127.0.0.1:9") -> WeChatPaySettings:
        """The shop's side of these keys."""
        return WeChatPaySettings(
            base_url=base_url,
            mchid=self.mchid,
            appid=self.appid,
            cert_serial=self.cert_serial,
            private_key_pem=self.merchant.private_pem,
            apiv3_key=self.apiv3_key,
            public_key_id=self.public_key_id,
            public_key_pem=self.platform.public_pem,
        )


@dataclass(frozen=True, kw_only=True)
class AlipayKeys:
    """One application and Alipay."""

    app: KeyPair
    alipay: KeyPair
    app_id: str = "2014072300007148"
    seller_id: str = "2088102146225135"

    def settings(self, base_url: str = "http://127.0.0.1:9/gateway.do") -> AlipaySettings:
        """The shop's side of these keys."""
        return AlipaySettings(
            base_url=base_url,
            app_id=self.app_id,
            seller_id=self.seller_id,
            private_key_pem=self.app.private_pem,
            public_key_pem=self.alipay.public_pem,
        )


def new_key_pair(bits: int = 2048) -> KeyPair:
    """A fresh RSA pair."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return KeyPair(private_pem=private.decode(), public_pem=public.decode())


@cache
def wechatpay_keys() -> WeChatPayKeys:
    """The process's WeChat Pay keys."""
    return WeChatPayKeys(
        merchant=new_key_pair(), platform=new_key_pair(), apiv3_key=secrets.token_hex(16)
    )


@cache
def alipay_keys() -> AlipayKeys:
    """The process's Alipay keys."""
    return AlipayKeys(app=new_key_pair(), alipay=new_key_pair())
