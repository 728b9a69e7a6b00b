"""Which product pays: always one of the channel's that is offered and works there, or none."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.gateways.base import Product
from shop.pages.device import device_of
from shop.payments.products import Device, choose, is_stale

OF_CHANNEL = {
    "wechatpay": {Product.NATIVE, Product.JSAPI, Product.H5},
    "alipay": {Product.PRECREATE, Product.PAGE, Product.WAP},
}
QR_PRODUCTS = {"wechatpay": Product.NATIVE, "alipay": Product.PRECREATE}
EVERYTHING = frozenset(Product)
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@given(
    channel=st.sampled_from(sorted(OF_CHANNEL)),
    device=st.sampled_from(Device),
    offered=st.frozensets(st.sampled_from(Product)),
    payer_known=st.booleans(),
    on_its_page=st.booleans(),
)
def test_what_is_chosen_is_offered_and_works_on_the_device(
    channel: str,
    device: Device,
    offered: frozenset[Product],
    payer_known: bool,
    on_its_page: bool,
) -> None:
    chosen = choose(channel, device, offered, payer_known=payer_known, on_its_page=on_its_page)
    if chosen is None:
        # A code can be scanned wherever it is shown.
        assert not offered & {QR_PRODUCTS[channel]}
        return
    assert chosen in OF_CHANNEL[channel] & offered
    # JSAPI works in WeChat's browser only, H5 in a phone's own, and WeChat's opens no Alipay.
    assert chosen is not Product.JSAPI or (device is Device.WECHAT and payer_known)
    assert chosen is not Product.H5 or device is Device.PHONE
    assert chosen is not Product.WAP or device in {Device.PHONE, Device.ALIPAY}
    assert chosen is not Product.PAGE or on_its_page or device is Device.DESKTOP


@pytest.mark.parametrize(
    ("channel", "device", "offered", "chosen"),
    [
        ("wechatpay", Device.DESKTOP, {Product.H5}, None),
        ("wechatpay", Device.ALIPAY, {Product.H5, Product.JSAPI}, None),
        ("wechatpay", Device.PHONE, {Product.NATIVE, Product.JSAPI}, Product.NATIVE),
        ("alipay", Device.DESKTOP, {Product.PAGE, Product.WAP}, Product.PAGE),
        ("alipay", Device.DESKTOP, {Product.WAP}, None),
        ("alipay", Device.WECHAT, {Product.PAGE, Product.WAP}, None),
    ],
)
def test_without_the_best_product_it_is_another_that_works_or_none(
    channel: str, device: Device, offered: set[Product], chosen: Product | None
) -> None:
    assert choose(channel, device, offered, payer_known=True) is chosen


@pytest.mark.parametrize(
    ("channel", "device", "on_its_page", "chosen"),
    [
        ("wechatpay", Device.DESKTOP, False, Product.NATIVE),
        ("wechatpay", Device.DESKTOP, True, Product.NATIVE),
        ("wechatpay", Device.PHONE, False, Product.H5),
        ("wechatpay", Device.WECHAT, False, Product.JSAPI),
        ("alipay", Device.DESKTOP, False, Product.PRECREATE),
        ("alipay", Device.DESKTOP, True, Product.PAGE),
        ("alipay", Device.PHONE, False, Product.WAP),
        ("alipay", Device.ALIPAY, False, Product.WAP),
        ("alipay", Device.WECHAT, False, Product.PRECREATE),
        ("wechatpay", Device.ALIPAY, False, Product.NATIVE),
    ],
)
def test_each_device_gets_the_product_that_suits_it(
    channel: str, device: Device, on_its_page: bool, chosen: Product
) -> None:
    found = choose(channel, device, EVERYTHING, payer_known=True, on_its_page=on_its_page)
    assert found is chosen


@pytest.mark.parametrize(
    ("product", "life"),
    [
        (Product.NATIVE, timedelta(hours=2)),
        (Product.JSAPI, timedelta(hours=2)),
        (Product.PRECREATE, timedelta(hours=2)),
        (Product.H5, timedelta(minutes=5)),
    ],
)
def test_a_ticket_is_stale_before_it_dies_at_the_gateway(product: Product, life: timedelta) -> None:
    assert not is_stale(product, NOW, NOW + life - timedelta(minutes=1))
    assert is_stale(product, NOW, NOW + life - timedelta(seconds=1))
    assert not is_stale(product, None, NOW + life)


@pytest.mark.parametrize("product", [Product.PAGE, Product.WAP])
def test_an_address_that_is_signed_when_it_is_shown_never_grows_stale(product: Product) -> None:
    assert not is_stale(product, NOW, NOW + timedelta(days=1))


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
            " Chrome/130.0.0.0 Safari/537.36",
            Device.DESKTOP,
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like"
            " Gecko) Version/17.6 Safari/605.1.15",
            Device.DESKTOP,
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML,"
            " like Gecko) Version/17.6 Mobile/15E148 Safari/604.1",
            Device.PHONE,
        ),
        (
            "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko)"
            " Chrome/130.0.0.0 Mobile Safari/537.36",
            Device.PHONE,
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML,"
            " like Gecko) Mobile/15E148 MicroMessenger/8.0.50(0x18003237) NetType/WIFI",
            Device.WECHAT,
        ),
        (
            "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko)"
            " Version/4.0 Chrome/126.0 Mobile Safari/537.36 AlipayClient/10.6.10",
            Device.ALIPAY,
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
            " Chrome/116.0 Safari/537.36 NetType/WIFI MicroMessenger/7.0.20 WindowsWechat",
            Device.DESKTOP,
        ),
        ("", Device.DESKTOP),
        ("curl/8.9", Device.DESKTOP),
    ],
)
def test_a_browser_is_known_by_what_it_says_of_itself(user_agent: str, device: Device) -> None:
    assert device_of(user_agent) is device


def test_the_mobile_hint_makes_a_phone_of_a_browser_that_hides_it() -> None:
    assert device_of("Mozilla/5.0 (X11; Linux x86_64) Chrome/130", "?1") is Device.PHONE
    assert device_of("Mozilla/5.0 (X11; Linux x86_64) Chrome/130", "?0") is Device.DESKTOP


@given(user_agent=st.text(max_size=300), hint=st.text(max_size=10))
def test_whatever_a_browser_says_it_is_some_device(user_agent: str, hint: str) -> None:
    assert device_of(user_agent, hint) in Device
