"""Clients that none of us wrote make their own calls against the sandbox, over HTTP, unchanged.

npm's `alipay-sdk` (official) and `wechatpay-axios-plugin` verify every answer; they are pinned in
`tests/node`. Each runs in public-key mode and in certificate mode.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sandbox_kit import Merchant, Running, beijing, running
from tests.integration.third_party import NODE_DIR, SCRIPT_TIMEOUT_S, third_party

__all__ = ["third_party"]
pytestmark = pytest.mark.usefixtures("third_party")

MODES = {"public_key": "merchant.env", "certificate": "merchant.certs.env"}
modes = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sandbox"), time_scale=0.001) as found:
        yield found


def called(server: Running, script: str, mode: str) -> dict[str, Any]:
    """What the client's calls came to, with the merchant's settings of this mode."""
    env = Merchant(server.data, MODES[mode]).env
    paths = {name: Path(value) for name, value in env.items() if value.startswith("/")}
    # In certificate mode the settings name no public key; the client wants one before it has asked.
    paths.setdefault("WECHATPAY_PUBLIC_KEY_FILE", server.data / "merchant/wechatpay_public_key.pem")
    given = {
        "url": server.url,
        "env": env,
        "files": {name: path.read_text() for name, path in paths.items()},
        "certified": mode == "certificate",
        "today": beijing()[:10],
    }
    done = subprocess.run(
        ["node", script],
        cwd=NODE_DIR,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=SCRIPT_TIMEOUT_S,
        check=False,
        # The Alipay SDK writes its host's local time where the gateway reads Beijing's.
        env={**os.environ, "TZ": "Asia/Shanghai"},
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@modes
def test_wechatpay_axios_plugin_runs_all_its_calls(server: Running, mode: str) -> None:
    said = called(server, "call-wechatpay.js", mode)
    assert said.pop("native").startswith(f"{server.url}/cashier/wechatpay/")
    assert said.pop("jsapi").startswith("wx")
    assert said.pop("h5").startswith(server.url)
    assert said.pop("refund") in {"PROCESSING", "SUCCESS"}
    certificates = {"certificates": 1} if mode == "certificate" else {}
    assert said == certificates | {
        "unpaid": "NOTPAY",
        "paid": "SUCCESS",
        "byId": True,
        "close": 204,
        "closed": "CLOSED",
        "closePaid": {"status": 400, "code": "ORDER_PAID"},
        "refundQuery": 88,
        "noRefund": {"status": 404, "code": "RESOURCE_NOT_EXISTS"},
        "bill": True,
        "billHash": True,
    }


@modes
def test_the_official_alipay_sdk_runs_all_its_calls(server: Running, mode: str) -> None:
    said = called(server, "call-alipay.js", mode)
    assert said.pop("precreate").startswith(f"{server.url}/cashier/alipay/")
    assert said == {
        "unscanned": "ACQ.TRADE_NOT_EXIST",
        "paid": "TRADE_SUCCESS",
        "byId": True,
        "page": {"status": 200, "cashier": True},
        "wap": {"status": 200, "cashier": True},
        "waiting": "WAIT_BUYER_PAY",
        "close": "10000",
        "closePaid": "ACQ.TRADE_STATUS_ERROR",
        "cancel": "refund",
        "refund": "Y",
        "refundAgain": "N",
        "refundQuery": "REFUND_SUCCESS",
        "bill": "PK",
    }
