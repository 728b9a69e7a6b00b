"""Callbacks as the gateways would send them, signed with the sandbox's own private keys.

The signing is done by npm's packages (tests/integration/third_party.py), so that neither the
shop's reading nor the sandbox's writing is its own judge.
"""

import json
from collections.abc import Mapping
from typing import Any

from tests.integration.keys import AlipayKeys, KeyPair, WeChatPayKeys
from tests.integration.third_party import (
    alipay_trade,
    sign_alipay_notice,
    sign_wechatpay_notice,
    wechatpay_transaction,
)
from tests.shopclient import Call
from tests.shopkit import Sandbox


class Callbacks:
    """Makes callbacks of one sandbox's gateways to one shop, for one of its merchants."""

    def __init__(self, sandbox: Sandbox, shop_url: str, merchant_name: str = "default") -> None:
        self._shop_url = shop_url
        self._suffix = "" if merchant_name == "default" else f"/{merchant_name}"
        gateway, merchant = sandbox.folder / "gateway", sandbox.folder / "merchant"
        if self._suffix:
            gateway = gateway / "merchants" / merchant_name
            merchant = sandbox.folder / "merchants" / merchant_name
        identity = json.loads((gateway / "identity.json").read_bytes())

        def pair(owner_is_gateway: bool, stem: str, public: str) -> KeyPair:
            owner, other = (gateway, merchant) if owner_is_gateway else (merchant, gateway)
            return KeyPair(
                private_pem=(owner / f"{stem}.pem").read_text(),
                public_pem=(other / f"{public}.pem").read_text(),
            )

        self.wechatpay_keys = WeChatPayKeys(
            merchant=pair(False, "wechatpay_private_key", "wechatpay_merchant_public_key"),
            platform=pair(True, "wechatpay_platform_key", "wechatpay_public_key"),
            apiv3_key=(gateway / "wechatpay_apiv3_key.txt").read_text(),
            mchid=identity["mchid"],
            appid=identity["appid"],
            cert_serial=identity["cert_serial"],
            public_key_id=identity["public_key_id"],
        )
        self.alipay_keys = AlipayKeys(
            app=pair(False, "alipay_private_key", "alipay_merchant_public_key"),
            alipay=pair(True, "alipay_platform_key", "alipay_public_key"),
            app_id=identity["alipay_app_id"],
            seller_id=identity["alipay_seller_id"],
        )

    def wechatpay(
        self,
        out_trade_no: str,
        amount_fen: int,
        *,
        timestamp: int | None = None,
        serial: str | None = None,
        notice_id: str | None = None,
        **changes: object,
    ) -> Call:
        """A success of WeChat Pay, with `changes` in the transaction that it tells of."""
        resource = wechatpay_transaction(self.wechatpay_keys, out_trade_no, amount_fen, **changes)
        headers, body = sign_wechatpay_notice(
            self.wechatpay_keys,
            resource,
            timestamp=timestamp,
            serial=serial,
            notice_id=notice_id,
        )
        return self._call("wechatpay", headers, body)

    def wechatpay_refund(self, out_trade_no: str, amount_fen: int, status: str) -> Call:
        """What WeChat Pay tells of a refund of all of a payment."""
        resource = {
            "mchid": self.wechatpay_keys.mchid,
            "out_trade_no": out_trade_no,
            "transaction_id": "4200000000000000000000000001",
            "out_refund_no": f"RF{out_trade_no}",
            "refund_id": "50300000000000000000000000001",
            "refund_status": status,
            "success_time": "2026-01-01T13:00:00+08:00",
            "user_received_account": "支付用户零钱",
            "amount": {
                "total": amount_fen,
                "refund": amount_fen,
                "payer_total": amount_fen,
                "payer_refund": amount_fen,
            },
        }
        headers, body = sign_wechatpay_notice(
            self.wechatpay_keys, resource, event_type=f"REFUND.{status}"
        )
        return self._call("wechatpay", headers, body)

    def alipay(self, out_trade_no: str, total_amount: str, **changes: str) -> Call:
        """A success of Alipay (amount in yuan), with `changes` in its fields."""
        fields = alipay_trade(self.alipay_keys, out_trade_no, total_amount, **changes)
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        return self._call("alipay", headers, sign_alipay_notice(self.alipay_keys, fields))

    def _call(self, channel: str, headers: Mapping[str, str], body: bytes) -> Call:
        url = f"{self._shop_url}/webhooks/{channel}{self._suffix}"
        return Call(url=url, headers=headers, body=body)


def is_acknowledged(channel: str, status: int, body: bytes) -> bool:
    """Whether the gateway would stop sending, by its own rule."""
    return status in {200, 204} if channel == "wechatpay" else (status, body) == (200, b"success")


def trade_at(sandbox: Sandbox, out_trade_no: str) -> Any:
    """What the gateway itself says of a trade."""
    return sandbox.get(f"/admin/trades/{out_trade_no}")
