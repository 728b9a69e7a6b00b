"""What kind of browser asks, from what it says of itself. A hint for comfort, never for safety."""

import re

from flask import request

from shop.payments.products import Device

# "Mobi" is what MDN recommends to look for ("Browser detection using the user agent string"); the
# two apps say their names in their browsers' user agents.
_WECHAT = re.compile(r"\bMicroMessenger/", re.IGNORECASE)
_ALIPAY = re.compile(r"\bAlipayClient/", re.IGNORECASE)
_PHONE = re.compile(r"Mobi|Android|iPhone|iPad", re.IGNORECASE)


def device_of(user_agent: str, mobile_hint: str = "") -> Device:
    """The device by `User-Agent` and, where it is sent, `Sec-CH-UA-Mobile` (`?1` or `?0`).

    WeChat's and Alipay's programs on a desktop show their own browser there too, but neither can
    pay: those count as desktops.
    """
    is_phone = mobile_hint.strip() == "?1" or _PHONE.search(user_agent) is not None
    if not is_phone:
        return Device.DESKTOP
    if _WECHAT.search(user_agent):
        return Device.WECHAT
    return Device.ALIPAY if _ALIPAY.search(user_agent) else Device.PHONE


def current_device() -> Device:
    """The device of this request."""
    headers = request.headers
    return device_of(headers.get("User-Agent", ""), headers.get("Sec-CH-UA-Mobile", ""))
