"""Each call of Alipay, in each mode, sends what was recorded and makes the same of the answer."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.contracts import alipay
from tests.contracts.replay import account, load, play, recordings

ACCOUNT = account(alipay.CHANNEL)
ALL = recordings(alipay.CHANNEL)


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def recorded(name: str) -> tuple[dict[str, Any], Path]:
    path = next(one for one in ALL if named(one) == name)
    return copy.deepcopy(load(path)), path


def played(recording: dict[str, Any], path: Path) -> list[str]:
    return play(recording, ACCOUNT, path.parent.name, alipay.build, alipay.resign)


@pytest.mark.parametrize("path", ALL, ids=named)
def test_a_recorded_exchange_goes_as_recorded(path: Path) -> None:
    assert played(load(path), path) == []


def test_every_call_is_recorded_in_every_mode() -> None:
    found = {mode: set[str]() for mode in alipay.MODES}
    for path in ALL:
        found[path.parent.name].add(load(path)["call"])
    calls = {"prepay", "query", "query_transaction", "close", "cancel", "refund", "query_refund"}
    calls |= {"download_bill", "hand_over", "read_notice"}
    assert found == dict.fromkeys(alipay.MODES, calls)


@pytest.mark.parametrize("mode", alipay.MODES)
@pytest.mark.parametrize("place", [10, 300, -20])
def test_a_byte_that_differs_in_a_request_is_told(mode: str, place: int) -> None:
    recording, path = recorded(f"{mode}/prepay_precreate")
    request = recording["exchanges"][0]["request"]
    body = bytearray(request["body"].encode())
    body[place] ^= 1
    request["body"] = body.decode()
    wrong = played(recording, path)
    assert len(wrong) == 1
    assert "body" in wrong[0]


def test_the_renewed_certificate_was_fetched_while_recording() -> None:
    recording, path = recorded("certificates/query_under_a_renewed_certificate")
    asked = [one["request"]["body"] for one in recording["exchanges"]]
    assert ["alipaycert.download" in body for body in asked] == [False, True]
    recording["exchanges"] = recording["exchanges"][:1]
    assert played(recording, path) != []
