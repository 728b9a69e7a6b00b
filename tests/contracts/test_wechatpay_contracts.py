"""Each call of WeChat Pay, in each mode, sends what was recorded and reads the answer likewise."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.contracts import wechatpay
from tests.contracts.replay import account, load, play, recordings

ACCOUNT = account(wechatpay.CHANNEL)
ALL = recordings(wechatpay.CHANNEL)


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def played(recording: dict[str, Any], path: Path) -> list[str]:
    return play(recording, ACCOUNT, path.parent.name, wechatpay.build, wechatpay.resign)


@pytest.mark.parametrize("path", ALL, ids=named)
def test_a_recorded_exchange_goes_as_recorded(path: Path) -> None:
    assert played(load(path), path) == []


def test_every_call_is_recorded_in_every_mode() -> None:
    found = {mode: set[str]() for mode in wechatpay.MODES}
    for path in ALL:
        found[path.parent.name].add(load(path)["call"])
    calls = {"prepay", "query", "query_transaction", "close", "refund", "query_refund"}
    calls |= {"download_bill", "hand_over", "read_notice", "openid_of"}
    assert found == dict.fromkeys(wechatpay.MODES, calls)


@pytest.mark.parametrize("part", ["target", "body", "authorization", "wechatpay-serial"])
def test_a_byte_that_differs_in_a_request_is_told(part: str) -> None:
    path = next(one for one in ALL if named(one) == "public_key/prepay_native")
    recording = copy.deepcopy(load(path))
    request = recording["exchanges"][0]["request"]
    place = request["headers"] if part in request["headers"] else request
    place[part] = place[part][:-2] + chr(ord(place[part][-2]) ^ 1) + place[part][-1]
    wrong = played(recording, path)
    assert len(wrong) == 1
    assert part in wrong[0]


def test_a_request_left_out_is_told() -> None:
    path = next(one for one in ALL if named(one) == "certificates/query_paid")
    recording = load(path)
    first = recording["exchanges"].pop(0)
    assert first["request"]["target"] == "/v3/certificates"
    assert played(recording, path) != []
