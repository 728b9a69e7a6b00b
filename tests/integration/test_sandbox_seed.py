"""A seed makes the sandbox's numbers the same again. Apart from the other tests of the sandbox, as
one source of chance serves a whole process."""

import json
from pathlib import Path

from tests.integration.sandbox_kit import Merchant, number, running

NATIVE = "/v3/pay/transactions/native"


def seeded(data: Path, *, starts: int = 1) -> list[list[str]]:
    """What a sandbox says to the same calls at each of its starts, the first on a fresh folder."""
    said = []
    for _ in range(starts):
        with running(data, seed="7"):
            merchant = Merchant(data)
            body = json.dumps(merchant.native(number(), 1, "http://127.0.0.1:9/")).encode()
            answer = merchant.wechatpay_request("POST", NATIVE, body)
            code = answer.json()["code_url"].rpartition("/")[2]
            env = merchant.env
            numbers = [env["WECHATPAY_MCHID"], env["WECHATPAY_APPID"], env["ALIPAY_APP_ID"]]
            said.append([code, answer.headers["Wechatpay-Nonce"], *numbers])
    return said


def test_a_seed_tells_every_number_and_a_restart_does_not_repeat_them(tmp_path: Path) -> None:
    first_start, second_start = seeded(tmp_path / "one", starts=2)
    assert seeded(tmp_path / "other") == [first_start]
    assert first_start[2:] == second_start[2:]
    assert len({*first_start[:2], *second_start[:2]}) == 4
