"""Accounts in the database are sealed: whole, for one merchant, by keys that can be changed."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from config.gateways import AlipaySettings, WeChatPaySettings
from config.merchants import AccountSettings
from config.settings import SettingsError
from shop.merchants.cipher import seal, unseal

KEY, OTHER = Fernet.generate_key().decode(), Fernet.generate_key().decode()
TEXT = st.text(min_size=1, max_size=30)
WORDS = st.lists(TEXT, min_size=1, max_size=3).map(tuple)

wechatpay = st.builds(
    WeChatPaySettings,
    base_url=TEXT,
    mchid=TEXT,
    appid=TEXT,
    cert_serial=TEXT,
    private_key_pem=TEXT,
    apiv3_key=TEXT,
    fetch_certs=st.booleans(),
    products=WORDS,
)
alipay = st.builds(
    AlipaySettings,
    base_url=TEXT,
    app_id=TEXT,
    seller_id=TEXT,
    private_key_pem=TEXT,
    products=WORDS,
)
accounts = st.builds(AccountSettings, wechatpay=st.none() | wechatpay, alipay=st.none() | alipay)
ACCOUNT = AccountSettings(
    alipay=AlipaySettings(
        base_url="https://example.com", app_id="1", seller_id="2", private_key_pem="the secret"
    )
)


@given(accounts)
def test_what_is_sealed_is_unsealed_as_it_was(account: AccountSettings) -> None:
    assert unseal([KEY], "press", seal([KEY], "press", account)) == account


def test_the_sealed_text_shows_nothing_of_the_account() -> None:
    sealed = seal([KEY], "press", ACCOUNT)
    assert "secret" not in sealed
    assert "press" not in sealed
    assert seal([KEY], "press", ACCOUNT) != sealed


@given(st.data())
def test_a_text_of_which_one_bit_was_altered_does_not_open(data: st.DataObject) -> None:
    raw = bytearray(urlsafe_b64decode(seal([KEY], "press", ACCOUNT)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SettingsError, match="CREDENTIALS_KEY"):
        unseal([KEY], "press", urlsafe_b64encode(raw).decode())


def test_a_text_of_another_merchant_does_not_open() -> None:
    with pytest.raises(SettingsError, match="sealed for another merchant"):
        unseal([KEY], "garden", seal([KEY], "press", ACCOUNT))


def test_no_key_and_a_wrong_key_are_told_apart() -> None:
    sealed = seal([KEY], "press", ACCOUNT)
    with pytest.raises(SettingsError, match="CREDENTIALS_KEY is not set"):
        unseal([], "press", sealed)
    with pytest.raises(SettingsError, match="do not open with CREDENTIALS_KEY"):
        unseal([OTHER], "press", sealed)


def test_the_newest_key_seals_and_all_of_them_open() -> None:
    old = seal([KEY], "press", ACCOUNT)
    assert unseal([OTHER, KEY], "press", old) == ACCOUNT
    new = seal([OTHER, KEY], "press", ACCOUNT)
    assert unseal([OTHER], "press", new) == ACCOUNT
    with pytest.raises(SettingsError):
        unseal([KEY], "press", new)
