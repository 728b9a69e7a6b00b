"""Who is about to pay inside WeChat: the payer's openid, which JSAPI asks for.

WeChat's web login in its silent form (`snsapi_base`): the browser is sent to `authorize_url` and
comes back with a code, which is changed into the openid by one call. No platform signs that answer;
TLS alone vouches for it, and an openid that is not the payer's only makes the payment fail there.
Source: WeChat's official-account documentation, "网页授权".
"""

import re
from typing import Final
from urllib.parse import urlencode

from config.settings import WeChatPaySettings
from shop.gateways.base import LoginRefused, PayerLogin
from shop.gateways.transport import Transport, TransportFault
from shop.gateways.wechatpay_wire import read_json

_STATE = re.compile(r"[0-9A-Za-z]{1,128}")
_CODE = re.compile(r"[\x21-\x7e]{1,512}")
_OPENID = re.compile(r"[0-9A-Za-z_\-]{1,128}")

MAX_ERROR_DIGITS: Final = 10


class WeChatLogin(PayerLogin):
    """The login of one application. Thread-safe."""

    def __init__(self, settings: WeChatPaySettings, transport: Transport) -> None:
        self.appid = settings.appid
        self._secret = settings.app_secret
        self._authorize_url = settings.authorize_url
        self._openid_url = settings.openid_url
        self._transport = transport

    def authorize_url(self, redirect_uri: str, state: str) -> str:
        """See `PayerLogin`. Raises ValueError for a state that WeChat does not take.

        The parameters stand in the order of the documentation, as WeChat asks for.
        """
        if _STATE.fullmatch(state) is None:
            raise ValueError("a state has 1 to 128 letters and digits")
        query = urlencode(
            {
                "appid": self.appid,
                "redirect_uri": redirect_uri,
                "response_type": "code",
                "scope": "snsapi_base",
                "state": state,
            }
        )
        return f"{self._authorize_url}?{query}#wechat_redirect"

    def openid_of(self, code: str) -> str:
        """See `PayerLogin`. The secret stands in the address, so no fault of the call is passed on
        but its code."""
        if _CODE.fullmatch(code) is None:
            raise LoginRefused("bad_code")
        query = urlencode(
            {
                "appid": self.appid,
                "secret": self._secret,
                "code": code,
                "grant_type": "authorization_code",
            }
        )
        try:
            answer = self._transport.send(
                "GET", f"{self._openid_url}?{query}", headers={"User-Agent": "payonce"}
            )
            fields = read_json(answer.body) if answer.status == 200 else {}
        except TransportFault as fault:
            raise LoginRefused(fault.code) from None
        error = fields.get("errcode", 0)
        if error:
            digits = type(error) is int and len(str(abs(error))) <= MAX_ERROR_DIGITS
            raise LoginRefused(str(error) if digits else "bad_answer")
        openid = fields.get("openid")
        if not isinstance(openid, str) or _OPENID.fullmatch(openid) is None:
            raise LoginRefused("server_error" if answer.status >= 500 else "bad_answer")
        return openid
