"""Merchants' credentials as sealed text, for the database.

The whole account is sealed, with the merchant's name in it: a text that was moved to another
merchant's row does not open there. Fernet (AES-128-CBC and HMAC-SHA256, github.com/fernet/spec) is
taken from `cryptography`, which also tries several keys, so that they can be changed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from config.gateways import AlipaySettings, WeChatPaySettings
from config.merchants import AccountSettings
from config.settings import SettingsError


def seal(keys: Sequence[str], merchant: str, account: AccountSettings) -> str:
    """The account as text that only these keys open; the first one seals. Raises SettingsError."""
    content = {"merchant": merchant, **asdict(account)}
    return _fernet(keys).encrypt(json.dumps(content).encode()).decode("ascii")


def unseal(keys: Sequence[str], merchant: str, sealed: str) -> AccountSettings:
    """What was sealed for this merchant. Raises SettingsError; no complaint quotes a secret."""
    try:
        content = json.loads(_fernet(keys).decrypt(sealed.encode()))
    except InvalidToken:
        raise SettingsError(
            f"The stored credentials of {merchant} do not open with CREDENTIALS_KEY: add the key "
            "that sealed them, or store them again with `flask --app wsgi merchants add`."
        ) from None
    if content.pop("merchant", None) != merchant:
        raise SettingsError(
            f"The stored credentials of {merchant} were sealed for another merchant: store them "
            "again with `flask --app wsgi merchants add`."
        )
    try:
        return AccountSettings(
            wechatpay=_made(WeChatPaySettings, content["wechatpay"]),
            alipay=_made(AlipaySettings, content["alipay"]),
        )
    except (KeyError, TypeError):
        raise SettingsError(
            f"The stored credentials of {merchant} are of another version of the shop: store them "
            "again with `flask --app wsgi merchants add`."
        ) from None


def _made(kind: Any, fields: Mapping[str, Any] | None) -> Any:
    if fields is None:
        return None
    # JSON knows no tuples.
    return kind(
        **{name: tuple(one) if isinstance(one, list) else one for name, one in fields.items()}
    )


def _fernet(keys: Sequence[str]) -> MultiFernet:
    if not keys:
        raise SettingsError(
            "CREDENTIALS_KEY is not set: accounts in the database are sealed with it; make one "
            "with `flask --app wsgi merchants new-key`."
        )
    return MultiFernet([Fernet(key) for key in keys])
