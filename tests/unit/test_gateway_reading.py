"""The small readers under both gateways: exact where exactness counts, and never raising else."""

import base64
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shop.gateways.alipay_answers import plain_text
from shop.gateways.alipay_wire import member_text
from shop.gateways.reading import (
    alipay_utc,
    china_time,
    cut_utf8,
    fault,
    is_canonical_base64,
    our_number,
    rfc3339_utc,
)


@settings(deadline=None)
@given(st.binary())
def test_bytes_have_one_base64_form_and_no_other(value: bytes) -> None:
    text = base64.b64encode(value).decode()
    assert is_canonical_base64(text)
    assert not is_canonical_base64(text + "\n")
    assert not is_canonical_base64("!" + text)


@settings(deadline=None)
@given(st.text())
def test_what_passes_as_base64_decodes_and_encodes_to_itself(text: str) -> None:
    if is_canonical_base64(text):
        assert base64.b64encode(base64.b64decode(text)).decode() == text


def test_unused_bits_before_the_padding_are_refused() -> None:
    assert base64.b64decode("AR==") == base64.b64decode("AQ==")
    assert is_canonical_base64("AQ==")
    assert not is_canonical_base64("AR==")


@settings(deadline=None)
@given(st.text())
def test_no_text_makes_a_time_reader_raise(text: str) -> None:
    for read in (rfc3339_utc, alipay_utc):
        moment = read(text)
        assert moment is None or moment.tzinfo is UTC


def test_the_gateways_times_are_read_as_chinese_time() -> None:
    expected = datetime(2018, 6, 8, 2, 34, 56, tzinfo=UTC)
    assert rfc3339_utc("2018-06-08T10:34:56+08:00") == expected
    assert alipay_utc("2018-06-08 10:34:56") == expected
    assert alipay_utc("2018-06-08 10:34:56.320") == expected
    assert rfc3339_utc("0001-01-01T00:00:00+08:00") is None
    assert alipay_utc("2018-13-08 10:34:56") is None


@settings(deadline=None)
@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1992, 1, 1)))  # noqa: DTZ001
def test_a_deadline_is_never_later_on_the_chinese_clock(moment: datetime) -> None:
    if moment > datetime(9999, 12, 31, tzinfo=UTC):
        return
    there = china_time(moment)
    assert timedelta(0) <= moment - there < timedelta(seconds=1)
    assert there.utcoffset() == timedelta(hours=8)


def test_a_deadline_without_a_zone_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="zone"):
        china_time(datetime(2026, 1, 1))  # noqa: DTZ001  # the mistake itself
    assert china_time(datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-5)))).hour == 13


@pytest.mark.parametrize("number", ["", "a|b", "a/b", "a?b", "a b", "订单", "x" * 65, "a\n"])
def test_a_number_that_could_change_a_signed_path_is_our_mistake(number: str) -> None:
    with pytest.raises(ValueError, match="number"):
        our_number(number)


@settings(deadline=None)
@given(st.text(), st.integers(0, 200))
def test_a_text_cut_for_wechatpay_fits_and_has_no_control_characters(text: str, limit: int) -> None:
    cut = cut_utf8(text, limit)
    assert len(cut.encode()) <= limit
    assert cut.isprintable()


@settings(deadline=None)
@given(st.text(), st.integers(0, 200))
def test_a_text_for_alipay_has_none_of_the_forbidden_signs(text: str, limit: int) -> None:
    plain = plain_text(text, limit)
    assert not set(plain) & set("/=&{}")
    assert len(plain) <= limit
    assert plain.isprintable()


def test_forbidden_signs_are_kept_readable_for_alipay() -> None:
    assert plain_text("A/B = {C} & D\n", 256) == "A／B ＝ ｛C｝ ＆ D"


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text() | st.lists(st.text()), min_size=1), st.data())
def test_a_members_text_is_found_byte_for_byte(
    value: dict[str, object], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(value)))
    spaced = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:  ")]))
    raw = json.dumps(value, separators=spaced, ensure_ascii=data.draw(st.booleans()))
    found = member_text(raw, name)
    assert found in raw
    assert json.loads(found) == value[name]


@pytest.mark.parametrize("raw", ["", "[]", "{}", '{"a":1', '{"a":1}', '{"a" 1}', "{1:2}"])
def test_a_missing_member_is_a_value_error(raw: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        member_text(raw, "b")


@given(st.text() | st.sampled_from(["\ud800", "a\x00b", "a\nb"]))
def test_the_detail_of_a_fault_can_be_written_on_one_line_whatever_a_gateway_said(
    text: str,
) -> None:
    detail = fault("CODE", text).detail
    assert detail.encode("utf-8").decode() == detail
    assert detail.isprintable()
